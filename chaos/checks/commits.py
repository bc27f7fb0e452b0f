"""Writes whose answer was cut off right after COMMIT: there once, whatever the target said of them (res.durability).

An honest target says 503 to an outcome that it never saw, or finds out and says 2xx. One that simply tries again writes twice; one that
then meets its own first write may say 409 to a write that is there. Zero of 59 prove, at 95 %, that less than 5 % go wrong.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks import writes
from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

EXPECTED = "a write whose COMMIT was done is there, once, and is not refused afterwards; its outcome was never seen by the target"


def check(history: History, limits: Limits) -> Finding:
    """The finding, whose `n` is how many writes were hit (and not how many were sent)."""
    hits = int(history.facts.get("hits", "0"))
    found = writes.check(history, limits)
    base = Finding(
        check=history.experiment,
        gate="res.durability",
        outcome=Outcome.INCONCLUSIVE,
        detail="no write could be looked up again",
        n=hits,
        expected=EXPECTED,
    )
    if history.exited:
        return replace(
            base, outcome=Outcome.FAIL, bad=1, detail=f"the target ended ({history.exited}) when an answer was cut off"
        )
    if not hits:
        return replace(base, detail="no answer could be cut right after COMMIT: no write changed rows in a transaction seen here")
    if found is None:
        return base
    detail = f"{hits} answers cut right after COMMIT; {found.detail}"
    return replace(found, check=base.check, n=hits, detail=detail, expected=EXPECTED)
