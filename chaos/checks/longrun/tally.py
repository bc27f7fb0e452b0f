"""What is kept of a long run: counts by minute for the rates, a few numbers by hour for everything else."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.histogram import Histogram
from chaos.model import Kind
from chaos.statistics import effective

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from chaos.model import Interval

HOUR = 3600.0
AWAY = frozenset({"timeout", "refused"})  # no answer that came from who was asked
UNDECIDED = frozenset({"429", "503"}) | AWAY  # says nothing about a host (as chaos.checks.hosts has it)
HEALTHY = frozenset({Kind.READ, Kind.WRITE})
LANDING = "seo"  # how the samples of landing pages begin


@dataclass(slots=True)
class Rate:
    """Bad of n, minute by minute: sixteen bytes a minute."""

    bads: array[int] = field(default_factory=lambda: array("q"))
    ns: array[int] = field(default_factory=lambda: array("q"))
    seconds: float = 0.0

    def add(self, bad: int, n: int, seconds: float) -> None:
        """One minute's; nothing observed is no minute."""
        if n > 0:
            self.bads.append(min(bad, n))
            self.ns.append(n)
            self.seconds += seconds

    @property
    def bad(self) -> int:
        """In all."""
        return sum(self.bads)

    @property
    def n(self) -> int:
        """In all."""
        return sum(self.ns)

    @property
    def deff(self) -> float:
        """See `chaos.statistics.effective`."""
        return effective(list(zip(self.bads, self.ns, strict=True)))


@dataclass(slots=True)
class Spread:
    """Of one gauge in one hour: the middle of its values, the quarter points, how many there were, and the last one."""

    low: float
    middle: float
    high: float
    count: int
    last: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """At least one value."""
        ordered = sorted(values)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return cls(at(0.25), at(0.5), at(0.75), len(ordered), values[-1])


@dataclass(slots=True)
class Asked:
    """Of one sample in one hour. `none` were not answered at all;"""

    n: int = 0
    good: int = 0
    clients: int = 0  # 4xx
    servers: int = 0  # 5xx
    none: int = 0
    refused: int = 0  # 400

    def add(self, one: Interval) -> None:
        """One interval more."""
        self.n += offered(one)
        self.good += min(one.good, offered(one))
        for status, count in one.statuses.items():
            self.clients += count * status.startswith("4")
            self.servers += count * status.startswith("5")
            self.none += count * (not status.isdigit())
            self.refused += count * (status == "400")


@dataclass(slots=True)
class Hourly:
    """One hour. `counts`: gate -> [bad, n] of its steady time. `p50` and `p95` of the reads in seconds, NaN without any.

    `latency` is the text of its reads' histogram, `landing` that of the landing pages'.
    """

    number: int
    counts: dict[str, list[int]] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    covered: dict[str, float] = field(default_factory=dict)
    gauges: dict[str, Spread] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    wrong: int = 0
    lag: float = 0.0
    reads: int = 0
    p50: float = math.nan
    p95: float = math.nan
    latency: str = ""
    landing: str = ""

    def count(self, gate: str, bad: int, n: int) -> None:
        """Add to a gate's counts."""
        have = self.counts.setdefault(gate, [0, 0])
        have[0] += min(bad, n)
        have[1] += n

    @property
    def looked(self) -> float:
        """The share of its seconds that every machine which took part was there for."""
        return min(1.0, min(self.covered.values(), default=0.0) / HOUR)


def offered(one: Interval) -> int:
    """How many requests were due: what was dropped counts."""
    return max(one.planned, one.sent + one.dropped)


def is_read(one: Interval) -> bool:
    """Whether it is one of the target's own read endpoints: landing pages and the like have no limit of their own."""
    return one.kind is Kind.READ and one.sample.startswith("read")


def above(one: Interval, limit: float) -> int:
    """How many answers took longer than `limit` seconds: exactly where they were counted for it, else by the histogram."""
    for key, count in one.over.items():
        if math.isclose(float(key), limit, rel_tol=1e-6):
            return count
    slow = Histogram()
    slow.add_text(one.latency)
    return slow.above(limit)


def hosts(one: Interval) -> tuple[int, int, int]:
    """(let in, refused, refused with something else than 400) of requests to unknown hosts."""
    let_in = sum(count for status, count in one.statuses.items() if status.startswith("2") or status == "101")
    decided = {status: count for status, count in one.statuses.items() if status not in UNDECIDED and not status.startswith("2")}
    refused = sum(count for status, count in decided.items() if status != "101")
    return let_in, refused, refused - decided.get("400", 0)


def looked(intervals: Iterable[Interval]) -> dict[str, list[tuple[float, float, float]]]:
    """Machine -> stretches (start, end, share of it) that it was there for, none counted twice.

    Requests to a service say that somebody was looking; where there were none of them (a run of something else), any do.
    """
    every = list(intervals)
    load = [one for one in every if one.kind in HEALTHY] or every
    found: dict[str, list[tuple[float, float, float]]] = {}
    for machine in {one.machine for one in load}:
        spans: dict[tuple[float, float], float] = {}
        for one in load:
            if one.machine == machine:
                span = (one.started, one.started + one.seconds)
                spans[span] = min(one.covered, spans.get(span, 1.0))
        found[machine] = list(_apart(spans))
    return found


def _apart(spans: Mapping[tuple[float, float], float]) -> Iterator[tuple[float, float, float]]:
    """Stretches that overlap (steady and fault time of one minute) each counted once, the longer one first."""
    reached = -math.inf
    for (start, end), share in sorted(spans.items(), key=lambda item: (item[0][0], -item[0][1])):
        begin = max(start, reached)
        if end > begin:
            yield begin, end, share
            reached = end


def by_hour(start: float, end: float, origin: float) -> Iterator[tuple[int, float]]:
    """(hour, seconds of it) of a stretch of time; hours are counted from `origin`."""
    at = max(start, origin)
    while end - at > 1e-6:
        number = int((at - origin + 1e-6) // HOUR)
        upto = min(end, origin + (number + 1) * HOUR)
        yield number, upto - at
        at = upto
