"""How often are the bounds right, how often does a healthy canary pause, how soon does a bad one? By simulation, as a table.

    python benchmarks/statistics_simulated.py [--runs N] [--only PART]

Every line says what was asked for beside what came out, with the standard error of the simulation. Exit status 1 when a line is off
by more than three of them on the wrong side.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chaos import statistics as st
from chaos.comparison import quantile_ratio, rate_ratio
from chaos.hours import Hour, Judged, judge, streak
from chaos.sequential import PAUSE, e_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SEED = 20261127


@dataclass(frozen=True, slots=True)
class Line:
    """What was simulated; the share that came out in `runs`; what it has to be at least, or at most."""

    what: str
    share: float
    runs: int
    least: float = 0.0
    most: float = 1.0

    @property
    def right(self) -> bool:
        """Within three standard errors of what is asked for."""
        error = 3 * math.sqrt(max(self.share * (1 - self.share), 1 / self.runs) / self.runs)
        return self.least - error <= self.share <= self.most + error

    def __str__(self) -> str:
        asked = f">= {self.least:.1%}" if self.least else f"<= {self.most:.1%}"
        return f"  {'ok ' if self.right else 'OFF'} {self.what:74} {self.share:7.1%}  asked {asked}  ({self.runs} runs)"


def bounds(runs: int) -> Iterator[Line]:
    """One-sided 95 %: independent requests, and requests that fail in bursts."""
    rng = np.random.default_rng(SEED)
    for rate, n in ((0.001, 3000), (0.01, 300), (0.2, 50)):
        covered = sum(st.upper(int(rng.binomial(n, rate)), n) >= rate for _ in range(runs))
        yield Line(f"Clopper-Pearson covers a rate of {rate:.1%}, n = {n}", covered / runs, runs, least=0.95)
    for name, minutes, every, size, usual in BURSTS:
        plain = wide = 0
        for _ in range(runs):
            blocks, rate = _bursts(rng, minutes, every, size, usual)
            bad, n = sum(one for one, _ in blocks), sum(one for _, one in blocks)
            plain += st.upper(bad, n) >= rate
            deff = st.effective(blocks)
            wide += st.upper(bad / deff, n / deff) >= rate
        yield Line(f"{name}: the plain bound, why it is not used", plain / runs, runs, most=0.9)
        yield Line(f"{name}: the wider of DEFF's and the episodes'", wide / runs, runs, least=0.95)
    large = wasted = 0.0
    for _ in range(runs // 4):
        blocks, rate = _bursts(rng, 48 * 60, 1e9, 1.0, 0.0005, a_minute=12_000)
        deff = st.effective(blocks)
        bad, n = sum(one for one, _ in blocks), sum(one for _, one in blocks)
        large += st.upper(bad / deff, n / deff) >= rate
        wasted += st.upper(bad / deff, n / deff) > 1.1 * rate
    yield Line("48 h at 200/s, independent failures: covered", large / (runs // 4), runs // 4, least=0.95)
    yield Line("and the bound is more than 10 % above the rate", wasted / (runs // 4), runs // 4, most=0.01)


# name, minutes, minutes between two bursts, their mean size, and the share of requests that fail by themselves
BURSTS = (
    ("2 h, 6 bursts of 30", 120, 20.0, 30.0, 0.0),
    ("48 h, 144 bursts of 30", 2880, 20.0, 30.0, 0.0),
    ("48 h, 144 bursts of 30, 0.05 % beside", 2880, 20.0, 30.0, 0.0005),
    ("48 h, 10 bursts of 3,000", 2880, 288.0, 3000.0, 0.0),
)


def _bursts(
    rng: np.random.Generator, minutes: int, every: float, size: float, usual: float, *, a_minute: int = 600
) -> tuple[list[tuple[int, int]], float]:
    """(bad, n) of each minute, and the true rate: bursts of geometric size, on average one in `every` minutes, requests in a row."""
    bad = rng.poisson(usual * a_minute, minutes)
    for at in np.cumsum(rng.exponential(every, int(3 * minutes / every) + 20)):
        if at < minutes:
            times = at + np.arange(int(rng.geometric(1 / size))) / a_minute
            bad += np.bincount(times[times < minutes].astype(int), minlength=minutes)
    return [(min(int(one), a_minute), a_minute) for one in bad], usual + (size / (every * a_minute) if every < minutes else 0.0)


def canary(runs: int) -> Iterator[Line]:
    """A roll-out of 60,000 requests, looked at after every twenty; a rate of exactly the limit is the worst healthy one."""
    rng, limit, n = np.random.default_rng(SEED), 0.005, 60_000
    runs = max(200, runs // 2)
    for name, rate, most in (("0.1 % of 5xx", 0.001, 0.005), ("exactly the limit, 0.5 %", 0.005, 0.01)):
        paused = sum(_first(rng.random(n) < rate, limit, 20) is not None for _ in range(runs))
        yield Line(f"a healthy canary pauses: {name}", paused / runs, runs, most=most)
    for rate, soon in ((0.01, 4000), (0.02, 650), (0.05, 150)):
        seen = [_first(rng.random(40_000) < rate, limit, 5) for _ in range(100)]
        median = sorted(one if one is not None else 40_000 for one in seen)[50]
        yield Line(
            f"a bad one of {rate:.0%} is seen by request {soon:,} (median here: {median:,})",
            float(median <= soon),
            100,
            least=1.0,
        )


def _first(failed: np.ndarray, limit: float, every: int) -> int | None:
    """At which request an e-process that is looked at after every so many pauses."""
    counts = np.cumsum(failed)
    # Only a look after a failure can be the first that pauses: without one the evidence falls.
    looks = np.unique((np.flatnonzero(failed) // every + 1) * every - 1)
    for at in looks[looks < len(failed)]:
        if counts[at] / (at + 1) > limit and e_value(int(counts[at]), int(at) + 1, limit) >= PAUSE:
            return int(at) + 1
    return None


def comparisons(runs: int) -> Iterator[Line]:
    """P95 of two releases, latencies log-normal and hanging together within a block."""
    rng = np.random.default_rng(SEED)
    runs = max(40, runs // 10)

    def arm(factor: float) -> list[list[float]]:
        return [list(factor * rng.lognormal(-4 + rng.normal(0, 0.05), 0.5, 400)) for _ in range(40)]

    wrong = sum(quantile_ratio(arm(1.0), arm(1.0), 0.95, seed=i).low > 1.05 for i in range(runs))
    yield Line("the same release called slower by more than 5 %", wrong / runs, runs, most=0.05)
    covered = sum(quantile_ratio(arm(1.0), arm(1.1), 0.95, seed=i).high >= 1.1 for i in range(runs))
    yield Line("the upper bound covers a true 10 %", covered / runs, runs, least=0.92)
    seen = sum(quantile_ratio(arm(1.0), arm(1.3), 0.95, seed=i).low > 1.15 for i in range(runs))
    yield Line("a candidate that is 30 % slower is seen against + 15 %", seen / runs, runs, least=0.9)
    same = worse = 0
    for _ in range(runs * 5):
        buckets = [(float(rng.negative_binomial(3, 3 / (3 + 40))), 1.0) for _ in range(48)]
        same += rate_ratio(buckets, float(rng.negative_binomial(3, 3 / (3 + 40))), 1.0).low > 1
        worse += rate_ratio(buckets, float(rng.negative_binomial(3, 3 / (3 + 40 * 10))), 1.0).low > 1
    yield Line("unknown hosts in waves, nothing changed: called a spike", same / (runs * 5), runs * 5, most=0.05)
    yield Line("ten times as many unknown hosts: called a spike", worse / (runs * 5), runs * 5, least=0.5)


def soak(runs: int) -> Iterator[Line]:
    """48 hours at 10 requests a second against 99.9 %."""
    rng = np.random.default_rng(SEED)

    def green(rate: float) -> bool:
        return streak(_hour(i, int(rng.binomial(36_000, rate))) for i in range(48)).reached

    good = sum(green(0.0005) for _ in range(runs))
    yield Line("a service of 99.95 % has its 48 green hours", good / runs, runs, least=0.95)
    bad = sum(green(0.002) for _ in range(runs))
    yield Line("one of 99.8 % has them too", bad / runs, runs, most=0.01)


def _hour(number: int, bad: int) -> Judged:
    return judge(Hour(number=number, counts={"rel.availability": (bad, 36_000, 0.001)}))


PARTS: dict[str, Callable[[int], Iterator[Line]]] = {"bounds": bounds, "canary": canary, "comparisons": comparisons, "soak": soak}


def main() -> int:
    """Simulates and prints; 1 when something is off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=400, help="simulated runs a line (default: 400)")
    parser.add_argument("--only", choices=PARTS, help="one part")
    options = parser.parse_args()
    fine, started = True, time.monotonic()
    for name, part in PARTS.items():
        if options.only in {None, name}:
            print(name)
            for line in part(options.runs):
                print(line, flush=True)
                fine = fine and line.right
    print(f"{'all as asked' if fine else 'SOMETHING IS OFF'}, {time.monotonic() - started:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
