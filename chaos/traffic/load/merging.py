"""What several senders recorded, as one: counts and histograms add up, and what a lost machine did not tell is not covered. Pure.

A stretch of time is complete when every machine that is still heard of has told its part of it. One that is not heard of for `patience`
seconds is lost: it is not waited for, and its share of the seconds is not covered, until it is heard again. What it tells of stretches
that were handed on without it is handed on by itself: nothing that was recorded is thrown away, and nothing is counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.histogram import merged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.model import Interval, Kind

_NEVER = float("-inf")


@dataclass(slots=True)
class Machine:
    """`heard` is when it last said anything, `until` how far it has told its part; both seconds of the run's clock."""

    name: str
    heard: float = _NEVER
    until: float = _NEVER
    told: int = 0
    missing: int = 0


@dataclass(slots=True)
class _Part:
    """One stretch of time: what each machine told of it."""

    ends: float
    of: dict[str, list[Interval]] = field(default_factory=dict)


class Merging:
    """`said` takes what a machine tells, `complete` gives what is whole by now."""

    def __init__(self, machines: Iterable[str], *, patience: float) -> None:
        self.machines = {name: Machine(name) for name in machines}
        self._patience = patience
        self._parts: dict[tuple[float, str], _Part] = {}
        self._handed = _NEVER  # the start of the last stretch that was handed on
        self._late: list[Interval] = []

    def heard(self, name: str, now: float) -> None:
        """Any word of a machine."""
        self.machines[name].heard = now

    def said(self, name: str, intervals: Sequence[Interval], *, until: float, number: int) -> None:
        """All that a machine has to tell up to `until`. Its messages are numbered from 1: one that is missing was lost on the way."""
        machine = self.machines[name]
        if number == 1:  # it began anew
            machine.told = 0
        machine.missing += max(0, number - machine.told - 1)
        machine.told = number
        machine.until = max(machine.until, until)
        for one in intervals:
            if one.started <= self._handed:
                self._late.append(one)
                continue
            part = self._parts.setdefault((one.started, one.stratum), _Part(0.0))
            part.ends = max(part.ends, one.started + one.seconds)
            part.of.setdefault(name, []).append(one)

    def lost(self, now: float) -> tuple[str, ...]:
        """The machines that are not heard of any more."""
        return tuple(name for name, machine in self.machines.items() if machine.heard < now - self._patience)

    def complete(self, now: float, *, end: bool = False) -> tuple[Interval, ...]:
        """Stretches that are whole by now, in order, each once; at the `end` all that there are."""
        gone = set(self.lost(now))
        told = min((one.until for name, one in self.machines.items() if name not in gone), default=now)
        found: list[Interval] = [replace(one, covered=one.covered / len(self.machines)) for one in self._late]
        self._late = []
        for key in sorted(self._parts):
            part = self._parts[key]
            if part.ends > told + 1e-6 and not end:
                break
            del self._parts[key]
            self._handed = key[0]
            found += combined(part.of, machines=len(self.machines), seconds=part.ends - key[0])
        return tuple(found)


def combined(told: dict[str, list[Interval]], *, machines: int, seconds: float) -> list[Interval]:
    """One interval for each route of what the machines told of one stretch; `covered` is the mean over all `machines`."""
    covered = sum(rows[0].covered * rows[0].seconds for rows in told.values()) / seconds / machines
    routes: dict[tuple[str, Kind, str], list[Interval]] = {}
    for rows in told.values():
        for one in rows:
            routes.setdefault((one.sample, one.kind, one.release), []).append(one)
    return [
        replace(
            rows[0],
            seconds=seconds,
            machine="",
            planned=sum(one.planned for one in rows),
            sent=sum(one.sent for one in rows),
            good=sum(one.good for one in rows),
            dropped=sum(one.dropped for one in rows),
            statuses=_added(one.statuses for one in rows),
            over=_added(one.over for one in rows),
            latency=merged(one.latency for one in rows).text(),
            lag=merged(one.lag for one in rows).text(),
            covered=covered,
        )
        for rows in routes.values()
    ]


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            whole[name] = whole.get(name, 0) + count
    return whole
