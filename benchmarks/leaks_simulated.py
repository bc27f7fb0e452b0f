"""How often is a healthy service accused of a leak, and how often is a leak seen? 72 hours by the hour, simulated, as a table.

    python benchmarks/leaks_simulated.py [--runs N] [--hours H] [--only KIND]

Healthy ones fill caches, collect garbage, live by the day, restart, jump, and are noisy; a leak is stated in growth a month. Exit
status 1 when healthy services are accused in more than 1 % of the runs, or a leak is missed in more than 5 %.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from chaos.checks.longrun.oddities import warm_up
from chaos.checks.longrun.trends import SIZES, Point, trend

if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[np.random.Generator, np.ndarray], np.ndarray]

SEED = 20261127


def wander(rng: np.random.Generator, n: int, sigma: float, keep: float = 0.8) -> np.ndarray:
    """Noise whose hours hang together: an AR(1) process with this standard deviation."""
    out = np.empty(n)
    out[0] = rng.normal(0, sigma)
    for i in range(1, n):
        out[i] = keep * out[i - 1] + rng.normal(0, sigma * math.sqrt(1 - keep**2))
    return out


def plateau(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Caches that fill up: + 20 to 150 %, with a time constant of 1 to 15 hours."""
    return 1 + rng.uniform(0.2, 1.5) * (1 - np.exp(-t / rng.uniform(1, 15))) + wander(rng, len(t), 0.02)


def tooth(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A collector of garbage: up by 20 to 150 % in 0.5 to 24 hours, then down at once."""
    period = rng.uniform(0.5, 24)
    return 1 + rng.uniform(0.2, 1.5) * ((t / period + rng.random()) % 1) + wander(rng, len(t), 0.02)


def daily(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A day's cycle of 10 to 60 %, and a second one of half a day."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    first, second = np.sin(2 * np.pi * t / 24 + phase[0]), np.sin(2 * np.pi * t / 12 + phase[1])
    return 1 + rng.uniform(0.1, 0.6) * first + rng.uniform(0, 0.2) * second + wander(rng, len(t), 0.02)


def noisy(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Noise of 5 to 15 %, whose hours hang together (0.9)."""
    return 1 + wander(rng, len(t), rng.uniform(0.05, 0.15), 0.9)


def stepped(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """One deployment, or one large customer: up by 10 to 60 % once, for good."""
    return 1 + rng.uniform(0.1, 0.6) * (t > rng.uniform(5, t[-1])) + wander(rng, len(t), 0.02)


def restarted(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """It fills up, is started again one to three times, and fills up again."""
    since = t.copy()
    for at in sorted(rng.uniform(0, t[-1], rng.integers(1, 4))):
        since[t >= at] = t[t >= at] - at
    return 1 + 0.5 * (1 - np.exp(-since / rng.uniform(1, 10))) + wander(rng, len(t), 0.02)


def steady(noise: float) -> Shape:
    """Nothing but noise."""
    return lambda rng, t: 1 + wander(rng, len(t), noise)


def small_cycle(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A day's cycle of 10 %."""
    return 1 + 0.1 * np.sin(2 * np.pi * t / 24 + rng.uniform(0, 2 * np.pi)) + wander(rng, len(t), 0.02)


def small_tooth(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A saw-tooth of 20 %, of one to five hours."""
    return 1 + 0.2 * ((t / rng.uniform(1, 5)) % 1) + wander(rng, len(t), 0.02)


def filling(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """Caches of 50 % that fill up within some hours."""
    return 1 + 0.5 * (1 - np.exp(-t / rng.uniform(1, 4))) + wander(rng, len(t), 0.02)


def leaking(month: float, under: Shape) -> Shape:
    """What grows by `month` (1.0: it doubles) in 30 days, on top of something else."""
    return lambda rng, t: under(rng, t) + month * t / 720


MEMORY, SESSIONS, P95 = "target.memory", "database.sessions", "latency.p95"
ALL = (MEMORY, SESSIONS, P95)
HEALTHY = {"plateau": plateau, "saw-tooth": tooth, "daily cycle": daily, "noise": noisy, "step": stepped, "restarts": restarted}
LEAKS = {
    "+250 % a month (0.7 MB an hour of 200 MB), noise 2 %": (leaking(2.5, steady(0.02)), (MEMORY, SESSIONS)),
    "+400 % a month, noise 2 %": (leaking(4.0, steady(0.02)), ALL),
    "+500 % a month, noise 5 %": (leaking(5.0, steady(0.05)), ALL),
    "+800 % a month, on a day's cycle of 10 %": (leaking(8.0, small_cycle), ALL),
    "+400 % a month, on a saw-tooth of 20 %": (leaking(4.0, small_tooth), ALL),
    "+700 % a month, while caches of 50 % fill up": (leaking(7.0, filling), ALL),
}


def points(rng: np.random.Generator, values: np.ndarray, per: int) -> list[Point]:
    """By hour: the quarter points of its values, each with noise of its own."""
    found = []
    for hour in range(len(values) // per):
        mine = np.sort(values[hour * per : (hour + 1) * per] * (1 + rng.normal(0, 0.01, per)))
        found.append(Point(hour, float(mine[per // 4]), float(mine[per // 2]), float(mine[3 * per // 4])))
    return found


def called(shape: Shape, rng: np.random.Generator, hours: int, name: str) -> bool:
    """Whether this service is called a leak."""
    per = 12
    t = np.arange(hours * per) / per
    scale = {"target.memory": 200e6, "database.sessions": 40.0, "latency.p95": 0.03}[name]
    values = np.maximum(0.01, shape(rng, t)) * scale
    if name == "database.sessions":
        values = np.round(values)
    seen = [one for one in points(rng, values, per) if one.hour >= math.ceil(warm_up(hours))]
    one = trend(seen, SIZES[name])
    return one is not None and one.leak


def main() -> int:
    """Simulates and prints; 1 when something is off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=300, help="simulated services a line (default: 300)")
    parser.add_argument("--hours", type=int, default=72, help="of each (default: 72)")
    parser.add_argument("--only", choices=[*HEALTHY, "leaks"], help="one kind")
    options = parser.parse_args()
    rng, fine, started = np.random.default_rng(SEED), True, time.monotonic()
    lines = [(what, shape, ALL, False) for what, shape in HEALTHY.items()]
    lines += [(what, shape, names, True) for what, (shape, names) in LEAKS.items()]
    for what, shape, names, leak in lines:
        if options.only not in {None, what, "leaks" if leak else what}:
            continue
        print(f"{'a leak, called one' if leak else 'healthy, called a leak'}: {what}")
        for name in names:
            share = sum(called(shape, rng, options.hours, name) for _ in range(options.runs)) / options.runs
            error = 2 * math.sqrt(max(share * (1 - share), 0.01) / options.runs)
            right = share + error >= 0.95 if leak else share - error <= 0.01
            fine = fine and right
            print(f"  {'ok ' if right else 'OFF'} {SIZES[name].title:24} {share:7.1%}", flush=True)
    print(f"{'all as asked' if fine else 'SOMETHING IS OFF'}, {time.monotonic() - started:.0f} s")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
