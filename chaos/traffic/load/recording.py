"""What a sender keeps: counts and histograms for each route and stretch of time, and a few of the operations themselves.

A request belongs to the stretch in which it was due, however long it took; a stretch is over when each of its requests is. What is
under way when something is broken on purpose belongs to the stretch that begins then: the steady one is not accused of it. The sender's
own absence is no traffic of the target's: what was due while it was frozen is not planned, and those seconds are not covered.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.histogram import MICRO, Histogram
from chaos.model import Interval, Kind, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEADY = "steady"
BITS = 11  # of a value that an HDR histogram of three significant digits tells apart
KEPT = 20  # operations of each sort (failed, acknowledged writes) that a stretch keeps
RELEASES = 8  # names of who answered that are told apart


class Tally:
    """Values by how often, at a histogram's own resolution: recording costs a tenth of that, and an empty one nothing."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def record(self, seconds: float) -> None:
        """One more."""
        micro = max(1, round(seconds * MICRO))
        shift = max(0, micro.bit_length() - BITS)
        value = micro >> shift << shift
        self.counts[value] = self.counts.get(value, 0) + 1

    def text(self) -> str:
        """As the histogram that holds the same."""
        whole = Histogram()
        for micro, count in self.counts.items():
            whole.record(micro / MICRO, count)
        return whole.text()


@dataclass(slots=True)
class Cell:
    """One row of a stretch, as it fills."""

    planned: int = 0
    sent: int = 0
    good: int = 0
    dropped: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)
    latency: Tally = field(default_factory=Tally)
    lag: Tally = field(default_factory=Tally)


@dataclass(slots=True)
class Sampled:
    """A choice of at most `KEPT` of what comes by, each as likely as any other (Vitter's algorithm R)."""

    dice: random.Random
    seen: int = 0
    kept: list[Operation] = field(default_factory=list)

    def offer(self, make: Callable[[], Operation]) -> None:
        """`make` is called only where the operation is kept."""
        self.seen += 1
        if len(self.kept) < KEPT:
            self.kept.append(make())
        elif (place := self.dice.randrange(self.seen)) < KEPT:
            self.kept[place] = make()


@dataclass(slots=True)
class Stretch:
    """From `started` to `ends`; `under_way` are its requests that are not over yet, `away` the seconds that nobody was there."""

    started: float
    ends: float
    stratum: str
    failed: Sampled
    written: Sampled
    under_way: int = 0
    away: float = 0.0
    cells: dict[tuple[str, Kind, str], Cell] = field(default_factory=dict)


class Recorder:
    """Stretches of `every` seconds, counted from `origin`, cut where the stratum changes."""

    def __init__(
        self,
        *,
        started: float,
        every: float,
        origin: float,
        limits: tuple[float, ...],
        machine: str,
        seed: int,
        stratum: str = STEADY,
    ) -> None:
        self._every = every
        self._origin = origin or started
        self._limits = tuple((f"{limit:g}", limit) for limit in limits)
        self._machine = machine
        self._dice = random.Random(seed)  # noqa: S311  (which operations are kept is no secret)
        self._open: deque[Stretch] = deque()
        self._releases: set[str] = set()
        self._begin(started, stratum)

    @property
    def now(self) -> Stretch:
        """The stretch that is being filled."""
        return self._open[-1]

    def _begin(self, at: float, stratum: str) -> None:
        number = math.floor((at - self._origin) / self._every + 1e-9) + 1
        ends = self._origin + number * self._every
        self._open.append(Stretch(at, ends, stratum, Sampled(self._dice), Sampled(self._dice)))

    def roll(self, now: float) -> None:
        """Begin what has to be begun by now."""
        while now >= self.now.ends:
            self._begin(self.now.ends, self.now.stratum)

    def mark(self, stratum: str, at: float) -> None:
        """Another stratum from `at` on."""
        self.roll(at)
        if stratum == self.now.stratum:
            return
        if at - self.now.started < 1e-6:
            self.now.stratum = stratum
            return
        self.now.ends = at
        self._begin(at, stratum)

    def due(self, at: float) -> Stretch:
        """The stretch that a request which is due `at` belongs to; it is under way from here."""
        self.roll(at)
        found = next((one for one in reversed(self._open) if one.started <= at), self._open[0])
        found.under_way += 1
        return found

    def settled(self, first: Stretch) -> Stretch:
        """Where a request of `first` that is over now belongs: see this module's first words."""
        first.under_way -= 1
        if first.stratum != STEADY:
            return first
        return next((one for one in self._open if one.started >= first.ends and one.stratum != STEADY), first)

    def cell(self, stretch: Stretch, key: str, kind: Kind, release: str = "") -> Cell:
        """Of one route, and of who answered."""
        if release not in self._releases:
            release = release[:60] if len(self._releases) < RELEASES else ""
            self._releases.add(release)
        cell = stretch.cells.get((key, kind, release))
        if cell is None:
            cell = stretch.cells[key, kind, release] = Cell()
        return cell

    def count(self, cell: Cell, *, status: str, good: bool, latency: float, lag: float) -> None:
        """One request that was sent."""
        cell.planned += 1
        cell.sent += 1
        cell.good += good
        cell.statuses[status] = cell.statuses.get(status, 0) + 1
        for name, limit in self._limits:
            if latency > limit:
                cell.over[name] = cell.over.get(name, 0) + 1
        cell.latency.record(latency)
        cell.lag.record(lag)

    def drop(self, at: float, key: str, kind: Kind, why: str, times: int = 1) -> None:
        """What was due at `at`, and not sent."""
        stretch = self.due(at)
        stretch.under_way -= 1
        cell = self.cell(stretch, key, kind)
        cell.planned += times
        cell.dropped += times
        cell.statuses[why] = cell.statuses.get(why, 0) + times

    def away(self, start: float, end: float) -> None:
        """Nobody was there from `start` to `end`."""
        self.roll(end)
        for one in self._open:
            one.away += max(0.0, min(end, one.ends) - max(start, one.started))

    def over(self, now: float) -> Iterator[tuple[Stretch, float]]:
        """The stretches that are over by `now`, in order, each once, with their ends. The last one is never among them."""
        while len(self._open) > 1 and self._open[0].ends <= now and not self._open[0].under_way:
            one = self._open.popleft()
            yield one, one.ends

    def last(self, now: float) -> Iterator[tuple[Stretch, float]]:
        """All that is left, at the end."""
        while self._open:
            one = self._open.popleft()
            yield one, min(one.ends, max(now, one.started))

    def intervals(self, stretch: Stretch, ends: float) -> Iterator[Interval]:
        """A stretch as it is kept: one interval for each row. One without any request says that somebody was there."""
        seconds = ends - stretch.started
        if seconds <= 0:
            return
        rows = stretch.cells or ({("", Kind.READ, ""): Cell()} if stretch.away < seconds else {})
        covered = max(0.0, 1.0 - stretch.away / seconds)
        for (key, kind, release), cell in rows.items():
            yield Interval(
                started=stretch.started,
                seconds=seconds,
                sample=key,
                kind=kind,
                stratum=stretch.stratum,
                release=release,
                machine=self._machine,
                planned=cell.planned,
                sent=cell.sent,
                good=cell.good,
                dropped=cell.dropped,
                statuses=cell.statuses,
                over={name: cell.over.get(name, 0) for name, _ in self._limits},
                latency=cell.latency.text(),
                lag=cell.lag.text(),
                covered=covered,
            )
