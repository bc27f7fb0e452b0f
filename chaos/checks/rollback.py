"""A bad release, seen and rolled back: res.rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.recovery import describe
from chaos.model import Finding, History, Kind, Outcome
from chaos.statistics import lower

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

SEEN_ABOVE = 0.005  # roll.pause: 5xx > 0.5 %


def check(history: History, limits: Limits) -> Finding:
    """Seen (the failure rate's lower bound is above 0.5 %), rolled back by one command, steady again, and nothing lost."""
    del limits
    facts = history.facts
    bad_from, bad_to = float(facts.get("bad.from", "0")), float(facts.get("bad.to", "0"))
    meanwhile = [one for one in history.operations if one.kind is Kind.READ and bad_from <= one.started < bad_to]
    failed = [one for one in meanwhile if not one.ok]
    seen = lower(len(failed), len(meanwhile))
    steady = float(facts["steady.after"]) if facts.get("steady.after") else None
    acknowledged = {one.unique for one in history.operations if one.kind is Kind.WRITE and one.ok}
    looked = [
        one for one in history.operations if one.kind is Kind.READ_BACK and one.unique in acknowledged and one.occurrences >= 0
    ]
    lost = [one for one in looked if one.occurrences == 0]
    outcome = Outcome.PASS
    problems: list[str] = []
    if not meanwhile or seen <= SEEN_ABOVE:
        outcome = Outcome.INCONCLUSIVE
        problems.append(f"the bad release was not seen: {len(failed)} of {len(meanwhile)} requests failed")
    if facts.get("exit") != "0":
        outcome = Outcome.FAIL
        problems.append(f"the roll-back command ended with {facts.get('exit')}: {facts.get('output', '')[-200:]}")
    if steady is None:
        outcome = Outcome.FAIL
        problems.append("the good release did not serve again")
    if lost:
        outcome = Outcome.FAIL
        problems.append(f"{len(lost)} of {len(looked)} acknowledged writes were gone afterwards")
    told = (
        f"bad release ({facts.get('release', 'wrong CA file')}): {len(failed)} of {len(meanwhile)} requests failed; "
        + (f"steady {steady:.1f} s after the command was given; " if steady is not None else "")
        + f"{len(looked) - len(lost)} of {len(looked)} acknowledged writes there"
    )
    return Finding(
        check=history.experiment,
        gate="res.rollback",
        outcome=outcome,
        detail="; ".join([*problems, told]),
        n=1,
        bad=int(outcome is Outcome.FAIL),
        measured=steady,
        expected="one command restores the good release within 10 min, and acknowledged writes are still there",
        examples=tuple(describe(one) for one in failed[:2]),
    )
