"""What one release was asked in one step of a roll-out, and what came of it: sums of intervals. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.histogram import Histogram, merged
from chaos.model import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.model import Interval


class Latencies:
    """Latencies in seconds, by stretches of time of `width` seconds. Asked are a quantile of all, and what of each is above a limit."""

    def __init__(self, width: float = 1.0) -> None:
        self._width = width
        self._blocks: dict[int, Counter[float]] = {}
        self._whole: Counter[float] = Counter()
        self._sorted: list[tuple[float, int]] = []  # of the whole; empty when something was added since
        self._count = 0

    def add(self, counted: Mapping[float, int], *, at: float) -> None:
        """Latency -> how often, of requests that were due `at`."""
        for counts in (self._blocks.setdefault(int(at // self._width), Counter()), self._whole):
            counts.update(counted)
        self._sorted = []
        self._count += sum(counted.values())

    def __len__(self) -> int:
        return self._count

    def quantile(self, share: float) -> float:
        """The smallest value that `share` of all are at or below; 0.0 without any."""
        self._sorted = self._sorted or sorted(self._whole.items())
        seen = 0
        for value, count in self._sorted:
            seen += count
            if seen >= share * self._count - 1e-9:
                return value
        return 0.0

    def above(self, limit: float) -> dict[int, tuple[int, int]]:
        """Stretch of time -> (how many took longer, how many there were)."""
        return {at: (sum(n for value, n in block.items() if value > limit), block.total()) for at, block in self._blocks.items()}


@dataclass(slots=True)
class Arm:
    """Counts of one release in one step.

    `failed` of `asked` had a 5xx, another wrong answer to a good request, or none, the last `row` of them in a row; `refused` of
    `hosted` had a 400; `flipped` of `deserving` deserved a 4xx and had a 5xx; `broken` of `handshakes` with the database failed;
    `lost` of `looked_up` acknowledged writes were not there.
    """

    asked: int = 0
    failed: int = 0
    row: int = 0
    hosted: int = 0
    refused: int = 0
    deserving: int = 0
    flipped: int = 0
    handshakes: int = 0
    broken: int = 0
    looked_up: int = 0
    lost: int = 0
    reads: Latencies = field(default_factory=Latencies)

    def take(self, intervals: Iterable[Interval]) -> None:
        """What was seen in one more stretch of time, by whatever was asked in it."""
        asked = failed = 0
        for one in intervals:
            wrong = self._count(one)
            if _own(one):
                asked, failed = asked + one.sent, failed + wrong
            if one.kind is Kind.READ and one.latency:
                self.reads.add(dict(Histogram(one.latency).pairs()), at=one.started)
        self.row = self.row + failed if failed == asked else 0

    def _count(self, one: Interval) -> int:
        """How many of its requests failed."""
        wrong = sum(count for status, count in one.statuses.items() if not status.isdigit() or status[0] == "5")
        if one.kind is Kind.INVALID:
            self.deserving += one.sent
            self.flipped += sum(count for status, count in one.statuses.items() if status[0] == "5")
        else:
            self.hosted += one.sent
            self.refused += one.statuses.get("400", 0)
        if _own(one):
            wrong = one.sent - one.good - one.statuses.get("400", 0)
        self.asked += one.sent
        self.failed += wrong
        return wrong


def _own(one: Interval) -> bool:
    """A read or a write of the target's own file, which has one good answer: 'read[0]'. What a crawler finds may be anything."""
    return one.kind in {Kind.READ, Kind.WRITE} and one.sample.endswith("]")


def by_second(intervals: Iterable[Interval]) -> list[list[Interval]]:
    """Those of each stretch of time together, in order."""
    stretches: dict[float, list[Interval]] = {}
    for one in intervals:
        stretches.setdefault(one.started, []).append(one)
    return [stretches[started] for started in sorted(stretches)]


def thinned(intervals: Iterable[Interval], width: float) -> tuple[Interval, ...]:
    """The same counts in stretches of `width` seconds: what is kept of a long step. A histogram loses nothing by it."""
    groups: dict[tuple[int, str, Kind, str, str, str], list[Interval]] = {}
    for one in intervals:
        groups.setdefault((int(one.started // width), one.sample, one.kind, one.stratum, one.release, one.machine), []).append(
            one
        )
    return tuple(these[0] if len(these) == 1 else _sum(these) for these in groups.values())


def _sum(these: list[Interval]) -> Interval:
    statuses: Counter[str] = Counter()
    over: Counter[str] = Counter()
    for one in these:
        statuses.update(one.statuses)
        over.update(one.over)
    started, seconds = min(one.started for one in these), sum({one.started: one.seconds for one in these}.values())
    return replace(
        these[0],
        started=started,
        seconds=seconds,
        planned=sum(one.planned for one in these),
        sent=sum(one.sent for one in these),
        good=sum(one.good for one in these),
        dropped=sum(one.dropped for one in these),
        statuses=dict(statuses),
        over=dict(over),
        latency=merged(one.latency for one in these).text(),
        lag=merged(one.lag for one in these).text(),
        covered=sum(one.covered * one.seconds for one in these) / sum(one.seconds for one in these),
    )
