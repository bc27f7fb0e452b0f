"""Seeded schedules of faults that overlap, as data: made, written as one word, read back, and made smaller.

A schedule is written as steps, joined by '+': 'latency@0.0-2.5+reset@1.2-2.0' is two faults, in force from and until so many seconds
after the schedule began. That word is what the evidence holds and what `--only` takes.

The blast radius is capped: at most `AT_ONCE` faults at any moment, each for at most `LONGEST` seconds, all over after `WHOLE`. Toxics
of the network can lie over each other; what takes the path or the server away as a whole is alone of its kind at any moment.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.faults.network import NETWORK, SLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 2
LONGEST, SHORTEST, WHOLE = 4.0, 0.4, 8.0  # s
STEPS = (2, 4)
ROWS = {row.id: row for row in (*NETWORK, SLOW)}
SERVER = ("slots", "certificate", "tls-off", "restart", "crash")
KINDS = (*ROWS, *SERVER)
_STEP = re.compile(r"([a-z-]+)@(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One fault of a schedule: in force from `start` to `end`, in seconds from the schedule's beginning."""

    start: float
    end: float
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}@{self.start:.1f}-{self.end:.1f}"


Schedule = tuple[Step, ...]


def spelt(schedule: Schedule) -> str:
    """A schedule as one word."""
    return "+".join(map(str, schedule))


def read(word: str) -> Schedule:
    """The schedule that a word spells; ValueError, which says what is wrong, when it is none or breaks the cap."""
    steps: list[Step] = []
    for part in word.split("+"):
        found = _STEP.fullmatch(part)
        if found is None or found[1] not in KINDS:
            raise ValueError(f"{part!r} is no step: FAULT@FROM-UNTIL, in seconds, with FAULT one of {', '.join(KINDS)}")
        steps.append(Step(float(found[2]), float(found[3]), found[1]))
    made = tuple(sorted(steps))
    if why := beyond(made):
        raise ValueError(why)
    return made


def beyond(schedule: Schedule) -> str:
    """Why a schedule is none that may be carried out; '' when it may."""
    for one in schedule:
        if not SHORTEST <= round(one.end - one.start, 3) <= LONGEST or one.end > WHOLE:
            return f"{one}: a fault lasts {SHORTEST:g} to {LONGEST:g} s, and all is over after {WHOLE:g} s"
        others = [other for other in schedule if other is not one and other.start <= one.start < other.end]
        if len(others) >= AT_ONCE:
            return f"{one}: more than {AT_ONCE} faults at once"
        if any(_clash(one.kind, other.kind) for other in others):
            return f"{one}: cannot lie over {', '.join(map(str, others))}"
    return ""


def _clash(one: str, other: str) -> bool:
    """Two that touch the same thing: the same toxic, the listener, or the server itself."""
    if one == other or (one in SERVER and other in SERVER):
        return True
    if one in SERVER or other in SERVER:
        return False
    mine, theirs = ({toxic.name for toxic in ROWS[name].toxics} for name in (one, other))
    return bool(mine & theirs) or all(ROWS[name].disable or ROWS[name].arm for name in (one, other))


def random_one(seed: int, number: int) -> Schedule:
    """Schedule `number` of a run with this seed: 2 to 4 steps within the cap, the first at once."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311  (to be repeatable is the point)
    wanted = rng.randint(*STEPS)
    steps: list[Step] = []
    for _ in range(200):
        if len(steps) == wanted:
            break
        start = round(rng.uniform(0.0, WHOLE / 2), 1) if steps else 0.0
        step = Step(start, round(start + rng.uniform(1.0, LONGEST), 1), rng.choice(KINDS))
        if not beyond((*steps, step)):
            steps.append(step)
    return tuple(sorted(steps))


def of(what: str, seed: int) -> Schedule:
    """Of a case's `what`: the number of one that is drawn, or one that is written out."""
    return random_one(seed, int(what)) if what.isdigit() else read(what)


def smaller(schedule: Schedule) -> Iterator[Schedule]:
    """The schedules that are one step of shrinking away, the boldest first: a fault less, then one of half the length.

    After Zeller and Hildebrandt, 'Simplifying and Isolating Failure-Inducing Input' (2002), on a list that is short.
    """
    if len(schedule) > 1:
        for left_out in range(len(schedule)):
            rest = schedule[:left_out] + schedule[left_out + 1 :]
            first = min(one.start for one in rest)
            yield tuple(Step(round(one.start - first, 1), round(one.end - first, 1), one.kind) for one in rest)
    for number, one in enumerate(schedule):
        half = round((one.end - one.start) / 2, 1)
        if half >= max(SHORTEST, 1.0):
            yield tuple(
                sorted((*schedule[:number], Step(one.start, round(one.start + half, 1), one.kind), *schedule[number + 1 :]))
            )
