"""What stands out in a long run: leaks, which are judged (`chaos.checks.longrun.trends`), and single hours, which are only told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from chaos.checks.longrun.trends import SIZES, Point, Trend, trend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.checks.longrun.tally import Hourly

WARM = 0.1  # share of a run in which a service may warm up
WARM_LEAST = 2.0  # hours
FEWEST_HOURS = 8  # below that no hour can stick out of the others
FEWEST_READS = 200  # of an hour, for its quantiles
ODD = 6.0  # robust standard deviations from the median hour; 3.5 (Iglewicz and Hoaglin, 1993) cries wolf once in 2,000 hours
TOLD = 12  # odd hours of a kind that are told one by one
UNKNOWN = "unknown-host"
PLACES = {"MB": 0, "ms": 1, "": 1}


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One thing that stands out. `kind` is 'leak' or 'hour'; `what` the series; `hours` which ones (none: all); `judged`: it fails."""

    kind: str
    what: str
    detail: str
    hours: tuple[int, ...] = ()
    judged: bool = False


def warm_up(planned: float) -> float:
    """Hours at the beginning that say nothing about growth."""
    return max(WARM_LEAST, WARM * planned)


def found(hours: Sequence[Hourly], *, warm: float) -> tuple[Anomaly, ...]:
    """Leaks first, then the hours that stick out, in order of time."""
    leaks = [_leak(name, one) for name, one in trends(hours, warm=warm).items() if one is not None and one.leak]
    return (*leaks, *sorted(_odd(hours), key=lambda one: one.hours))


def trends(hours: Sequence[Hourly], *, warm: float) -> dict[str, Trend | None]:
    """Of each series that was observed at all; None where it was not observed for long enough."""
    every = {name: [one for one in series(hours, name) if one.hour >= math.ceil(warm)] for name in SIZES}
    return {name: trend(points, SIZES[name]) for name, points in every.items() if points}


def series(hours: Sequence[Hourly], name: str) -> list[Point]:
    """Of a gauge, or of 'latency.p50' and 'latency.p95', by hour; hours without it are left out."""
    if name.startswith("latency."):
        values = [(one.number, one.p50 if name.endswith("p50") else one.p95) for one in hours if one.reads >= FEWEST_READS]
        return [Point(number, value, value, value) for number, value in values]
    spreads = [(one.number, one.gauges[name]) for one in hours if name in one.gauges]
    return [Point(number, one.low, one.middle, one.high) for number, one in spreads]


def _leak(name: str, one: Trend) -> Anomaly:
    size = SIZES[name]
    places, unit = PLACES[size.unit], f" {size.unit}".rstrip()

    def said(value: float, more: int = 0) -> str:
        return f"{value / size.per:.{places + more}f}{unit}"

    month = one.slope * 720 / one.level if one.level else math.inf
    detail = (
        f"{size.title} grows by {said(one.slope, 1)} an hour: {said(one.growth)} and more in {one.hours:.0f} h, from {said(one.level)} "
        f"({month:+.0%} in 30 days). It does not slow down, and it does not follow the hour of the day"
    )
    return Anomaly("leak", name, detail, judged=True)


def _share(choose: Callable[[Hourly], tuple[int, int]]) -> Callable[[Hourly], tuple[float, float] | None]:
    """(value, its own standard error) of a rate in an hour; the square root makes counts alike."""

    def of(hour: Hourly) -> tuple[float, float] | None:
        count, n = choose(hour)
        return (2 * math.sqrt(count / n), 1 / math.sqrt(n)) if n else None

    return of


def _statuses(name: str) -> Callable[[Hourly], tuple[int, int]]:
    def of(hour: Hourly) -> tuple[int, int]:
        asked = [one for sample, one in hour.asked.items() if sample.startswith(("read", "write"))]
        return sum(getattr(one, name) for one in asked), sum(one.n for one in asked)

    return of


def _strangers(hour: Hourly) -> tuple[int, int]:
    asked = [one for sample, one in hour.asked.items() if not sample.startswith(UNKNOWN)]
    return sum(one.refused for sample, one in hour.asked.items() if sample.startswith(UNKNOWN)), sum(one.n for one in asked)


def _latency(hour: Hourly) -> tuple[float, float] | None:
    return (math.log(hour.p95), 0.02) if hour.reads >= FEWEST_READS and hour.p95 > 0 else None


ODDITIES: tuple[tuple[str, Callable[[Hourly], tuple[float, float] | None]], ...] = (
    ("4xx answers", _share(_statuses("clients"))),
    ("5xx answers", _share(_statuses("servers"))),
    ("requests without an answer", _share(_statuses("none"))),
    ("refusals of unknown hosts", _share(_strangers)),
    ("P95 latency", _latency),
)


def _odd(hours: Sequence[Hourly]) -> list[Anomaly]:
    """Hours in which a rate, or the P95, is far above those of the other hours, noise taken into account."""
    told: list[Anomaly] = []
    for what, of in ODDITIES:
        known = [(one, value) for one in hours if (value := of(one)) is not None]
        if len(known) < FEWEST_HOURS:
            continue
        usual = median(value for _, (value, _) in known)
        spread = 1.4826 * median(abs(value - usual) for _, (value, _) in known)
        far = [(one, (value - usual) / math.hypot(spread, error)) for one, (value, error) in known]
        told += [
            Anomaly(
                "hour", what, f"{_worth(one, what)} in hour {one.number}, far above the other hours (z = {z:.0f})", (one.number,)
            )
            for one, z in sorted((each for each in far if each[1] > ODD), key=lambda each: -each[1])[:TOLD]
        ]
    return told


def _worth(hour: Hourly, what: str) -> str:
    if what == "P95 latency":
        return f"P95 latency of {hour.p95 * 1000:.0f} ms"
    choose = {
        "4xx answers": _statuses("clients"),
        "5xx answers": _statuses("servers"),
        "requests without an answer": _statuses("none"),
    }
    count, n = choose.get(what, _strangers)(hour)
    return f"{count:,} {what} to {n:,} requests"
