"""What one release was asked in one step of a roll-out, and what came of it: sums of intervals, in constant memory. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.histogram import Histogram
from chaos.model import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.model import Interval

BLOCKS = 64  # stretches of time that latencies are kept by, at most: neighbours are put together when there are more
OWN = (Kind.READ, Kind.WRITE)  # requests that have one good answer, which the target's own file names


class Latencies:
    """Latencies in seconds, by stretches of time. What is asked of them is a quantile of all, and what of each is above a limit."""

    def __init__(self) -> None:
        self._blocks: list[Counter[float]] = []
        self._whole: Counter[float] = Counter()
        self._sorted: list[tuple[float, int]] = []  # of the whole; empty when something was added since
        self._width, self._into = 1, 0  # how many additions a block takes, and how many the last one has taken
        self._count = 0

    def add(self, counted: Mapping[float, int]) -> None:
        """One more stretch of time: latency -> how often."""
        if not self._blocks or self._into >= self._width:
            self._blocks.append(Counter())
            self._into = 0
        for counts in (self._blocks[-1], self._whole):
            counts.update(counted)
        self._sorted = []
        self._into += 1
        self._count += sum(counted.values())
        if len(self._blocks) > BLOCKS:
            halves = zip(self._blocks[::2], [*self._blocks[1::2], Counter[float]()], strict=False)
            self._blocks = [one + other for one, other in halves]
            self._width, self._into = 2 * self._width, 1  # the last one had just been begun

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

    def above(self, limit: float) -> list[tuple[int, int]]:
        """(how many took longer, how many there were), by stretches of time."""
        return [(sum(n for value, n in block.items() if value > limit), block.total()) for block in self._blocks]


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
        latencies: Counter[float] = Counter()
        asked = failed = 0
        for one in intervals:
            wrong = self._count(one)
            if one.kind in OWN:
                asked, failed = asked + one.sent, failed + wrong
            if one.kind is Kind.READ and one.latency:
                latencies.update(dict(Histogram(one.latency).pairs()))
        self.row = self.row + failed if failed == asked else 0
        if latencies:
            self.reads.add(latencies)

    def _count(self, one: Interval) -> int:
        """How many of its requests failed."""
        wrong = sum(count for status, count in one.statuses.items() if not status.isdigit() or status[0] == "5")
        if one.kind is Kind.INVALID:
            self.deserving += one.sent
            self.flipped += sum(count for status, count in one.statuses.items() if status[0] == "5")
        else:
            self.hosted += one.sent
            self.refused += one.statuses.get("400", 0)
        if one.kind in OWN:
            wrong = one.sent - one.good - one.statuses.get("400", 0)
        self.asked += one.sent
        self.failed += wrong
        return wrong
