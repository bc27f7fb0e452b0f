"""Acknowledged writes are there once: a check of the recorded history, not of anyone's word.

Outcomes of a write (after Jepsen): ok (2xx), fail (4xx: certainly not applied), info (5xx, time-out, lost: unknown). The final
state is what `read_back` shows: how often {unique} is in it, held against how often one write in the steady state put it there.
lost = ok and absent; doubled = present more often than once; false failure = fail and present. An info write may be there or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.recovery import describe
from chaos.model import Finding, History, Kind, Operation, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits


def check(history: History, limits: Limits) -> Finding | None:
    """The finding for res.durability; None when no write was sent or none can be read back."""
    del limits
    writes = {one.unique: one for one in history.operations if one.kind is Kind.WRITE}
    acknowledged = {one.unique for one in history.operations if one.kind is Kind.WRITE and one.ok}
    shown = {one.unique: one for one in history.operations if one.kind is Kind.READ_BACK and one.occurrences >= 0}
    if not writes or not any(name.startswith("once.") for name in history.facts):
        return None
    lost: list[Operation] = []
    doubled: list[Operation] = []
    false: list[Operation] = []
    for unique, seen in shown.items():
        write = writes.get(unique)
        once = int(history.facts.get(f"once.{write.sample}", "0")) if write else 0
        if write is None or once < 1:
            continue
        if unique in acknowledged and seen.occurrences == 0:
            lost.append(write)
        if seen.occurrences > once:
            doubled.append(write)
        refused = write.status is not None and 400 <= write.status < 500
        if refused and unique not in acknowledged and seen.occurrences > 0:
            false.append(write)
    checked = len(acknowledged & shown.keys())
    bad = len(lost) + len(doubled) + len(false)
    detail = f"{checked} acknowledged writes looked up: {len(lost)} lost, {len(doubled)} applied twice"
    if false:
        detail += f", {len(false)} refused and applied all the same"
    unknown = sum(1 for unique, one in writes.items() if unique not in acknowledged and not 400 <= (one.status or 0) < 500)
    if unknown:
        detail += f"; {unknown} without a clear answer (they may be there or not)"
    outcome = Outcome.FAIL if bad else Outcome.PASS
    if not bad and not shown:
        outcome, detail = Outcome.INCONCLUSIVE, "no write could be looked up again"
    return Finding(
        check=f"writes.{history.experiment}",
        gate="res.durability",
        outcome=outcome,
        detail=detail,
        n=len(shown),
        bad=bad,
        expected="a write that was acknowledged is there, once (2xx means done: RFC 9110, 15.3)",
        examples=tuple(describe(one) for one in (lost + doubled + false)[:3]),
    )
