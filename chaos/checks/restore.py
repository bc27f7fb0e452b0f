"""The restore drill: the database put back to a point in time, and what that cost (res.rollback; its writes: res.durability).

RTO is from the decision to the first moment from which the target serves again; RPO from the last acknowledged commit that is there to
the point that was asked for. What was acknowledged after the point is given up on purpose, and only told.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chaos.checks.recovery import describe, recovery
from chaos.model import Finding, History, Kind, Operation, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

EXPECTED = (
    "the database is put back to the moment before a disaster from base backup and archived WAL: all that was acknowledged until "
    "then is there, nothing of later, and the target serves again by itself"
)


def check(history: History, limits: Limits) -> list[Finding]:
    """The drill's own finding, and that of the target's writes where there were any."""
    writes = _writes(history)
    return [_restored(history, limits), *([writes] if writes else [])]


def _restored(history: History, limits: Limits) -> Finding:
    facts, window = history.facts, history.windows[0]
    back = recovery(history.operations, window.healed)
    decided = float(facts.get("decided", window.healed))
    rto = None if back.seconds is None else window.healed - decided + back.seconds
    problems = _problems(facts)
    if back.seconds is None or back.seconds > limits.recovery + limits.slack:
        problems.append(
            f"not serving {limits.recovery:g} s after the database was back ({back.failures} requests failed)"
            if back.seconds is None
            else f"serving again only {back.seconds:.1f} s after the database was back"
        )
    outcome = Outcome.FAIL if problems else Outcome.PASS
    if not problems and int(facts.get("commits.after", "0")) < 1:
        outcome = Outcome.INCONCLUSIVE
        problems = ["nothing was committed between the point and the disaster: nothing shows that the restore stopped there"]
    detail = "; ".join([*problems, _told(history, rto)])
    return Finding(
        check=history.experiment,
        gate=facts["gate"],
        outcome=outcome,
        detail=detail,
        n=1,
        bad=int(outcome is Outcome.FAIL),
        measured=rto,
        expected=EXPECTED,
        examples=tuple(describe(one) for one in _failed_after(history)[:2]) if outcome is Outcome.FAIL else (),
    )


def _problems(facts: dict[str, str]) -> list[str]:
    """What was wrong with the restore itself."""
    found: list[str] = []
    missing = json.loads(facts.get("missing", "[]"))
    if failed := facts.get("failed"):
        lacking = (
            f"; the archive lacks {len(missing)} WAL segments from the base backup on: {', '.join(missing[:3])}"
            if missing
            else ""
        )
        found.append(f"the database could not be recovered to the point: {failed}{lacking}")
    elif lost := int(facts.get("commits.lost", "0")):
        found.append(f"{lost} of {facts['commits.before']} commits that had been acknowledged before the point are gone")
    if beyond := int(facts.get("commits.beyond", "0")):
        found.append(f"{beyond} of {facts['commits.after']} commits of after the point are there: the recovery went past it")
    if unsecured := facts.get("unsecured"):
        found.append(f"the last WAL could not be secured: {unsecured}")
    return found


def _told(history: History, rto: float | None) -> str:
    facts, window = history.facts, history.windows[0]
    ended = f"; the target ended meanwhile ({facts['ended']}) and was started again" if facts.get("ended") else ""
    if rto is None:
        return f"{window.effect.seen}{ended}"
    decided, secured, ready = (float(facts.get(key, window.healed)) for key in ("decided", "secured", "ready"))
    kept = int(facts.get("commits.before", "0")) - int(facts.get("commits.lost", "0"))
    return (
        f"{window.effect.seen}; recovery target {facts.get('point', '')}: serving {rto:.1f} s after the decision (RTO: WAL secured "
        f"{secured - decided:.1f} s, recovered {ready - secured:.1f} s, the target {rto - (window.healed - decided):.1f} s); "
        f"RPO {float(facts.get('rpo', '0')):.3f} s: {kept} of {facts.get('commits.before')} commits of before the point there, "
        f"{facts.get('commits.after')} of after it given up{ended}"
    )


def _writes(history: History) -> Finding | None:
    """The target's own writes: those that were acknowledged before the point have to be there, once."""
    start, end = float(history.facts.get("point.from", "0")), float(history.facts.get("point.to", "0"))
    done = [one for one in history.operations if one.kind is Kind.WRITE and one.ok and f"once.{one.sample}" in history.facts]
    if not done:
        return None
    before = {one.unique: one for one in done if one.finished < start}
    shown = _shown(history, history.windows[0].healed)
    looked = {unique: one for unique, one in before.items() if unique in shown}
    lost = [one for unique, one in looked.items() if shown[unique].occurrences == 0]
    doubled = [one for unique, one in looked.items() if shown[unique].occurrences > int(history.facts[f"once.{one.sample}"]) > 0]
    given_up = sum(one.started > end and one.finished < history.windows[0].healed for one in done)
    wrong = [*lost, *doubled]
    outcome = Outcome.FAIL if wrong else Outcome.PASS if looked else Outcome.INCONCLUSIVE
    detail = (
        f"{len(looked)} writes that were acknowledged before the point were looked up after the restore: {len(lost)} lost, "
        f"{len(doubled)} there twice; {given_up} that were acknowledged after it were given up with it"
    )
    return Finding(
        check=f"writes.{history.experiment}",
        gate="res.durability",
        outcome=outcome,
        detail=detail if looked else "no write could be looked up again",
        n=len(looked),
        bad=len(wrong),
        expected="what was acknowledged before the recovery target is there after a restore to it, once",
        examples=tuple(describe(one) for one in wrong[:3]),
    )


def _shown(history: History, healed: float) -> dict[str, Operation]:
    back = (one for one in history.operations if one.kind is Kind.READ_BACK and one.occurrences >= 0)
    return {one.unique: one for one in back if one.started >= healed}


def _failed_after(history: History) -> list[Operation]:
    healed = history.windows[0].healed
    return [one for one in history.operations if one.kind in (Kind.READ, Kind.WRITE) and not one.ok and one.started >= healed]
