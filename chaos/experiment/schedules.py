"""Faults that overlap, by a schedule that was written down before: each struck and healed at its time, under traffic.

One window for the whole, from the first fault's injection to the moment when the last had gone. That every step took effect is seen by
sessions of our own, each begun right after its step, in a thread of its own: what is silent must not hold up the schedule.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.experiment.core import broken, under_traffic
from chaos.experiment.faults import served
from chaos.faults import schedule as schedules
from chaos.faults.database import Restart, Slots, TlsOff
from chaos.faults.probe import connect
from chaos.model import Effect, History, now

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.faults import Fault
    from chaos.faults.schedule import Schedule, Step
    from chaos.faults.toxiproxy import ProxyControl
    from chaos.ledger import Restore
    from chaos.rig import Rig

SLOWED = 0.1  # s that a session of our own takes at the least through any of the slow paths; ten times a healthy one
PROBED = 2.5  # s that is waited for the last probes


@dataclass(slots=True)
class Overlay:
    """A network fault whose toxics lie beside those of others on the same proxy: only its own are taken off."""

    kind: str
    control: ProxyControl
    proxy: str
    rig: Rig

    def inject(self) -> None:
        """Its toxics beside what is there, each read back."""
        row = schedules.ROWS[self.kind]
        for toxic in row.toxics:
            self.control.add(self.proxy, toxic)
        if row.disable:
            self.control.enable(self.proxy, False)
        if row.arm:  # a new connection gets an RST: there have to be new ones
            self.rig.path.sever()

    def heal(self) -> None:
        """Its toxics off, and nothing else."""
        row = schedules.ROWS[self.kind]
        for toxic in row.toxics:
            self.control.remove(self.proxy, toxic)
        if row.disable:
            self.control.enable(self.proxy, True)


@dataclass(slots=True)
class Whole:
    """The schedule as one fault, for the ledger: whatever of it is in force, this undoes it."""

    schedule: Schedule
    rig: Rig
    id: str = field(init=False)
    title: str = "faults that overlap"
    active: dict[Step, Overlay | Fault] = field(default_factory=dict)  # the steps that are in force

    def __post_init__(self) -> None:
        self.id = schedules.spelt(self.schedule)

    def undo(self) -> tuple[Restore, ...]:
        """The proxy as it is now, without any toxic of any step. What is done to the server ends with the server, which is ours."""
        toxics = [toxic for step in self.schedule if step.kind in schedules.ROWS for toxic in schedules.ROWS[step.kind].toxics]
        return (self.rig.control.undo(self.rig.path.name, toxics),)

    def heal(self) -> None:
        """Whatever is still in force, what began last first; then no toxic is left on the path."""
        for one in reversed(self.active.values()):
            one.heal()
        self.active.clear()
        self.rig.control.clean(self.rig.path.name)


def fault(rig: Rig, step: Step) -> Overlay | Fault:
    """What carries out a step."""
    postgres = rig.environment.postgres
    if step.kind in schedules.ROWS:
        return Overlay(step.kind, rig.control, rig.path.name, rig)
    if step.kind == "slots":
        direct = rig.conninfo_at(postgres.port)  # whether a slot is free is not to be asked through what else is broken
        return Slots(postgres, direct, direct, time.sleep)
    if step.kind == "tls-off":
        return TlsOff(postgres, rig.conninfo)
    if step.kind == "certificate":
        return served(rig, "untrusted-ca", "certificate", "another certificate")
    return Restart(postgres, {"restart": "fast", "crash": "immediate"}[step.kind], rig.conninfo)


def run(rig: Rig, case: Case, recording: Recording) -> History:
    """Traffic, the schedule, recovery, and the writes looked up again."""
    schedule = schedules.of(case.what, rig.seed)
    recording.facts["schedule"] = schedules.spelt(schedule)
    for step in schedule:
        hidden = rig.hides(f"network.{step.kind}.pooled") if step.kind in schedules.ROWS else ""
        if hidden:
            recording.facts["absent"] = hidden
            return recording.history()
    return under_traffic(rig, recording, lambda: _carry_out(rig, recording, schedule))


def _carry_out(rig: Rig, recording: Recording, schedule: Schedule) -> None:
    """Each step at its time, healed in any case; the window says what was seen of them."""
    probes, whole = _Probes(rig.conninfo), Whole(schedule, rig)
    begun = now()
    with broken(rig, recording, whole):
        for at, step, begins in _events(schedule):
            time.sleep(max(0.0, begun + at - now()))
            rig.check_parts()
            if begins:
                whole.active[step] = fault(rig, step)
                whole.active[step].inject()
                probes.begin(str(step))
            else:
                whole.active[step].heal()
                del whole.active[step]
    # Not before it is healed: the last of the probes may still wait, and recovery counts from the heal.
    recording.windows[-1] = replace(recording.windows[-1], effect=probes.effect())


def _events(schedule: Schedule) -> list[tuple[float, Step, bool]]:
    """(when, step, whether it begins), in order; of what is due at the same moment, ends come first."""
    begins = [(step.start, step, True) for step in schedule]
    ends = [(step.end, step, False) for step in schedule]
    return sorted([*begins, *ends], key=lambda one: (one[0], one[2]))


class _Probes:
    """Sessions of our own through the path, each in a thread that nobody waits for long."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._threads: dict[str, threading.Thread] = {}
        self._seen: dict[str, str] = {}
        self._took: set[str] = set()

    def begin(self, step: str) -> None:
        """One more session, for a step that has just begun."""

        def look() -> None:
            seen = connect(self._conninfo)
            self._seen[step] = str(seen)
            if seen.how != "answer" or seen.seconds >= SLOWED:
                self._took.add(step)

        self._threads[step] = threading.Thread(target=look, name="probe", daemon=True)
        self._threads[step].start()

    def effect(self) -> Effect:
        """What each saw; one that still waits has seen silence."""
        end = time.monotonic() + PROBED
        for step, thread in self._threads.items():
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                self._took.add(step)
        seen = "; ".join(f"{step}: {self._seen.get(step, 'silence')}" for step in self._threads)
        took = bool(self._threads) and self._took >= self._threads.keys()
        return Effect(took=took, seen=f"sessions of our own saw {seen}", count=len(self._took))
