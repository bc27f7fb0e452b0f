"""Operations as intervals: what the few clients of an experiment asked while something was broken. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chaos.histogram import Histogram
from chaos.model import Interval, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.model import Operation

COUNTED = (Kind.READ, Kind.WRITE, Kind.INVALID)


def intervals(
    operations: Iterable[Operation], started: float, seconds: float, *, limits: Sequence[float] = (), stratum: str = "fault"
) -> tuple[Interval, ...]:
    """One for each route that was asked in the stretch. Closed-loop clients plan nothing: latency counts from sending."""
    routes: dict[tuple[str, Kind], list[Operation]] = {}
    for one in operations:
        if one.kind in COUNTED and started <= one.started < started + seconds:
            routes.setdefault((one.sample, one.kind), []).append(one)
    return tuple(
        Interval(
            started=started,
            seconds=seconds,
            sample=sample,
            kind=kind,
            stratum=stratum,
            planned=len(these),
            sent=len(these),
            good=sum(one.ok for one in these),
            statuses=dict(Counter(str(one.status or one.error) for one in these)),
            over={f"{limit:g}": sum(one.seconds > limit for one in these) for limit in limits},
            latency=_histogram(these),
        )
        for (sample, kind), these in routes.items()
    )


def _histogram(these: Iterable[Operation]) -> str:
    filled = Histogram()
    for one in these:
        filled.record(one.seconds)
    return filled.text()
