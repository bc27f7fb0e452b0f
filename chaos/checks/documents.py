"""Are the documents of the review there, fresh and whole? One finding a document, for rep.documents.

Without [documents] nothing is known of them, and the gate stays open, for a review without them is no GO. What is declared has to be
there, with an owner, a date of review that is not older than `oldest` days and not to come, the headings that documents.toml asks for,
and no blank of the starting texts (`[[...]]`) left.
"""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

from chaos.documents import wanted
from chaos.model import Finding, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from chaos.checks.limits import Limits
    from chaos.documents import Document
    from chaos.model import History

GATE = "rep.documents"
EXPECTED = "there, with an owner, a date of review that is not too old, its headings, and nothing left to fill in"


def check(history: History, limits: Limits) -> list[Finding]:
    """'runbook.documents', and so on."""
    del limits
    facts = history.facts
    return judged(json.loads(facts["documents"]), date.fromisoformat(facts["today"]), int(facts["oldest"]))


def judged(seen: Iterable[Mapping[str, Any]], today: date, oldest: int) -> list[Finding]:
    """The same, of what was examined (chaos.documents.Examined, as JSON)."""
    found = {one["id"]: one for one in seen}
    return [_finding(one, found.get(one.id, {}), today, oldest) for one in wanted()]


def _finding(document: Document, seen: Mapping[str, Any], today: date, oldest: int) -> Finding:  # Any: JSON
    wrong = list(_wrong(document, seen, today, oldest))
    head = seen.get("head", {})
    good = f"{document.title}: reviewed {head.get('date')} by {head.get('owner')}"
    return Finding(
        check=f"{document.id}.documents",
        gate=GATE,
        outcome=Outcome.FAIL if wrong else Outcome.PASS,
        detail=f"{document.file} ({document.title}): {'; '.join(wrong)}" if wrong else good,
        n=1,
        bad=int(bool(wrong)),
        expected=EXPECTED,
        examples=tuple(f"{document.file}:{one}" for one in seen.get("blanks", ())[:8]),
    )


def _wrong(document: Document, seen: Mapping[str, Any], today: date, oldest: int) -> Iterator[str]:
    if not seen or seen["wrong"]:
        yield seen["wrong"] if seen else "is not there"
        return
    head, headings = seen["head"], [one.lower() for one in seen["headings"]]
    if not head.get("owner"):
        yield "has no owner"
    yield from _dated(head.get("date", ""), today, oldest)
    yield from (f"{key} is no number" for key in document.keys if not head.get(key, "").isdigit())
    lacking = [one for one in document.headings if not any(one.lower() in heading for heading in headings)]
    if lacking:
        yield f"has no heading with {', '.join(map(repr, lacking))}"
    if seen["blanks"]:
        yield f"{len(seen['blanks'])} blanks are left to fill in"


def _dated(text: str, today: date, oldest: int) -> Iterator[str]:
    try:
        age = (today - date.fromisoformat(text)).days
    except ValueError:
        yield f"its date is none: {text or 'empty'} (write it as {today.isoformat()})"
        return
    if age > oldest:
        yield f"was reviewed {age} days ago (at most {oldest})"
    elif age < -1:  # somebody's evening is somebody else's next day
        yield f"was reviewed on {text}, which is to come"
