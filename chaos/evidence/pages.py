"""How every page is made: one look (templates/report.css), everything escaped and redacted, nothing asked of anybody."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from chaos.evidence.redact import redact
from chaos.model import Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jinja2 import Environment

TONES = {
    Outcome.FAIL: "fail",
    Outcome.INCONCLUSIVE: "open",
    Outcome.PASS: "pass",
    Outcome.WAIVED: "waived",
    Outcome.NOT_APPLICABLE: "none",
}
VERDICT_TONES = {Verdict.GO: "pass", Verdict.CLEAR: "pass", Verdict.NO_GO: "fail", Verdict.INCONCLUSIVE: "open"}


def page(template: str, *, secrets: Sequence[str] = (), **values: object) -> str:
    """A page of templates/, from the values that it names; `secrets` are hidden, besides what is known by its shape."""
    hidden = tuple(secrets)
    environment = _environment().overlay(
        # every text that the template puts out goes through it; what is marked safe is our own drawing
        finalize=lambda value: redact(value, hidden) if type(value) is str else value,
    )
    return environment.get_template(template).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape  # noqa: PLC0415  (0.1 s, and only here)

    environment = Environment(
        loader=PackageLoader("chaos.evidence", "templates"),
        autoescape=select_autoescape((), ("md.j2",), default=True),  # Markdown has an escape of its own, `cell`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"tight": tight, "cell": cell}
    return environment


def tight(text: str) -> str:
    """No line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(?:ms|s|min|h|%)(?!\w))", "\N{NO-BREAK SPACE}", text)


def cell(text: str) -> str:
    """As a cell of a Markdown table, or a line of a list: nothing in it ends the cell, is a link or is markup."""
    for mark in ("\\", "|", "`", "*", "_", "[", "]", "<", ">"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def when(seconds: float) -> str:
    """Seconds since the epoch as '23 Nov 2026, 23:20:00 UTC'."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M:%S UTC").lstrip("0")
