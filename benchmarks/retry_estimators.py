"""How often the estimators of `chaos.retries` are right: `python benchmarks/retry_estimators.py [REPETITIONS] [CLIENTS]`.

Each scheme is drawn REPETITIONS times (400) for CLIENTS clients (12) in an outage of 45 s, with 12 ms for an attempt and timers that
fire late by a few ms. A PASS where the truth is no is false, one where it is yes is true. Exit status 1 when more than 2 % are false,
or less than 97 % true for a scheme that 12 clients have to be enough for.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable

from chaos.model import Outcome
from chaos.retries import GROWS, GROWS_DECORRELATED, growth, jitter

OUTAGE, TRY, NOISE = 45.0, 0.012, 0.006
Scheme = Callable[[random.Random], Callable[[int], float]]


def exponential(base: float, cap: float, draw: Callable[[random.Random, float], float], factor: float = 2.0) -> Scheme:
    """min(cap, base * factor^n), then `draw`."""
    return lambda rng: lambda n: draw(rng, min(cap, base * factor ** (n - 1)))


def stamina(base: float, cap: float, most: float) -> Scheme:
    """Adds up to `most` seconds, then clamps: nothing is left of it at the cap (stamina's documentation of `wait_jitter`)."""
    return lambda rng: lambda n: min(cap, base * 2 ** (n - 1) + rng.uniform(0, most))


def decorrelated(base: float, cap: float) -> Scheme:
    """Uniform between the base and three times the last one (AWS Architecture Blog)."""

    def client(rng: random.Random) -> Callable[[int], float]:
        last = [base]

        def delay(_n: int) -> float:
            last[0] = min(cap, rng.uniform(base, last[0] * 3))
            return last[0]

        return delay

    return client


def psycopg_pool(base: float) -> Scheme:
    """+-10 % once, at the first; doubled from then on, without a cap."""

    def client(rng: random.Random) -> Callable[[int], float]:
        first = base * rng.uniform(0.9, 1.1)
        return lambda n: first * 2 ** (n - 1)

    return client


def lost_at_cap(base: float, cap: float) -> Scheme:
    """Full jitter on the way up, none at the cap."""
    return lambda rng: lambda n: cap if base * 2 ** (n - 1) >= cap else rng.uniform(0, base * 2 ** (n - 1))


def same(_rng: random.Random, delay: float) -> float:
    """No jitter."""
    return delay


def full(rng: random.Random, delay: float) -> float:
    """Anything up to it."""
    return rng.uniform(0, delay)


def equal(rng: random.Random, delay: float) -> float:
    """Half of it, and anything up to it."""
    return delay * rng.uniform(0.5, 1)


def around(share: float) -> Callable[[random.Random, float], float]:
    """+- this share."""
    return lambda rng, delay: delay * rng.uniform(1 - share, 1 + share)


# scheme: (how it waits, whether it grows exponentially, whether it is jittered). None: neither answer is wrong.
SCHEMES: dict[str, tuple[Scheme, bool | None, bool | None]] = {
    "immediate": (lambda _: lambda _n: 0.0, False, False),
    "fixed, 1 s": (lambda _: lambda _n: 1.0, False, False),
    "fixed, +-20 %": (lambda rng: lambda _n: rng.uniform(0.8, 1.2), False, True),
    "linear": (lambda _: lambda n: 0.3 * n, False, False),
    "exponential, full jitter": (exponential(0.02, 2.5, full), True, True),
    "exponential, equal jitter": (exponential(0.03, 3.0, equal), True, True),
    "exponential, +-20 %": (exponential(0.03, 3.0, around(0.2)), True, True),
    "exponential, +-10 %": (exponential(0.03, 3.0, around(0.1)), True, True),
    "decorrelated": (decorrelated(0.03, 3.0), None, True),
    "stamina": (stamina(0.05, 3.0, 0.5), None, False),
    "psycopg_pool": (psycopg_pool(0.25), True, True),
    "exponential, no jitter": (exponential(0.03, 3.0, same), True, False),
    "jitter lost at the cap": (lost_at_cap(0.03, 3.0), True, False),
    "no cap, full jitter": (exponential(0.03, 1e9, full), True, True),
    "factor 1.5, full jitter": (exponential(0.03, 3.0, full, 1.5), None, True),
}
HARD = {"exponential, +-10 %", "psycopg_pool"}  # spreads near the limit: 12 clients may leave them open, never wrong


def waits(rng: random.Random, scheme: Scheme) -> list[float]:
    """The pauses of one client in one outage."""
    delay, at, found = scheme(rng), 0.0, []
    while at < OUTAGE and len(found) < 400:
        pause = max(0.0, delay(len(found) + 1)) + abs(rng.gauss(0, 0.002))
        found.append(pause)
        at += pause + TRY
    return found[:-1]  # the last one is not over when the outage is


def trial(seed: str, scheme: Scheme, clients: int) -> tuple[Outcome, Outcome, Outcome]:
    """(growth against 1.3, against 1.2, jitter)."""
    rng = random.Random(seed)  # noqa: S311  (reproducible, not secret)
    drawn = [waits(rng, scheme) for _ in range(clients)]
    grown, spread = growth(drawn), jitter(drawn, noise=NOISE)
    each = grown.each if grown else None
    unknown = Outcome.INCONCLUSIVE
    return (
        each.against(GROWS) if each else unknown,
        each.against(GROWS_DECORRELATED) if each else unknown,
        spread.outcome if spread else unknown,
    )


def table(repetitions: int, clients: int) -> dict[str, tuple[Counter[Outcome], Counter[Outcome], Counter[Outcome]]]:
    """Scheme -> outcomes of growth (1.3), of growth (1.2) and of jitter."""
    found = {}
    for name, (scheme, _, _) in SCHEMES.items():
        trials = [trial(f"{name} {number}", scheme, clients) for number in range(repetitions)]
        found[name] = (Counter(one[0] for one in trials), Counter(one[1] for one in trials), Counter(one[2] for one in trials))
    return found


def wrong(found: dict[str, tuple[Counter[Outcome], Counter[Outcome], Counter[Outcome]]], repetitions: int) -> list[str]:
    """Sentences on every rate that is out of bounds: false PASS and false FAIL 2 %, true PASS 97 %."""
    said = []
    for name, (_, grows, jittered) in SCHEMES.items():
        for what, truth, counts in (("growth", grows, found[name][0]), ("jitter", jittered, found[name][2])):
            passed, failed = counts[Outcome.PASS] / repetitions, counts[Outcome.FAIL] / repetitions
            if truth is False and passed > 0.02:
                said.append(f"{what} of {name!r}: {passed:.1%} false PASS")
            if truth and failed > 0.02:
                said.append(f"{what} of {name!r}: {failed:.1%} false FAIL")
            if truth and passed < 0.97 and name not in HARD:
                said.append(f"{what} of {name!r}: only {passed:.1%} true PASS")
    return said


def main() -> int:
    """From the command line."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    clients = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    found = table(repetitions, clients)
    sys.stdout.write(f"{repetitions} outages of {OUTAGE:.0f} s, {clients} clients; PASS / FAIL / not told\n")
    sys.stdout.write(f"{'scheme':28}{'growth > 1.3':>22}{'growth > 1.2':>22}{'jitter > 0.10':>22}\n")
    for name, columns in found.items():
        cells = [
            "/".join(f"{100 * one[key] / repetitions:6.1f}" for key in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE))
            for one in columns
        ]
        sys.stdout.write(f"{name:28}" + "".join(f"{cell:>22}" for cell in cells) + "\n")
    problems = wrong(found, repetitions)
    sys.stdout.write("\n".join(problems or ["every rate is within its bound"]) + "\n")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
