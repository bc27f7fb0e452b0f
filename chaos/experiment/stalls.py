"""A server that falls silent in the middle of a connection's start (P8), and queries that have to be cancelled (P16), under traffic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chaos.experiment.core import Plan, under_fault
from chaos.experiment.impostors import masquerade
from chaos.faults.database import Locks
from chaos.faults.wire.rows import BY_ID
from chaos.model import Effect, History, now

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.experiment.impostors import Masquerade
    from chaos.rig import Rig


class _Silence:
    """A masquerade as a fault under traffic: it has taken effect when a connection of the target's waits in it."""

    def __init__(self, fault: Masquerade, case: Case) -> None:
        self.id, self.title, self._fault = case.id, case.title, fault

    def inject(self) -> None:
        self._fault.inject()

    def confirm(self) -> Effect:
        end = now() + CONNECTS
        while not self._fault.met() and now() < end:
            time.sleep(0.02)
        return self._fault.confirm()

    def heal(self) -> None:
        self._fault.heal()


CONNECTS = 3.0  # s for the target to come back after its connections were cut; later attempts are seen as well


def stall(rig: Rig, case: Case, recording: Recording) -> History:
    """Every connection that comes is accepted, and kept waiting at one place; after a while they are cut, and the server is back."""
    fault = masquerade(rig, case, recording, rig.path)
    if fault is None:
        return recording.history()
    return under_fault(rig, recording, Plan(_Silence(fault, case), met=True))


def cancel(rig: Rig, case: Case, recording: Recording) -> History:
    """All tables are locked: whoever bounds a query by cancelling it does so now, on a connection of its own."""
    row = BY_ID[case.what]
    recording.facts |= {"row": row.id, "must": row.must, "why": row.why, "severity": row.severity, "presented": row.title}
    return under_fault(rig, recording, Plan(Locks(rig.environment.postgres, rig.driver.add_reader, time.sleep)))
