"""A schedule that fails, made smaller for as long as it still fails: what is left is what has to be looked at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chaos.faults.schedule import Schedule, smaller

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES = 12
BUDGET = 150.0  # s


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], *, tries: int = TRIES, budget: float = BUDGET) -> Schedule:
    """The smallest found with at most `tries` runs in `budget` seconds; `schedule` itself when nothing smaller failed.

    Greedy: the first smaller one that fails takes its place, and all begins again. What was tried is not tried twice.
    """
    smallest, tried, end = schedule, {schedule}, time.monotonic() + budget
    while True:
        for one in smaller(smallest):
            if one in tried:
                continue
            if len(tried) > tries or time.monotonic() > end:
                return smallest
            tried.add(one)
            if fails(one):
                smallest = one
                break
        else:
            return smallest
