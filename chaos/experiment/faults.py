"""Faults between the target and its database, and at the database, under traffic. One runner a family."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from chaos.checks.recovery import WORKING
from chaos.experiment import remote
from chaos.experiment.core import Plan, under_fault
from chaos.faults.database import Locks, Restart, ServerCertificate, Slots, TlsOff
from chaos.faults.network import NETWORK, SLOW, NetworkInjector
from chaos.model import History, now

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig


def network(rig: Rig, case: Case, recording: Recording) -> History:
    """A row of NETWORK (or SLOW) on the path to the database."""
    rows = {fault.id: fault for fault in (*NETWORK, SLOW)}
    if not rig.ours and (elsewhere := remote.behind(rig)):
        return recording.history(control=elsewhere)
    row = rows[case.what or case.family]
    sever = rig.path.sever
    if not rig.ours and row.disable:  # a proxy that is disabled has cut all connections already
        sever = remote.nothing
    injector = NetworkInjector(row, case.scope, rig.control, rig.path.name, rig.prober, sever)
    entry = rig.ledger.begin(injector)
    if sick := arm(rig, injector, entry):
        return recording.history(control=sick)
    if injector.armed:
        recording.started = now()
    met = rig.ours and case.scope == "new" and not injector.fault.disable
    history = under_fault(rig, recording, Plan(injector, met=met, entry=entry))
    return history if rig.ours else remote.judged_by_traffic(history)


class Armed(Protocol):
    """A fault of which something has to be in place before the connections that it strikes are opened."""

    def arm(self) -> bool:
        """Put it there; True when the target has to open its connections anew for it."""

    def heal(self) -> None:
        """Take it away."""


def arm(rig: Rig, injector: Armed, entry: str) -> str:
    """Put in place what has to be there before; '' when the target is well with it, else what is wrong, and all is undone."""
    sick = "armed for nothing"
    try:
        sick = rig.steady() if injector.arm() else ""
    finally:
        if sick:
            injector.heal()
            rig.ledger.healed(entry)
    return sick


def certificate(rig: Rig, case: Case, recording: Recording) -> History:
    """PostgreSQL itself serves a certificate of the zoo, and later the right one again."""
    return under_fault(rig, recording, Plan(served(rig, case.what, case.id, case.title), met=True))


def served(rig: Rig, entry: str, name: str, title: str) -> ServerCertificate:
    """The fault that PostgreSQL serves an entry of the zoo."""
    bad, good = rig.identity(entry), rig.identity("valid")
    return ServerCertificate(
        id=name,
        title=title,
        server=rig.environment.postgres,
        chain_file=bad.chain_file,
        key_file=bad.key_file,
        good_chain=good.chain_file,
        good_key=good.key_file,
        probe_conninfo=rig.conninfo,
    )


def tls_off(rig: Rig, case: Case, recording: Recording) -> History:
    """PostgreSQL itself offers no TLS (R7)."""
    del case
    return under_fault(rig, recording, Plan(TlsOff(rig.environment.postgres, rig.conninfo), met=True))


def restart(rig: Rig, case: Case, recording: Recording) -> History:
    """PostgreSQL is stopped and started, 'fast' or 'immediate' as the case says."""
    return under_fault(rig, recording, Plan(Restart(rig.environment.postgres, case.what, rig.conninfo)))


def locks(rig: Rig, case: Case, recording: Recording) -> History:
    """The target's pool is held by queries that wait for a lock."""
    del case
    fault = Locks(rig.environment.postgres, rig.driver.add_reader, time.sleep)
    history = under_fault(rig, recording, Plan(fault))
    window = history.windows[0]
    during = [one for one in history.operations if one.kind in WORKING and window.injected <= one.started < window.healed]
    if fault.locked >= 0 and not window.effect.took and during and all(one.ok for one in during):
        recording.facts["absent"] = (
            f"all {fault.locked} tables were locked, and all {len(during)} requests were answered well: they use none of them"
        )
    return history


def slots(rig: Rig, case: Case, recording: Recording) -> History:
    """The server's max_connections is reached by sessions of our own."""
    del case
    fault = Slots(rig.environment.postgres, rig.conninfo_at(rig.environment.postgres.port), rig.conninfo, time.sleep)
    return under_fault(rig, recording, Plan(fault))
