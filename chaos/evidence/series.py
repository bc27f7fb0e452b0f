"""What the charts draw, read off the histories in one pass, and bounded: a soak draws no more points than a short run.

Points that would fall on the same spot of the drawing are one point (a grid of `COLUMNS` x `DECADE` cells), so nothing that could
be seen is left out. Times are seconds since the start of the run.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.checks.longrun import delta
from chaos.checks.recovery import recovery
from chaos.evidence.binned import Long
from chaos.model import Connection, History, Kind, Operation, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chaos.hours import Judged

COLUMNS = 1000  # cells along the time axis
DECADE = 30  # cells for each factor of ten of latency
BUCKETS = 150  # of the rates
FLOOR = 0.0005  # s: what is faster is drawn here
MINUTES = "soak"  # the family of the histories that hold what a soak was asked, a minute each
CANARY = {"canary", "canary-drill"}  # families whose histories are steps of a roll-out
MOST_STEPS = 60
TIMED = (Kind.READ, Kind.WRITE)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fault:
    """One window: from, to (None: to the end of its history), what was broken, what the proof saw, and whether it took effect."""

    number: int
    worker: str
    start: float
    end: float
    fault: str
    title: str
    seen: str
    took: bool
    recovered: float | None
    healed: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a roll-out: the candidate's share (per cent), what was decided, after how many seconds, and why ('': not told)."""

    experiment: str
    weight: float
    decision: str
    lasted: float
    why: str


@dataclass(slots=True)
class Lane:
    """One worker's requests, by what came of them."""

    good: dict[tuple[int, int], Point] = field(default_factory=dict)
    refused: dict[tuple[int, int], Point] = field(default_factory=dict)
    silent: dict[tuple[int, int], Point] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(slots=True)
class Series:
    """All that is drawn, and the numbers that the captions say."""

    span: float
    started: float = 0.0
    lanes: dict[str, Lane] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    steady_reads: array[float] = field(default_factory=lambda: array("d"))
    sessions: list[tuple[float, str]] = field(default_factory=list)
    wrong: Counter[tuple[str, int]] = field(default_factory=Counter)  # bad answers by kind and bucket
    long: Long = field(default_factory=Long)
    steps: list[Step] = field(default_factory=list)
    hours: tuple[Judged, ...] = ()  # of a soak
    titles: dict[str, str] = field(default_factory=dict)
    histories: list[History] = field(default_factory=list)  # whose clients have a listener each

    @property
    def faults(self) -> list[Fault]:
        """All windows, in order of time."""
        return sorted((one for lane in self.lanes.values() for one in lane.faults), key=lambda one: one.number)

    @property
    def bucket(self) -> float:
        """Seconds of a bucket of the rates, at least one."""
        return max(1.0, self.span / BUCKETS)

    def bad_rates(self) -> tuple[float, dict[str, list[float]]]:
        """Bad answers per second: the width of a bucket, and the rate by bucket of 'refused' (with a status) and 'silent'."""
        buckets = range(math.ceil(self.span / self.bucket))
        kinds = ("refused", "silent")
        return self.bucket, {kind: [self.wrong[kind, number] / self.bucket for number in buckets] for kind in kinds}

    def quantile(self, share: float) -> float | None:
        """Of the reads outside fault windows, in seconds (nearest rank); None without any."""
        if not self.steady_reads:
            return None
        ordered = sorted(self.steady_reads)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def collect(
    recordings: Iterable[tuple[str, History]], *, started: float, finished: float, clean: Callable[[str], str] = str
) -> Series:
    """One pass over all histories. `clean` is applied to every text that will be shown."""
    series = Series(span=max(1.0, finished - started), started=started)
    told: dict[tuple[str, int], Fault] = {}
    for worker, history in recordings:
        lane = series.lanes.setdefault(worker, Lane())
        series.titles.setdefault(history.experiment, clean(history.facts.get("title", "")))
        if history.facts.get("family") == MINUTES:  # its operations are a sample of what failed: they are not drawn
            for window in history.windows:
                told.setdefault((window.fault, round(window.injected)), _told(worker, history, window, started, clean))
        else:
            _draw(series, lane, worker, history, clean)
        if history.facts.get("family") != delta.FAMILY:  # what another run was like is none of this one's load
            series.long.take(history.intervals, history.gauges)
        if history.facts.get("family") in CANARY and "decision" in history.facts and len(series.steps) < MOST_STEPS:
            series.steps.append(_step(history, clean))
        if "replicas" in history.facts:
            series.histories.append(history)
        series.sessions += [(one.opened - started, session(one)) for one in history.connections]
    _number(series, told.values())
    series.lanes = dict(sorted(series.lanes.items(), key=lambda item: (len(item[0]), item[0])))
    return series


def _draw(series: Series, lane: Lane, worker: str, history: History, clean: Callable[[str], str]) -> None:
    """One experiment: its windows, and every request of it."""
    lane.faults += [_fault(worker, history, window, series.started, clean) for window in history.windows]
    bounds = sorted((window.injected, window.healed or history.finished) for window in history.windows)
    for one in history.operations:
        _count(series, lane, one, series.started, bounds)


def _number(series: Series, told: Iterable[Fault]) -> None:
    """All windows in order of time. A minute only repeats what was broken in it, unless no experiment of its own broke it."""
    known = series.faults
    for one in told:
        if not any(one.fault == other.fault and one.start < other.end + 1 and other.start < one.end + 1 for other in known):
            series.lanes[one.worker].faults.append(one)
    numbers = {id(one): index for index, one in enumerate(sorted(series.faults, key=lambda one: one.start), 1)}
    for lane in series.lanes.values():
        lane.faults = [_numbered(one, numbers[id(one)]) for one in sorted(lane.faults, key=lambda one: one.start)]


def _step(history: History, clean: Callable[[str], str]) -> Step:
    facts = history.facts
    try:
        weight = min(100.0, max(0.0, float(facts.get("weight", ""))))
    except ValueError:
        weight = 0.0
    decision, why = clean(facts["decision"]), clean(facts.get("why", ""))
    return Step(history.experiment, weight, decision, max(0.0, history.finished - history.started), why)


def _numbered(fault: Fault, number: int) -> Fault:
    return Fault(number, *(getattr(fault, name) for name in Fault.__slots__[1:]))


def _told(worker: str, history: History, window: Window, started: float, clean: Callable[[str], str]) -> Fault:
    """A window that a minute of a soak tells of: whether the target came back is nothing that it could say."""
    return Fault(
        number=0,
        worker=worker,
        start=window.injected - started,
        end=(window.healed or history.finished) - started,
        fault=clean(window.fault),
        title=clean(f"{window.fault} ({window.scope})"),
        seen=clean(window.effect.seen),
        took=window.effect.took,
        recovered=None,
        healed=False,
    )


def _fault(worker: str, history: History, window: Window, started: float, clean: Callable[[str], str]) -> Fault:
    later = min((one.injected for one in history.windows if one.injected > window.injected), default=math.inf)
    seconds = None
    if window.healed:
        seconds = recovery(tuple(one for one in history.operations if one.started < later), window.healed).seconds
    return Fault(
        number=0,
        worker=worker,
        start=window.injected - started,
        end=(window.healed or history.finished) - started,
        fault=clean(window.fault),
        title=clean(history.facts.get("title") or f"{window.fault} ({window.scope})"),
        seen=clean(window.effect.seen),
        took=window.effect.took,
        recovered=seconds,
        healed=bool(window.healed) and any(one.kind in TIMED and one.started >= window.healed for one in history.operations),
    )


def _count(series: Series, lane: Lane, one: Operation, started: float, bounds: list[tuple[float, float]]) -> None:
    if one.kind not in TIMED:
        return
    counts = series.counts
    index = bisect_right(bounds, (one.started, math.inf)) - 1
    inside = index >= 0 and one.started < bounds[index][1]
    at, seconds = one.started - started, max(FLOOR, one.seconds)
    counts["requests"] += 1
    if one.ok:
        where = lane.good
        if one.kind is Kind.READ and (not bounds or one.started < bounds[0][0]):
            series.steady_reads.append(one.seconds)
    else:
        kind, where = ("refused", lane.refused) if one.status is not None else ("silent", lane.silent)
        counts[kind] += 1
        series.wrong[kind, min(math.ceil(series.span / series.bucket) - 1, max(0, int(at / series.bucket)))] += 1
        counts["failed inside" if inside else "failed outside"] += 1
    cell = (min(COLUMNS, int(at / series.span * COLUMNS)), int(math.log10(seconds) * DECADE))
    where.setdefault(cell, (at, seconds))


def session(one: Connection) -> str:
    """'relay' for a connection to the real server that got a session, 'failed' for one that did not, 'hostile' for all others."""
    if one.behaviour != "relay":
        return "hostile"
    return "relay" if one.established else "failed"


def arrivals(series: Series) -> tuple[float, dict[str, list[float]]]:
    """New connections per second: the width of a bucket in seconds (>= 1), and for each kind of `session` the rate by bucket."""
    width = series.bucket
    buckets = math.ceil(series.span / width)
    rates = {kind: [0.0] * buckets for kind in ("relay", "failed", "hostile")}
    for opened, kind in series.sessions:
        rates[kind][min(buckets - 1, max(0, int(opened / width)))] += 1 / width
    return width, rates
