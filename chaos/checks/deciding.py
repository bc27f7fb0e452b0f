"""Promote, hold or pause: what a roll-out makes of what its two releases were seen to do. Pure.

The live roll-out asks after each second, `recheck` asks again from disk, and the simulation (benchmarks/canary_simulated.py) asks some
hundred thousand times: all three ask `decide`. A step is judged by its own observations alone, so that each weight has to prove itself.

A rule pauses when its e-process reaches 100 (chaos.sequential: looking every second costs nothing), and lets pass when its bound keeps
the limit (statistics.md, Canary). Between the two the roll-out holds, until time or the budget of bad requests is over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.checks.arms import Arm
from chaos.comparison import rate_ratio
from chaos.model import Outcome
from chaos.sequential import PAUSE, TRIP, e_value
from chaos.statistics import design_effect, judge_rate, needed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaos.checks.arms import Latencies

ERRORS, HANDSHAKES = 0.005, 0.002  # roll.pause: shares
LATENCY, TAIL = 1.15, 0.05  # P95 of at most so many times the baseline's; the share that is above a P95
HOSTS = 1.5  # times as many 400s to a request as the baseline gives: less is a matter of taste, three times is a spike
BUDGET = 400  # bad requests in a step after which the candidate has had its chance: 500 are the limit for catching a bad one
CAREFUL, FAIR = 2.33, 1.64  # standard errors off the baseline's P95: before the candidate is accused, before it is let pass
RARE = 1e-4  # one-sided error of the comparison with what was learned before: it is looked at again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was seen at one weight. `nobody` is what no release has put its name to (no answer came).

    `learned` are the baseline's (400s, requests) of earlier stretches of time, for when it has no traffic any more.
    """

    weight: int
    baseline: Arm = field(default_factory=Arm)
    candidate: Arm = field(default_factory=Arm)
    nobody: Arm = field(default_factory=Arm)
    learned: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One rule, looked at: `bad` of `n` of the candidate. FAIL pauses, INCONCLUSIVE holds. `both`: the baseline breaks it as well."""

    rule: str
    outcome: Outcome
    says: str
    bad: int = 0
    n: int = 0
    evidence: float = 1.0
    both: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`action` is 'promote', 'hold' or 'pause'; `why` is for people.

    `culprit`, of a pause: 'candidate', 'both' (the baseline does the same), 'nobody' (who it was cannot be told), or 'undecided' (the
    time or the budget for proving itself is over).
    """

    action: str
    why: str
    sights: tuple[Sight, ...] = ()
    culprit: str = ""

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that paused it, the strongest evidence first."""
        fired = sorted((one for one in self.sights if one.outcome is Outcome.FAIL), key=lambda one: -one.evidence)
        return tuple(one.rule for one in fired)


def decide(step: Step, *, due: bool = True, over: bool = False) -> Decision:
    """`due`: the step has lasted as long as it was planned to; `over`: so has the patience for holding it."""
    sights = tuple(rule(step) for rule in RULES)
    fired = sorted((one for one in sights if one.outcome is Outcome.FAIL), key=lambda one: -one.evidence)
    if fired:
        own = [one for one in fired if not one.both and one.rule != "nobody"]
        culprit = "candidate" if own else "both" if any(one.both for one in fired) else "nobody"
        return Decision(action="pause", why="; ".join(one.says for one in own or fired), sights=sights, culprit=culprit)
    waiting = [one for one in sights if one.outcome is not Outcome.PASS]
    told = "; ".join(one.says for one in waiting)
    if waiting and (over or any(one.bad >= BUDGET for one in waiting)):
        end = "the time for it is over" if over else f"{max(one.bad for one in waiting):,} bad requests are enough"
        return Decision(action="pause", why=f"it could not be proven good, and {end}: {told}", sights=sights, culprit="undecided")
    if waiting:
        return Decision(action="hold", why=told, sights=sights)
    if not due:
        return Decision(action="hold", why="every rule holds; the step lasts longer by plan", sights=sights)
    return Decision(action="promote", why="; ".join(one.says for one in sights if one.n), sights=sights)


# -- rules: each looks at one quantity ------------------------------------------------------------------------------------------


def _rate(rule: str, what: str, limit: float, mine: tuple[int, int], theirs: tuple[int, int], *, row: int = 0) -> Sight:
    """A share that has a limit of its own, whatever the baseline does; what that does says whose fault it is."""
    (bad, n), (base_bad, base_n) = mine, theirs
    evidence = e_value(bad, n, limit)
    seen = f"{bad:,} of {n:,} {what} of the candidate's failed (baseline: {base_bad:,} of {base_n:,})"
    if evidence >= PAUSE or row >= TRIP:
        why = f"more than {limit:.1%}, evidence {_to_one(evidence)}" + (f", {row} in a row" if row >= TRIP else "")
        both = e_value(base_bad, base_n, limit) >= PAUSE
        return Sight(rule=rule, outcome=Outcome.FAIL, says=f"{seen}: {why}", bad=bad, n=n, evidence=evidence, both=both)
    outcome = judge_rate(bad, n, limit) if n else Outcome.INCONCLUSIVE
    if outcome is not Outcome.PASS:
        outcome, seen = Outcome.INCONCLUSIVE, f"{seen}: not yet proven to be at most {limit:.1%}"
    return Sight(rule=rule, outcome=outcome, says=seen, bad=bad, n=n, evidence=evidence)


def errors(step: Step) -> Sight:
    """5xx, or another wrong answer to a good request, or none: at most 0.5 %. Twenty in a row need no statistics."""
    mine, theirs = step.candidate, step.baseline
    return _rate("5xx", "requests", ERRORS, (mine.failed, mine.asked), (theirs.failed, theirs.asked), row=mine.row)


def handshakes(step: Step) -> Sight:
    """TLS handshakes with the database: at most 0.2 % fail.

    A pool makes a handful of them a day, and waiting does not bring more: where none failed, fewer than 1,497 let pass.
    """
    mine, theirs = step.candidate, step.baseline
    seen = _rate("handshakes", "TLS handshakes", HANDSHAKES, (mine.broken, mine.handshakes), (theirs.broken, theirs.handshakes))
    if seen.outcome is Outcome.INCONCLUSIVE and not seen.bad:
        says = f"0 of {seen.n:,} TLS handshakes of the candidate's failed ({needed(HANDSHAKES):,} would prove 0.2 %)"
        return Sight(rule=seen.rule, outcome=Outcome.PASS, says=says, n=seen.n, evidence=seen.evidence)
    return seen


def latency(step: Step) -> Sight:
    """At most 5 % of the reads take longer than 1.15 times the P95 of the baseline's, in the same stretch of time.

    The baseline's P95 is itself an estimate: its upper confidence limit accuses, its lower one lets pass. Slow requests hang together;
    an e-process of counts divided by how much they do (`together`) is one still (Jensen's inequality).
    """
    mine, theirs = step.candidate.reads, step.baseline.reads
    if not step.baseline.asked and step.weight >= 100:
        return Sight(rule="P95", outcome=Outcome.PASS, says="P95 is not compared at 100 %: the baseline has no traffic beside it")
    if not len(mine) or not len(theirs):
        return Sight(rule="P95", outcome=Outcome.INCONCLUSIVE, says="no reads of both releases yet to compare P95s of")
    error = math.sqrt((1 - TAIL) * TAIL / len(theirs))
    high = LATENCY * theirs.quantile(min(1.0, 1 - TAIL + CAREFUL * error))
    low = LATENCY * theirs.quantile(max(0.0, 1 - TAIL - FAIR * error))
    bad, n, deff = _slow(mine, theirs, high)
    evidence = e_value(bad / deff, n / deff, TAIL)
    seen = (
        f"P95 of the candidate's reads is {1000 * mine.quantile(1 - TAIL):.1f} ms, of the baseline's "
        f"{1000 * theirs.quantile(1 - TAIL):.1f} ms: {bad:,} of {n:,} took longer than {LATENCY:g} times that"
    )
    if evidence >= PAUSE:
        says = f"{seen}, more than {TAIL:.0%}, evidence {_to_one(evidence)}"
        return Sight(rule="P95", outcome=Outcome.FAIL, says=says, bad=bad, n=n, evidence=evidence)
    strict, _, deff = _slow(mine, theirs, low)
    passed = judge_rate(strict, n, TAIL, deff=deff) is Outcome.PASS
    outcome = Outcome.PASS if passed else Outcome.INCONCLUSIVE
    says = seen if passed else f"{seen}: not yet proven to be at most {TAIL:.0%}"
    return Sight(rule="P95", outcome=outcome, says=says, bad=bad, n=n, evidence=evidence)


def _slow(mine: Latencies, theirs: Latencies, limit: float) -> tuple[int, int, float]:
    """(how many took longer, of how many, how much they hang together) of the candidate's reads."""
    above = mine.above(limit)
    return sum(slow for slow, _ in above.values()), len(mine), together(above, theirs.above(limit))


def together(mine: Mapping[int, tuple[int, int]], theirs: Mapping[int, tuple[int, int]]) -> float:
    """How much less the candidate's slow requests say than independent ones, by stretches of time: >= 1.

    A design effect (chaos.statistics), less what the baseline does in the same stretches: where the machine stops for both, nothing
    of it is the candidate's. What varies is the distance to the baseline's share in that stretch, and that share is an estimate too.
    """
    slow, n = (sum(one[i] for one in mine.values()) for i in (0, 1))
    base_slow, base_n = (sum(one[i] for one in theirs.values()) for i in (0, 1))
    if not slow or not base_slow:
        return design_effect(list(mine.values()))
    ratio, share = slow / n * base_n / base_slow, base_slow / base_n
    distance = variance = 0.0
    for at, (bad, count) in mine.items():
        base_bad, base_count = theirs.get(at, (0, 0))
        about = (base_bad + share) / (base_count + 1)  # drawn towards the whole's share where there is little to see
        expected = min(1.0, ratio * about)
        distance += (bad - expected * count) ** 2
        variance += count * expected * (1 - expected) + (ratio * count) ** 2 * about * (1 - about) / (base_count + 1)
    return max(1.0, distance / variance) if variance else 1.0


def hosts(step: Step) -> Sight:
    """400s to good and to unknown hosts: not more than 1.5 times as many a request as the baseline gives.

    Beside each other the releases are handed requests at random, waves of scanners included, so of all 400s the candidate's share is
    that of its requests, whatever the waves. Alone, it is held against what was learned of the baseline before, whose waves count.
    """
    mine, theirs = step.candidate, step.baseline
    bad, n = mine.refused, mine.hosted
    seen = f"{bad:,} of {n:,} requests of the candidate's were answered 400 (baseline: {theirs.refused:,} of {theirs.hosted:,})"
    if not theirs.hosted:
        return _alone(step, seen) if step.weight >= 100 else Sight(rule="hosts", outcome=Outcome.INCONCLUSIVE, says=seen)
    share = HOSTS * n / (HOSTS * n + theirs.hosted)
    evidence = e_value(bad, bad + theirs.refused, share) if n else 1.0
    if evidence >= PAUSE:
        says = f"{seen}: more than {HOSTS:g} times as often, evidence {_to_one(evidence)}"
        return Sight(rule="hosts", outcome=Outcome.FAIL, says=says, bad=bad, n=n, evidence=evidence)
    few = judge_rate(bad, n, ERRORS) is Outcome.PASS
    passed = few or judge_rate(bad, bad + theirs.refused, share) is Outcome.PASS
    says = seen if passed else f"{seen}: not yet proven to be at most {HOSTS:g} times as many"
    # What is in the budget is what is too much: unknown hosts deserve their 400s.
    much = max(0, round(bad - theirs.refused / theirs.hosted * n))
    return Sight(
        rule="hosts",
        outcome=Outcome.PASS if passed else Outcome.INCONCLUSIVE,
        says=says,
        bad=much,
        n=n,
        evidence=evidence,
    )


def _alone(step: Step, seen: str) -> Sight:
    mine = step.candidate
    ratio = rate_ratio(step.learned, mine.refused, mine.hosted, alpha=RARE)
    if ratio.why or ratio.low <= HOSTS:
        return Sight(rule="hosts", outcome=Outcome.PASS, says=seen, n=mine.hosted)
    says = f"{seen}: {ratio.value:.1f} times as often as before, at least {ratio.low:.1f} times"
    return Sight(rule="hosts", outcome=Outcome.FAIL, says=says, bad=mine.refused, n=mine.hosted, evidence=1 / RARE)


def flips(step: Step) -> Sight:
    """Requests that deserve a 4xx and get a 5xx from the candidate."""
    mine, theirs = step.candidate, step.baseline
    told = (mine.flipped, mine.deserving), (theirs.flipped, theirs.deserving)
    seen = _rate("4xx", "requests that deserve a 4xx", ERRORS, *told)
    if seen.outcome is Outcome.INCONCLUSIVE and not seen.bad:
        says = f"0 of {seen.n:,} requests of the candidate's that deserve a 4xx were answered 5xx"
        return Sight(rule=seen.rule, outcome=Outcome.PASS, says=says, n=seen.n, evidence=seen.evidence)
    return seen


def lost(step: Step) -> Sight:
    """Writes that the candidate acknowledged, and that the baseline does not find: one is too many."""
    bad, n = step.candidate.lost, step.candidate.looked_up
    says = f"{bad:,} of {n:,} writes that the candidate acknowledged are not there"
    outcome = Outcome.FAIL if bad else Outcome.PASS
    return Sight(rule="writes", outcome=outcome, says=says, bad=bad, n=n, evidence=math.inf if bad else 1.0)


def nobody(step: Step) -> Sight:
    """No answer, so nobody's name: more than 0.5 % of all requests pause, and accuse no one."""
    bad, n = step.nobody.failed, step.nobody.asked + step.candidate.asked + step.baseline.asked
    evidence = e_value(bad, n, ERRORS)
    says = f"{bad:,} of {n:,} requests were answered by neither release"
    outcome = Outcome.FAIL if evidence >= PAUSE else Outcome.PASS
    return Sight(rule="nobody", outcome=outcome, says=says, bad=bad, n=n if bad else 0, evidence=evidence)


RULES: Sequence[Callable[[Step], Sight]] = (errors, handshakes, latency, hosts, flips, lost, nobody)


def _to_one(evidence: float) -> str:
    return f"{evidence:,.0f} to 1" if evidence < 1e9 else "beyond counting"
