"""Whole roll-outs, simulated: how often a healthy candidate is paused, and how soon a bad one of each kind. As a table.

    python benchmarks/canary_simulated.py [--runs N] [--only PART]        PART: healthy | bad | weak

Every second `chaos.checks.deciding.decide` is asked, as in a live roll-out, at 100 requests a second and 5, 25, 50, 100 %. A healthy
candidate may be paused once in 200 roll-outs; a bad one has to be paused at 5 %, before 500 of its requests were bad. Exit status 1
when a line is off. 'weak' are candidates so near to the limit that they may end either way: told, not judged.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from chaos.checks.arms import Arm, Latencies
from chaos.checks.deciding import Decision, Step, decide

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20261127
STEPS = (5, 25, 50, 100)
RATE = 100  # requests a second
QUICK, LEAST, MOST = 30, 60, 3_600  # s: looked at each second; a step by plan; the end of a hold
MIX = (0.7, 0.05, 0.15, 0.1)  # reads, writes, unknown hosts, requests that deserve a 4xx
LIMIT = 500


@dataclass(frozen=True, slots=True)
class Release:
    """How a release behaves: shares, and the ratio of its latencies to those of a lognormal with `sigma` (median 10 ms)."""

    errors: float = 0.0005
    slower: float = 1.0
    sigma: float = 0.35
    unknown: float = 1.0  # 400s: so many times as many
    broken: float = 0.0
    pool: bool = True  # a few handshakes at the start, else one a request
    flips: float = 0.0


@dataclass(frozen=True, slots=True)
class End:
    """How a roll-out ended: `weight` at which, what was decided, and how many requests of the candidate were bad until then."""

    weight: int
    decision: Decision
    bad: int
    seconds: int


def second(rng: np.random.Generator, arm: Arm, release: Release, n: int, *, wave: float, at: float) -> None:
    """One second of `n` requests. `wave` is what share of the hosts that are asked for is unknown at the moment."""
    reads, _, hosted, invalid = rng.multinomial(n, MIX)
    failed, flipped = int(rng.binomial(n, release.errors)), int(rng.binomial(invalid, release.flips))
    arm.asked, arm.failed = arm.asked + n, arm.failed + failed + flipped
    arm.hosted += n - int(invalid)
    turned_away = 0.02 * (release.unknown - 1)  # of everything: good hosts, for a candidate that turns them away
    arm.refused += int(rng.binomial(hosted, min(1.0, wave))) + int(rng.binomial(n - invalid, max(0.0, turned_away)))
    arm.deserving, arm.flipped = arm.deserving + int(invalid), arm.flipped + flipped
    shaken = n if not release.pool else 0
    arm.handshakes, arm.broken = arm.handshakes + shaken, arm.broken + int(rng.binomial(shaken, release.broken))
    if reads:
        times = 0.010 * release.slower * np.exp(release.sigma * rng.standard_normal(reads))
        arm.reads.add(Counter(np.exp(np.round(np.log(times) * 200) / 200).round(7).tolist()), at=at)


def fresh() -> Arm:
    """Latencies by minutes: what a step of hours is kept by."""
    return Arm(reads=Latencies(60.0))


def roll_out(rng: np.random.Generator, baseline: Release, candidate: Release) -> End:
    """From 5 % on until it is paused or promoted to 100 %."""
    waves = rng.gamma(2.0, 0.5, size=16)  # scanners come in waves: overdispersed, and the same for both
    learned: list[tuple[float, float]] = []
    step, decision, elapsed = Step(weight=0), Decision(action="hold", why=""), 0
    for weight in STEPS:
        step = Step(weight=weight, learned=tuple(learned), baseline=fresh(), candidate=fresh())
        step.candidate.handshakes, step.baseline.handshakes = (5, 5) if weight == STEPS[0] else (0, 0)
        for elapsed in range(1, MOST + 2):
            before = (step.baseline.refused, step.baseline.hosted)
            wave = 0.13 * float(waves[(elapsed // 20) % len(waves)])
            mine = int(rng.binomial(RATE, weight / 100))
            second(rng, step.candidate, candidate, mine, wave=wave, at=elapsed)
            if mine < RATE:
                second(rng, step.baseline, baseline, RATE - mine, wave=wave, at=elapsed)
                learned.append((step.baseline.refused - before[0], step.baseline.hosted - before[1]))
            if elapsed > QUICK and elapsed % 10 and elapsed <= MOST:
                continue  # looked at less often from then on, to be done with the simulation some time
            decision = decide(step, due=elapsed >= LEAST, over=elapsed > MOST)
            if decision.action != "hold":
                break
        if decision.action == "pause":
            break
    return End(step.weight, decision, _bad(step, decision), elapsed)


def _bad(step: Step, decision: Decision) -> int:
    """Bad requests of the rule that paused it; else all that failed."""
    by_rule = {one.rule: one.bad for one in decision.sights}
    named = decision.rules or tuple(one.rule for one in decision.sights if one.outcome.value == "inconclusive")
    return max((by_rule[one] for one in named), default=step.candidate.failed)


HEALTHY = {
    "0.05 % 5xx": Release(),
    "0.1 % 5xx, a wide tail": Release(errors=0.001, sigma=0.8),
    "5 % slower": Release(slower=1.05),
    "a connection a request, 0.05 % of handshakes failed": Release(pool=False, broken=0.0005),
}
BAD = {
    "5xx 1 %": (Release(errors=0.01), "5xx"),
    "5xx 2 %": (Release(errors=0.02), "5xx"),
    "5xx 5 %": (Release(errors=0.05), "5xx"),
    "P95 + 20 %": (Release(slower=1.2), "P95"),
    "P95 + 30 %": (Release(slower=1.3), "P95"),
    "P95 + 50 %": (Release(slower=1.5), "P95"),
    "P95 + 20 %, a wide tail": (Release(slower=1.2, sigma=0.6), "P95"),
    "three times the 400s": (Release(unknown=3.0), "hosts"),
    "TLS handshakes 1 %": (Release(pool=False, broken=0.01), "handshakes"),
    "4xx became 5xx, 5 %": (Release(flips=0.05), "4xx"),
}
WEAK = {"P95 + 14 %": Release(slower=1.14), "5xx 0.45 %": Release(errors=0.0045), "P95 + 16 %": Release(slower=1.16)}


def healthy(runs: int) -> Iterator[tuple[bool, str]]:
    """False pauses, kind by kind, `runs` roll-outs each."""
    rng = np.random.default_rng(SEED)
    for name, release in HEALTHY.items():
        base = replace(release, slower=1.0)
        ends = [roll_out(rng, base, release) for _ in range(runs)]
        paused = [one for one in ends if one.decision.action != "promote"]
        why = f"; {paused[0].decision.why[:200]}" if paused else ""
        ok = len(paused) <= max(1, runs // 200)
        yield ok, f"{name:56} paused {len(paused)} of {runs}, asked <= {max(1, runs // 200)}{why}"


def bad(runs: int) -> Iterator[tuple[bool, str]]:
    """All have to be paused at the first weight, with fewer than 500 bad requests, and for the right reason."""
    rng = np.random.default_rng(SEED + 1)
    for name, (release, rule) in BAD.items():
        base = Release(pool=release.pool, sigma=release.sigma)
        ends = [roll_out(rng, base, release) for _ in range(runs)]
        caught = sum(one.decision.action == "pause" and one.weight == STEPS[0] and one.bad < LIMIT for one in ends)
        named = sum(rule in one.decision.rules for one in ends)
        count, seconds = np.median([one.bad for one in ends]), np.median([one.seconds for one in ends])
        most = max(one.bad for one in ends)
        ok = caught >= runs - max(1, runs // 100)
        yield (
            ok,
            f"{name:56} caught {caught} of {runs} at 5 %, bad {count:.0f} (most {most}), {seconds:.0f} s, by its rule {named}",
        )


def weak(runs: int) -> Iterator[tuple[bool, str]]:
    """Near the limit."""
    rng = np.random.default_rng(SEED + 2)
    for name, release in WEAK.items():
        ends = [roll_out(rng, Release(), release) for _ in range(runs)]
        promoted = sum(one.decision.action == "promote" for one in ends)
        yield True, f"{name:56} promoted {promoted} of {runs}; at 5 % the most bad ones were {max(one.bad for one in ends)}"


PARTS = {"healthy": healthy, "bad": bad, "weak": weak}


def main() -> int:
    """All parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", choices=[*PARTS])
    given = parser.parse_args()
    right = True
    for part in [given.only] if given.only else PARTS:
        begun = time.monotonic()
        print(f"{part}, {given.runs} roll-outs each", flush=True)
        for ok, line in PARTS[part](given.runs):
            right = right and ok
            print(f"  {'ok ' if ok else 'OFF'} {line}", flush=True)
        print(f"  {time.monotonic() - begun:.0f} s")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
