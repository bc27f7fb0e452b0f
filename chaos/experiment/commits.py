"""Writes whose COMMIT was done and whose answer was cut off: what the target makes of an outcome that it never saw."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from chaos.experiment.core import look_up_writes, note_exit
from chaos.experiment.impostors import CUT
from chaos.faults.wire import Fuse, Impostor, Relay
from chaos.model import Effect, History, Kind, Window, now
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig
    from chaos.traffic.requests import Sample

EACH = 1.5  # s for one write and the way back, on average: a target that needs more is given less of them
BETWEEN = 0.05  # s between two writes
LATER = 2.5  # s in which what is sent again by an outbox or its like has been sent again


def commit_cut(rig: Rig, case: Case, recording: Recording) -> History:
    """Write after write, each cut once after its COMMIT, until there were as many as the case asks for, or its time is over."""
    writes = [one for one in rig.driver.samples[Kind.WRITE] if getattr(one.request, "read_back", None)]
    if not writes:
        recording.facts["absent"] = (
            "no [[target.write]] has a read_back: nobody could see whether a write is there, and how often"
        )
        return recording.history()
    wanted, fuse, wire = int(case.what), Fuse(), rig.path.wire
    injected = now()
    try:
        wire.behave(Impostor(rig.identity("valid"), "relay", label=case.id, fuse=fuse))
        wire.sever()
        sick = rig.steady()
        if not sick:
            recording.started = now()
            _write(rig, writes, fuse, wanted)
    finally:
        wire.behave(Relay())
        wire.sever()
        healed = now()
        rig.posed.append((injected, healed + CUT))
    if sick:
        return recording.history(control=f"it does not work through a man in the middle that has the right certificate: {sick}")
    effect = Effect(took=fuse.blown > 0, seen=f"{fuse.blown} answers were cut right after COMMIT", count=fuse.blown)
    recording.windows.append(Window(fault="commit-cut", scope="", injected=injected, healed=healed, effect=effect))
    recording.facts["hits"] = str(fuse.blown)
    note_exit(rig, recording)
    if not recording.exited and not rig.steady():
        time.sleep(LATER)
        look_up_writes(rig, recording.started, retried=wanted)
    return recording.history()


def _write(rig: Rig, writes: list[Sample], fuse: Fuse, wanted: int) -> None:
    end = now() + wanted * EACH
    for sample in itertools.cycle(writes):
        if fuse.blown >= wanted or now() > end or rig.target.exited():
            return
        fuse.armed = True
        done = rig.driver.once(sample)
        fuse.armed = False
        rig.check_parts()
        if not done.ok:
            wait_for(lambda: _reads(rig) or bool(rig.target.exited()), rig.config.target.database.recovery, every=BETWEEN)
        time.sleep(BETWEEN)


def _reads(rig: Rig) -> bool:
    return rig.driver.once(rig.driver.samples[Kind.READ][0]).ok
