"""The clock of a run: the real one, or one that goes faster while nothing is broken.

A fault takes its real time whatever the clock, and a target recovers in real seconds. So a compressed soak goes at real speed around
each fault, and fast in between.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.model import now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.model import Gauge, History, Interval, Operation, Window

KEPT = 8  # changes of pace that are remembered: what is put on the clock is never older than a few seconds


class Clock:
    """Times in and out are seconds since the epoch. `factor` is how many of the run's seconds a real one is, outside of faults."""

    def __init__(self, *, at: float | None = None, factor: float = 1.0) -> None:
        self.factor = factor
        self._plain = at is None and factor == 1.0  # the real clock, which nothing has to be moved onto
        real = now()
        self._changes = [(real, real if at is None else at, factor)]  # (real, the run's, pace from then on)

    def now(self) -> float:
        """On the run's clock."""
        return self.at(now())

    def at(self, real: float) -> float:
        """The moment on the run's clock that a real moment is."""
        begun, shown, pace = next((one for one in reversed(self._changes) if one[0] <= real), self._changes[0])
        return shown + (real - begun) * pace

    def pace(self, factor: float) -> None:
        """From now on so fast."""
        if self._plain:
            return
        real = now()
        self._changes = [*self._changes[-KEPT:], (real, self.at(real), factor)]

    def fast(self) -> None:
        """Nothing is broken."""
        self.pace(self.factor)

    def real(self) -> None:
        """Something is: it takes the time that it takes."""
        self.pace(1.0)

    def left(self, until: float) -> float:
        """Real seconds until a moment of the run's clock, at the pace of now."""
        return max(0.0, (until - self.now()) / self._changes[-1][2])

    def pause(self, until: float, *, most: float) -> None:
        """Sleep until then, but never longer than `most` real seconds."""
        time.sleep(min(most, self.left(until)))

    # -- what was seen in real time, on the run's clock ---------------------------------------------------------------------------

    def _span(self, started: float, seconds: float) -> tuple[float, float]:
        begin, end = self.at(started), self.at(started + seconds)
        return begin, max(0.0, end - begin)

    def intervals(self, seen: Iterable[Interval]) -> tuple[Interval, ...]:
        """Where and how long they were; what they counted is what it was."""
        if self._plain:
            return tuple(seen)
        spans = ((one, *self._span(one.started, one.seconds)) for one in seen)
        return tuple(replace(one, started=begin, seconds=length) for one, begin, length in spans)

    def operations(self, seen: Iterable[Operation]) -> tuple[Operation, ...]:
        """Each when it was planned; how long it took stays what it was."""
        if self._plain:
            return tuple(seen)
        return tuple(_moved(one, self.at(one.planned or one.started) - (one.planned or one.started)) for one in seen)

    def windows(self, seen: Iterable[Window]) -> tuple[Window, ...]:
        """When something was broken."""
        if self._plain:
            return tuple(seen)
        return tuple(replace(one, injected=self.at(one.injected), healed=one.healed and self.at(one.healed)) for one in seen)

    def gauges(self, seen: Iterable[Gauge]) -> tuple[Gauge, ...]:
        """When each was looked at."""
        return tuple(seen) if self._plain else tuple(replace(one, at=self.at(one.at)) for one in seen)

    def history(self, seen: History) -> History:
        """One experiment, during which the clock was the real one: moved as a whole."""
        if self._plain:
            return seen
        by = self.at(seen.started) - seen.started
        return replace(
            seen,
            started=seen.started + by,
            finished=seen.finished + by,
            windows=tuple(
                replace(one, injected=one.injected + by, healed=one.healed and one.healed + by) for one in seen.windows
            ),
            operations=tuple(_moved(one, by) for one in seen.operations),
            connections=tuple(
                replace(
                    one,
                    opened=one.opened + by,
                    closed=one.closed and one.closed + by,
                    steps=tuple((at + by, what) for at, what in one.steps),
                )
                for one in seen.connections
            ),
        )


def _moved(one: Operation, by: float) -> Operation:
    return replace(one, planned=one.planned and one.planned + by, started=one.started + by, finished=one.finished + by)
