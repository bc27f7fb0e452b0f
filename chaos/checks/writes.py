"""Acknowledged writes are there once, and no good answer denies it: a check of the recorded history, not of anyone's word.

Outcomes of a write (after Jepsen): ok (2xx), fail (4xx: certainly not applied), info (5xx, time-out, lost: unknown). The final
state is what `read_back` shows: how often {unique} is in it, held against how often one write in the steady state put it there.
lost = ok and absent; doubled = present more often than once; false failure = fail and present. An info write may be there or not.

While something is broken, an error is honest and a good answer without what is there is not:
- stale: a 2xx to `read_back` without a write that had been acknowledged by then, and that is there at the end. Reads went back in time.
- empty: a 2xx to a read that lists nothing, where the same read listed something before the fault and after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.recovery import describe
from chaos.model import Finding, History, Kind, Operation, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.checks.limits import Limits

GATE = "res.durability"
SETTLED = 0.5  # s after its acknowledgement in which a write may still be on its way to what answers reads


def check(history: History, limits: Limits) -> Finding | None:
    """The finding for res.durability; None when no write was sent or none can be read back, and no read was answered with nothing."""
    del limits
    empty = _empty(history)
    if not _written(history):
        return _only_reads(history, empty) if empty else None
    writes = {one.unique: one for one in history.operations if one.kind is Kind.WRITE}
    acknowledged = {one.unique for one in history.operations if one.kind is Kind.WRITE and one.ok}
    shown = _final(history)
    lost, doubled, false = _broken(history, writes, acknowledged, shown)
    stale = _stale(history, shown)
    wrong = lost + doubled + false + stale + empty
    unknown = sum(1 for unique, one in writes.items() if unique not in acknowledged and not 400 <= (one.status or 0) < 500)
    told = [
        f"{len(acknowledged & shown.keys())} acknowledged writes looked up: {len(lost)} lost, {len(doubled)} applied twice",
        f", {len(false)} refused and applied all the same" if false else "",
        f"; {len(stale)} good answers without a write that had been acknowledged" if stale else "",
        f"; {_nothing(empty)}" if empty else "",
        f"; {unknown} without a clear answer (they may be there or not)" if unknown else "",
    ]
    outcome, detail = Outcome.FAIL if wrong else Outcome.PASS, "".join(told)
    if not wrong and not shown:
        outcome, detail = Outcome.INCONCLUSIVE, "no write could be looked up again"
    return Finding(
        check=f"writes.{history.experiment}",
        gate=GATE,
        outcome=outcome,
        detail=detail,
        n=len(shown) + len(empty),
        bad=len(wrong),
        expected="a write that was acknowledged is there, once, in every good answer (2xx means done: RFC 9110, 15.3)",
        examples=tuple(describe(one) for one in wrong[:3]),
    )


def _written(history: History) -> bool:
    """Whether there are writes that can be looked up."""
    return any(one.kind is Kind.WRITE for one in history.operations) and any(key.startswith("once.") for key in history.facts)


def _final(history: History) -> dict[str, Operation]:
    """{unique} -> the last good answer to its `read_back`, once nothing was broken any more."""
    healed = max((window.healed for window in history.windows), default=0.0)
    back = (one for one in history.operations if one.kind is Kind.READ_BACK and one.occurrences >= 0)
    return {one.unique: one for one in back if one.started >= healed}


def _broken(
    history: History, writes: Mapping[str, Operation], acknowledged: set[str], shown: Mapping[str, Operation]
) -> tuple[list[Operation], list[Operation], list[Operation]]:
    """Writes that were lost, applied more than once, and refused but applied."""
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
    return lost, doubled, false


def _stale(history: History, shown: Mapping[str, Operation]) -> list[Operation]:
    """Good answers to `read_back` from the fault on that lack a write which was acknowledged well before, and is there at the end."""
    struck = min((window.injected for window in history.windows), default=0.0)
    done = {one.unique: one.finished for one in history.operations if one.kind is Kind.WRITE and one.ok}
    there = {unique for unique, one in shown.items() if one.occurrences > 0}
    return [
        one
        for one in history.operations
        if one.kind is Kind.READ_BACK
        and one.occurrences == 0
        and one.unique in there & done.keys()
        and one.started > max(struck, done[one.unique] + SETTLED)
    ]


def _empty(history: History) -> list[Operation]:
    """Good answers that list nothing while something was broken, to reads that listed something before and after."""
    if not history.windows:
        return []
    struck, healed = min(one.injected for one in history.windows), max(one.healed for one in history.windows)
    reads = [one for one in history.operations if one.kind is Kind.READ and one.ok and one.occurrences >= 0]
    found: list[Operation] = []
    for sample in {one.sample for one in reads}:
        mine = [one for one in reads if one.sample == sample]
        before = [one.occurrences for one in mine if one.finished < struck]
        after = [one.occurrences for one in mine if one.started > healed]
        if before and after and min(*before, *after, 1) > 0 and after[-1] > 0:
            found += [one for one in mine if one.occurrences == 0 and one.started >= struck and one.finished <= healed]
    return found


def _nothing(empty: list[Operation]) -> str:
    return f"{len(empty)} reads were answered {empty[0].status} with an empty list, which was none before and is none after"


def _only_reads(history: History, empty: list[Operation]) -> Finding:
    return Finding(
        check=f"writes.{history.experiment}",
        gate=GATE,
        outcome=Outcome.FAIL,
        detail=_nothing(empty),
        n=len(empty),
        bad=len(empty),
        expected="what cannot be read is an error (503), never an empty answer",
        examples=tuple(describe(one) for one in empty[:3]),
    )
