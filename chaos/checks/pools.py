"""What dead connections and failed queries cost a pool (res.pool): an answer in time, service again, no session more."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.recovery import describe, late
from chaos.model import Finding, History, Kind, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

STALE = (
    "k idle connections that died cost no request more than fail_fast = {0:g} s, and it serves again within recovery = {1:g} s; each "
    "of k black holes may cost one request its fail_fast beside that"
)
LEAK = "after queries that failed it serves as before, with as many sessions: what an error keeps from its pool is lost"


def stale(history: History, limits: Limits) -> Finding:
    """The finding on the drain of stale connections: a window for each number of them."""
    drains = json.loads(history.facts.get("drains", "[]"))
    hole = history.facts.get("how") == "hole"
    slow = list({one.started: one for window in history.windows for one in late(history.operations, window, limits)}.values())
    never = [one for one in drains if one["again"] < 0]
    problems = []
    if history.exited:
        problems.append(f"the target ended ({history.exited})")
    if slow:
        problems.append(f"{len(slow)} requests were not answered within {limits.fail_fast:g} s")
    if never and not history.exited:
        one = never[0]
        problems.append(f"with {one['died']} dead connections it did not serve again in {one['longest']:.0f} s")
    over = [
        one for one in drains if one["again"] > limits.recovery + limits.slack + (one["died"] * limits.fail_fast if hole else 0.0)
    ]
    what = "reset" if not hole else "black holes"
    told = [
        f"{one['died']} dead: {one['failed']} failed, serving after {one['again']:.2f} s (slowest answer {one['slowest']:.2f} s)"
        for one in drains
    ]
    seen = f"idle connections became {what}; " + "; ".join(told)
    if over and not hole:
        problems.append(f"with {over[0]['died']} dead connections it served again only after {over[0]['again']:.1f} s")
    if drains:
        seen += f"; {drains[-1]['at_once']} connections anew within 100 ms"
    found = Finding(
        check=history.experiment,
        gate=history.facts["gate"],
        outcome=Outcome.FAIL if problems else Outcome.PASS if drains else Outcome.INCONCLUSIVE,
        detail="; ".join([*problems, seen]),
        n=1,
        bad=int(bool(problems)),
        measured=max((one["again"] for one in drains if one["again"] >= 0), default=None),
        expected=STALE.format(limits.fail_fast, limits.recovery),
        examples=tuple(describe(one) for one in slow[:3]),
    )
    if found.outcome is Outcome.PASS and over:
        late_one = f"{found.detail}. Reported (medium): later than recovery = {limits.recovery:g} s and fail_fast for each"
        return replace(found, outcome=Outcome.NOT_APPLICABLE, n=0, severity="medium", detail=late_one)
    return found


def leak(history: History, limits: Limits) -> Finding:
    """The finding on what queries that failed leave behind."""
    rounds = json.loads(history.facts.get("rounds", "[]"))
    sessions = [sum(one["sessions"].values()) for one in rounds]
    stuck = [sum(count for state, count in one["sessions"].items() if state.startswith("idle in tr")) for one in rounds]
    failing = [one for one in history.operations if one.client == "failing" and one.kind is Kind.READ]
    slow = [one for one in failing if one.seconds > limits.fail_fast + limits.slack]
    sick = next((one["sick"] for one in rounds if one["sick"]), "")
    problems = []
    if history.exited:
        problems.append(f"the target ended ({history.exited})")
    if sick and not history.exited:
        problems.append(f"after {sum(one['cancelled'] for one in rounds)} queries that failed it did not serve again: {sick}")
    if slow:
        problems.append(f"{len(slow)} requests were not answered within {limits.fail_fast:g} s")
    for what, counts in (("sessions", sessions), ("sessions left in a transaction", stuck)):
        if len(counts) >= 3 and all(later > before for before, later in itertools.pairwise(counts)):
            problems.append(f"each round of failed queries leaves more {what}: {', '.join(map(str, counts))}")
    seen = f"{sum(one['cancelled'] for one in rounds)} queries cancelled in {len(rounds)} rounds; sessions after each: "
    seen += ", ".join(map(str, sessions))
    if any(stuck):
        seen += f"; of them in a transaction: {', '.join(map(str, stuck))}"
    outcome = Outcome.FAIL if problems else Outcome.PASS if len(rounds) >= 3 else Outcome.INCONCLUSIVE
    found = Finding(
        check=history.experiment,
        gate=history.facts["gate"],
        outcome=outcome,
        detail="; ".join([*problems, seen]),
        n=1,
        bad=int(bool(problems)),
        expected=LEAK,
        examples=tuple(describe(one) for one in slow[:3]),
    )
    return replace(found, examples=(*found.examples, *history.logs[-3:])) if history.exited else found
