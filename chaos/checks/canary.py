"""A roll-out by weights, and the drill that shows that it pauses: roll.canary, roll.pause.

A step is decided again, by what is recorded of it and by the same function that decided it then (chaos.checks.deciding).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chaos.checks.arms import Arm, Latencies, by_second
from chaos.checks.deciding import Decision, Step, decide
from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.checks.limits import Limits

CAUGHT = 500  # failed requests of a bad release, at 5 %, before which it has to be paused
PROMOTED = "a healthy candidate is promoted step by step, by proof"
PAUSES = "a bad release is paused before 500 of its requests failed, and all requests go back to the baseline at once"


def step_of(history: History) -> Step:
    """What was seen at its weight, from the intervals, the gauges and the facts of the history."""
    facts = history.facts
    width = float(facts.get("width", "1"))
    arms = {name: Arm(reads=Latencies(width)) for name in ("baseline", "candidate", "")}
    for name, arm in arms.items():
        for together in by_second(one for one in history.intervals if one.release == name):
            arm.take(together)
    counted = {one.name: int(one.value) for one in history.gauges}
    for name in ("baseline", "candidate"):
        arms[name].handshakes = counted.get(f"handshakes.{name}", 0)
        arms[name].broken = counted.get(f"handshakes.{name}.failed", 0)
    candidate = arms["candidate"]
    candidate.looked_up, candidate.lost = int(facts.get("looked_up", "0")), int(facts.get("lost", "0"))
    candidate.row = int(facts.get("row", "0"))
    learned = tuple((float(events), float(size)) for events, size in json.loads(facts.get("learned", "[]")))
    return Step(weight=int(facts["weight"]), baseline=arms["baseline"], candidate=candidate, nobody=arms[""], learned=learned)


def decided(history: History) -> Decision:
    """By the record."""
    facts = history.facts
    return decide(step_of(history), due=facts.get("due") == "yes", over=facts.get("over") == "yes")


def step(history: History, limits: Limits) -> Iterator[Finding]:
    """One weight of the candidate's roll-out; where it was paused for what the candidate did, the pausing is looked at as well."""
    del limits
    facts, decision = history.facts, decided(history)
    weight = facts["weight"]
    yield _finding(
        history,
        gate="roll.canary",
        outcome=_outcome(facts.get("decision", ""), decision),
        detail=f"{weight} %: {_told(facts, decision)}",
        expected=PROMOTED,
    )
    if facts.get("decision") == "pause" and decision.culprit == "candidate":
        yield paused(history, decision)


def _outcome(then: str, now: Decision) -> Outcome:
    """Only a candidate that broke a rule by itself fails; what was not proven, or is nobody's or both releases' doing, is open."""
    if now.action == "pause" and now.culprit == "candidate":
        return Outcome.FAIL
    return Outcome.PASS if now.action == "promote" and then == "promote" else Outcome.INCONCLUSIVE


def _told(facts: dict[str, str], decision: Decision) -> str:
    if facts.get("decision") == "promote":
        return f"promoted: {decision.why}"
    if decision.action != "pause":
        return f"not decided when the roll-out was ended: {decision.why}"
    blame = {"both": "the baseline does the same, so it is not the release: "}
    since = f", first seen {facts['since']} s after the weight was set" if facts.get("since") else ""
    return f"paused: {blame.get(decision.culprit, '')}{decision.why}{since}; {_back(facts)}"


def _back(facts: dict[str, str]) -> str:
    if not facts.get("back"):
        return "the weights were not put back"
    after = (
        f"{facts.get('after.baseline', '0')} of the next requests went to the baseline, {facts.get('after.candidate', '0')} not"
    )
    return f"all weight back on the baseline {float(facts['back']):.1f} s later ({after})"


def paused(history: History, decision: Decision) -> Finding:
    """Whether it came in time, and all requests went back."""
    facts = history.facts
    seen = step_of(history).candidate
    late = facts.get("first") == "yes" and seen.failed >= CAUGHT
    stray = int(facts.get("after.candidate", "0"))
    outcome = Outcome.PASS
    if late or not facts.get("back") or stray:
        outcome = Outcome.FAIL
    elif facts.get("after.baseline", "0") == "0":
        outcome = Outcome.INCONCLUSIVE
    what = facts.get("release", "the candidate")
    return _finding(
        history,
        gate="roll.pause",
        check=f"pause.{history.experiment.removeprefix('canary.')}",
        outcome=outcome,
        detail=f"{what}, at {facts['weight']} %: paused by {', '.join(decision.rules)} after {seen.failed} of its {seen.asked} "
        f"requests had failed: {decision.why}; {_back(facts)}",
        expected=PAUSES,
    )


def drill(history: History, limits: Limits) -> Finding:
    """A bad release, planted: it has to be paused. One that did not fail shows nothing."""
    del limits
    facts, decision = history.facts, decided(history)
    seen = step_of(history).candidate
    if decision.action == "pause" and decision.culprit == "candidate":
        return paused(history, decision)
    told = f"{seen.failed} of {seen.asked} requests of a bad release ({facts.get('release', 'wrong CA file')}) failed"
    missed = seen.failed >= CAUGHT
    return _finding(
        history,
        gate="roll.pause",
        check="pause.drill",
        outcome=Outcome.FAIL if missed else Outcome.INCONCLUSIVE,
        detail=f"{told}, and the roll-out went on" if missed else f"{told}: the drill shows nothing ({decision.why})",
        expected=PAUSES,
    )


def end(history: History, limits: Limits) -> Finding:
    """The whole of it: 100 % reached, or not."""
    del limits
    facts = history.facts
    reached, steps = facts.get("reached", "0"), facts.get("steps", "")
    done = reached == "100"
    return _finding(
        history,
        gate="roll.canary",
        outcome=Outcome.PASS if done else Outcome.INCONCLUSIVE,
        detail=f"promoted by {steps.replace(',', ', ')} % to 100 % in {float(facts['seconds']):.0f} s"
        if done
        else f"ended at {reached} % of {steps.replace(',', ', ')}: {facts.get('ended', 'interrupted')}",
        expected=PROMOTED,
    )


def _finding(history: History, *, gate: str, outcome: Outcome, detail: str, expected: str, check: str = "") -> Finding:
    return Finding(
        check=check or history.experiment,
        gate=gate,
        outcome=outcome,
        detail=detail,
        expected=expected,
        n=1,
        bad=int(outcome is Outcome.FAIL),
        examples=tuple(filter(None, (history.facts.get("example", ""),))) if outcome is not Outcome.PASS else (),
    )
