"""Slow leaks: what grows all the time, on the way up as on the way down, and is not about to stop.

A service that warms up, fills its caches, collects garbage in a saw-tooth or lives by a daily cycle is no leak. What grows counts only
where all of these agree, after the warm-up (the first tenth of the run, at least two hours):

- the floor, the middle and the ceiling of the values rise from third to third of the time: a saw-tooth's floor does not;
- the last rise of each is no less than half of the one before: what fills up slows down;
- the same hour of the day is higher than the day before, at three of four hours by a good part of what is usual: a daily cycle's is
  not, and what rose in one step was lower only once;
- a trend that Mann and Kendall would call one (Mann, Econometrica 13, 1945), z > 3;
- and the *least* of these estimates of growth over the window is of practical size (`SIZES`).

How often this accuses a healthy service, and which leaks it sees, is simulated: benchmarks/leaks_simulated.py. The slope that is told
is that of Theil and Sen (Sen, JASA 63, 1968).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FEWEST = 40.0  # hours after the warm-up from which a leak can be told from a day's cycle: a soak of 48 h has 43
DAY = 24
SLOWING = 0.5  # of the rise before, below which growth is about to stop
ALWAYS = 0.3  # of the median rise from day to day, which three quarters of the hours rise by at least
KENDALL = 3.0  # z
NEAR = 2  # hours before and after one that it is evened out with


@dataclass(frozen=True, slots=True)
class Size:
    """What growth over the window matters: `share` of the level, and `least` in the series' own unit. `per` turns it into people's."""

    title: str
    unit: str
    share: float
    least: float
    per: float = 1.0


# 9 % in the 65 hours that 72 leave is about as much again in 30 days: the level doubles in a month.
SIZES: Mapping[str, Size] = {
    "target.memory": Size("memory", "MB", 0.09, 4e6, 1e6),
    "target.open_files": Size("open files", "", 0.09, 3.0),
    "target.threads": Size("threads", "", 0.09, 3.0),
    "database.sessions": Size("database sessions", "", 0.09, 3.0),
    "latency.p50": Size("median latency", "ms", 0.20, 0.002, 0.001),
    "latency.p95": Size("P95 latency", "ms", 0.20, 0.002, 0.001),
}


@dataclass(frozen=True, slots=True)
class Point:
    """One hour: a low, a middle and a high value of it."""

    hour: int
    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Trend:
    """`slope` an hour, `level` at the beginning, both in the series' own unit; `growth` over the window is the least estimate."""

    slope: float
    level: float
    growth: float
    hours: float
    leak: bool
    why: str


def trend(points: Sequence[Point], size: Size) -> Trend | None:
    """Of hours in order, warm-up taken off; None when they are too few to tell anything."""
    if len(points) < FEWEST * 0.9 or points[-1].hour - points[0].hour + 1 < FEWEST:
        return None
    hours = float(points[-1].hour - points[0].hour + 1)
    slope = theil_sen([(one.hour, one.middle) for one in points])
    thirds = _thirds(points)
    level = thirds[0][1]
    days = _day_by_day(points)
    if not days:
        return None
    rises = [(b - a, c - b) for a, b, c in zip(*thirds, strict=True)]
    growth = min(*(1.5 * (first + last) for first, last in rises), median(days) * hours / DAY)
    why = _no_leak(points, rises, days, growth, max(size.share * abs(level), size.least))
    return Trend(slope, level, growth, hours, not why, why)


def _no_leak(
    points: Sequence[Point], rises: Sequence[tuple[float, float]], days: Sequence[float], growth: float, least: float
) -> str:
    """Why it is none; '' when it is one."""
    if growth < least:
        return "it does not grow by what matters"
    if any(first <= 0 or last <= 0 for first, last in rises):
        return "its floor or its ceiling does not rise"
    if any(last < SLOWING * first for first, last in rises):
        return "it slows down"
    if _at(days, 0.25) < ALWAYS * median(days):
        return "the same hour of the day is not higher each day"
    if kendall([one.middle for one in points]) < KENDALL:
        return "there is no trend in it"
    return ""


def _thirds(points: Sequence[Point]) -> list[tuple[float, float, float]]:
    """(floor, middle, ceiling) of each third of the time."""
    begin, width = points[0].hour, (points[-1].hour - points[0].hour + 1) / 3
    parts: list[list[Point]] = [[], [], []]
    for one in points:
        parts[min(2, int((one.hour - begin) / width))].append(one)
    return [
        (
            _at([one.low for one in part], 0.1),
            median([one.middle for one in part]) if part else math.nan,
            _at([one.high for one in part], 0.9),
        )
        for part in parts
    ]


def _at(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan


def _day_by_day(points: Sequence[Point]) -> list[float]:
    """How much higher each hour, its neighbours evened out, was than the same hour of the day before."""
    known = {one.hour: median(near.middle for near in points[max(0, i - NEAR) : i + NEAR + 1]) for i, one in enumerate(points)}
    return [value - known[hour - DAY] for hour, value in known.items() if hour - DAY in known]


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs; of at most 400 of the points, evenly chosen."""
    step = max(1, len(points) // 400)
    chosen = points[::step]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(chosen) for b in chosen[i + 1 :] if b[0] != a[0]]
    return median(slopes) if slopes else 0.0


def kendall(values: Sequence[float]) -> float:
    """The z of Mann and Kendall's test for a trend, ties taken into account; 0.0 for a constant."""
    step = max(1, len(values) // 400)
    chosen = values[::step]
    n = len(chosen)
    score = sum((b > a) - (b < a) for i, a in enumerate(chosen) for b in chosen[i + 1 :])
    ties: dict[float, int] = {}
    for one in chosen:
        ties[one] = ties.get(one, 0) + 1
    variance = (n * (n - 1) * (2 * n + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties.values())) / 18
    return (score - (score > 0) + (score < 0)) / math.sqrt(variance) if variance > 0 else 0.0
