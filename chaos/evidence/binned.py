"""What a long run's charts draw: intervals and gauges, put into stretches of time whose number does not grow with the run.

A stretch is 1 s to begin with. Whenever there are more than `MOST` of them they are put together, up to the next width that
a clock has (an hour, for a run of three days), so one pass in any order is enough and nothing is kept but the stretches. Times are
those of what was recorded: the run's own clock, which a compressed soak simulates.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from chaos.histogram import Histogram
from chaos.model import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chaos.model import Gauge, Interval

MOST = 100  # stretches of a chart
WIDTHS = (1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 604_800)  # s: each divides the next
KNOWN_GAUGES = 48  # names that are looked at: a target cannot make a report grow
STEADY = "steady"
QUANTILES = (0.5, 0.95, 0.99)


class Addable(Protocol):
    """What a stretch holds."""

    def add(self, other: Self) -> None:
        """Everything that the other one holds."""


Held = TypeVar("Held", bound=Addable)


class Bins(Generic[Held]):
    """Stretches of one width, by their number since `origin`; at most `MOST` of them from the first to the last."""

    def __init__(self, make: Callable[[], Held]) -> None:
        self._make = make
        self._level = 0
        self._held: dict[int, Held] = {}
        self.origin: float | None = None

    @property
    def width(self) -> int:
        """Seconds of a stretch."""
        return WIDTHS[self._level]

    def at(self, moment: float) -> Held:
        """What holds this moment."""
        if self.origin is None:
            self.origin = moment
        number = math.floor((moment - self.origin) / self.width)
        low, high = min(self._held, default=number), max(self._held, default=number)
        while max(high, number) - min(low, number) >= MOST and self._level + 1 < len(WIDTHS):
            self._widen()
            number = math.floor((moment - self.origin) / self.width)
            low, high = min(self._held, default=number), max(self._held, default=number)
        if number not in self._held:
            self._held[number] = self._make()
        return self._held[number]

    def _widen(self) -> None:
        factor = WIDTHS[self._level + 1] // self.width
        self._level += 1
        wider: dict[int, Held] = {}
        for number, held in self._held.items():
            wider.setdefault(number // factor, self._make()).add(held)
        self._held = wider

    def __len__(self) -> int:
        return len(self._held)

    def items(self) -> list[tuple[float, Held]]:
        """(when it began, what it holds), in order of time. Stretches in which nothing was are left out."""
        start = self.origin or 0.0
        return [(start + number * self.width, held) for number, held in sorted(self._held.items())]


@dataclass(slots=True)
class Asked:
    """Requests of one stretch: how many were due, how many came to no good, and how long the steady reads took."""

    planned: int = 0
    bad: Counter[str] = field(default_factory=Counter)  # by stratum; 'dropped' were never sent
    reads: dict[str, Histogram] = field(default_factory=dict)  # by release

    def add(self, other: Asked) -> None:
        """Everything that the other one holds."""
        self.planned += other.planned
        self.bad += other.bad
        for release, found in other.reads.items():
            self.reads.setdefault(release, Histogram()).add(found)

    def take(self, one: Interval) -> None:
        """One interval."""
        self.planned += one.planned
        missed = max(0, one.sent - one.good)
        if missed:
            self.bad["steady" if one.stratum == STEADY else "fault"] += missed
        if one.dropped:
            self.bad["dropped"] += one.dropped
        if one.kind is Kind.READ and one.stratum == STEADY and one.latency:
            self.reads.setdefault(one.release, Histogram()).add_text(one.latency)


@dataclass(slots=True)
class Level:
    """A gauge in one stretch: the smallest, the largest, and the mean of what was read."""

    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float:
        """NaN when nothing was read."""
        return self.total / self.count if self.count else math.nan

    def add(self, other: Level) -> None:
        """Everything that the other one holds."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.total += other.total
        self.count += other.count


@dataclass(slots=True)
class Long:
    """All that is drawn of a long run's intervals and gauges, and the counts that the captions say."""

    asked: Bins[Asked] = field(default_factory=lambda: Bins(Asked))
    gauges: dict[str, Bins[Level]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)  # of what was not good: a status, or why there was none
    counts: Counter[str] = field(default_factory=Counter)
    releases: set[str] = field(default_factory=set)
    first: float = math.inf
    last: float = -math.inf

    def take(self, intervals: Iterable[Interval], gauges: Iterable[Gauge]) -> None:
        """Those of one history."""
        for one in intervals:
            self.asked.at(one.started).take(one)
            self._count(one)
            self.first, self.last = min(self.first, one.started), max(self.last, one.started + one.seconds)
        for gauge in gauges:
            if math.isfinite(gauge.value) and (gauge.name in self.gauges or len(self.gauges) < KNOWN_GAUGES):
                level = self.gauges.setdefault(gauge.name, Bins(Level)).at(gauge.at)
                level.add(Level(gauge.value, gauge.value, gauge.value, 1))
                self.first, self.last = min(self.first, gauge.at), max(self.last, gauge.at)

    def _count(self, one: Interval) -> None:
        self.counts["planned"] += one.planned
        self.counts["good"] += one.good
        self.counts["dropped"] += one.dropped
        bad = max(0, one.sent - one.good)
        self.counts["bad"] += bad
        self.counts["bad while broken"] += bad if one.stratum != STEADY else 0
        if bad and one.kind in {Kind.READ, Kind.WRITE}:
            wrong = {status: count for status, count in one.statuses.items() if not status.startswith("2")}
            self.statuses.update(wrong)
        self.releases.add(one.release)

    def __bool__(self) -> bool:
        return bool(len(self.asked) or self.gauges)

    @property
    def span(self) -> float:
        """Seconds from the first to the last of what was recorded."""
        return max(1.0, self.last - self.first)

    def quantiles(self, release: str) -> list[tuple[float, tuple[float, ...]]]:
        """(seconds since the first, (P50, P95, P99)) of the steady reads of a release, a stretch each."""
        found = ((at, held.reads.get(release)) for at, held in self.asked.items())
        return [(at - self.first, tuple(one.quantile(share) for share in QUANTILES)) for at, one in found if one and len(one)]
