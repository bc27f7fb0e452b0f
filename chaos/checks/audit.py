"""Refused hosts have to show up in the audit log: sec.audit_log.

The log is the target's own, JSON lines ([target.logs]); it may sample. What is looked for is a line, valid JSON, in which one of
the hosts that were refused is the value of some member - whatever the member is called.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

ENOUGH = 100  # refusals after which a sampled log that shows none of them can be called silent


def mentions(line: str, names: frozenset[str]) -> str:
    """The refused host that is a value in this JSON line; '' when there is none."""
    if not line.lstrip().startswith("{"):
        return ""
    try:
        value = json.loads(line)
    except ValueError:
        return ""
    return next((text for text in _texts(value) if text.lower().partition(":")[0].rstrip(".") in names), "")


def _texts(value: Any) -> list[str]:
    """All strings in a JSON value; Any, for it is whatever a target logs."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _texts(one)]


def check(history: History, limits: Limits) -> Finding | None:
    """The finding for sec.audit_log; None when the target's log is not declared."""
    del limits
    if "audit.refused" not in history.facts:
        return None
    refused, shown = int(history.facts["audit.refused"]), int(history.facts["audit.shown"])
    lines = history.facts["audit.lines"]
    detail = f"{shown} of {refused} refused hosts are in the log ({lines} new lines)"
    outcome = Outcome.PASS if shown else Outcome.FAIL if refused >= ENOUGH else Outcome.INCONCLUSIVE
    return Finding(
        check="audit.hosts",
        gate="sec.audit_log",
        outcome=outcome,
        detail=detail,
        n=refused,
        bad=0 if shown else refused,
        expected="rejected hosts appear (sampled) in the audit log",
        examples=history.logs[:2],
    )
