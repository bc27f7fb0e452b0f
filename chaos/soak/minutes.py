"""What a minute of a soak is kept as, and where a run that was killed left off.

Each minute is one history, in one transaction: it is there whole, or it is a gap. What a fault or a round recorded is a history of its
own beside it. So after `kill -9` nothing has to be mended: the next minute goes behind the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from chaos.evidence.store import SEGMENTS, Store
from chaos.histogram import merged
from chaos.model import History
from chaos.soak.plan import MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from chaos.model import Finding, Gauge, Interval, Operation, Window
    from chaos.soak.plan import Plan

EXPERIMENT = "soak"
FAMILY = "soak"
FAILED_KEPT = 8  # failed operations a minute that are kept whole: counts are in the intervals, these are to look at
STARTED, FINISHED = "started", "finished"  # phases in a segment: the load begins; nothing follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """All that one minute brought, on the run's clock. `number` counts from 0 at the start of the plan."""

    number: int
    started: float
    finished: float
    intervals: tuple[Interval, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    failed: tuple[Operation, ...] = ()
    windows: tuple[Window, ...] = ()

    def history(self, plan: Plan) -> History:
        """As it goes into the segment."""
        facts = {"family": FAMILY, "gate": "rel.availability", "title": "load, day and night", "minute": str(self.number)}
        return History(
            experiment=EXPERIMENT,
            started=self.started,
            finished=self.finished,
            windows=tuple(
                one for one in self.windows if one.injected < self.finished and (one.healed or self.finished) > self.started
            ),
            operations=sampled(self.failed),
            facts=facts | plan.facts() | {"failed": str(len(self.failed))},
            intervals=slim(self.intervals),
            gauges=self.gauges,
        )


def slim(seen: Iterable[Interval]) -> tuple[Interval, ...]:
    """The send lag is the sender's, and no route's: of each stretch it is kept once, with the first of its routes."""
    lags: dict[tuple[float, float, str, str], list[str]] = {}
    every = tuple(seen)
    for one in every:
        lags.setdefault(_stretch(one), []).append(one.lag)
    kept = []
    for one in every:
        texts = lags.pop(_stretch(one), [])
        kept.append(replace(one, lag=merged(texts).text() if len(texts) > 1 else texts[0] if texts else ""))
    return tuple(kept)


def _stretch(one: Interval) -> tuple[float, float, str, str]:
    return one.started, one.seconds, one.stratum, one.machine


def sampled(failed: Iterable[Operation]) -> tuple[Operation, ...]:
    """A bounded choice: the first of each kind of failure, then the first ones."""
    every = list(failed)
    kinds = {(one.sample, one.status, one.error): one for one in reversed(every)}
    first = list(kinds.values())[::-1][:FAILED_KEPT]
    chosen = first + [one for one in every if all(one is not each for each in first)][: FAILED_KEPT - len(first)]
    return tuple(sorted(chosen, key=lambda one: one.planned or one.started))


def number(plan: Plan, at: float) -> int:
    """Of the minute that a moment of the run's clock lies in."""
    return int((at - plan.started + 1e-6) // MINUTE)


@dataclass(slots=True)
class Left:
    """Where a run left off: when its load `started` and `until` when its minutes are whole, on the run's clock (0.0: it never did).

    `done` are the phases that it came to: faults and rounds are not carried out again.
    """

    started: float = 0.0
    until: float = 0.0
    minutes: int = 0
    findings: tuple[Finding, ...] = ()
    finished: bool = False
    done: frozenset[str] = frozenset()


def finished(directory: Path, name: str) -> bool:
    """Whether a soak came to the end of its plan."""
    path = directory / SEGMENTS / f"{name}.sqlite"
    if not path.is_file() or not path.stat().st_size:
        return False  # it was killed before its first minute
    with Store(path) as store:
        return any(phase == FINISHED for _, phase, _ in store.phases())


def left_off(directory: Path, name: str, feed: Callable[[History], None]) -> Left:
    """What the segment of an interrupted soak holds; each history is handed to `feed`, in order."""
    path = directory / SEGMENTS / f"{name}.sqlite"
    left = Left()
    with Store(path) as store:
        phases = {phase: at for _, phase, at in store.phases()}
        left.started = left.until = phases.get(STARTED, 0.0)
        for history in store.histories():
            feed(history)
            if history.experiment == EXPERIMENT:
                left.until = max(left.until, history.finished)
                left.minutes += 1
        left.findings = tuple(store.findings())
        left.done = frozenset(phases) | {one.experiment.partition(":")[0] for one in left.findings}
    return left


class Judging(Protocol):
    """What makes findings of a soak as it goes on (`chaos.checks.longrun.Account`). Streaming: it keeps counts, no history."""

    def feed(self, history: History) -> None:
        """The next history, in order of time."""

    def findings(self) -> tuple[Finding, ...]:
        """Of all that was fed so far."""
