"""An instance that starts while its database is not ready: recovering (57P03), or slow to reach."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.environments.local.postgres import Postgres
from chaos.experiment.life import ELSEWHERE
from chaos.faults.life import LongRecovery
from chaos.faults.network import NETWORK, NetworkInjector, SessionProber
from chaos.model import Effect, History, Kind, Window, now
from chaos.traffic.driver import wait_for
from chaos.traffic.requests import send

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.faults import Fault
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

HELD = 3.0  # s that the database is not ready after the instance was started


def starting(rig: Rig, case: Case, recording: Recording) -> History:
    """A second instance on the twin path; one that ends is started again when the database is there, as a supervisor does."""
    recording.path = rig.start_path
    fault = _fault(rig, case.what)
    if fault is None:
        recording.facts["absent"] = ELSEWHERE
        return recording.history()
    target = rig.config.target
    within = max(target.startup_timeout, target.database.recovery)
    recording.facts["within"] = f"{within:g}"
    instance = rig.second_instance(case.id.replace(".", "-"))
    entry, injected, effect = rig.ledger.begin(fault), now(), Effect(took=False, seen="never confirmed")
    ended = ""
    try:
        fault.inject()
        effect = fault.confirm()
        instance.start()
        wait_for(lambda: bool(instance.exited()), HELD)
    finally:
        ended = instance.exited()
        fault.heal()
        rig.ledger.healed(entry)
        healed = now()
        rig.broken.append((injected, healed))
        recording.windows.append(Window(fault=case.id, scope="start", injected=injected, healed=healed, effect=effect))
    try:
        ended = ended or _late(instance)
        if ended:
            instance.stop()
            instance.start()
        first = _first(rig, instance, within)
        recording.facts |= {"ended": ended, "served": "" if first is None else f"{first - healed:.2f}"}
        logs = instance.log_tail(12)
    finally:
        instance.stop()
    return replace(recording.history(), operations=(), logs=logs if ended or first is None else ())


def _late(instance: CommandTarget) -> str:
    """How it ended a moment after the database was back: what failed before is told then."""
    wait_for(lambda: bool(instance.exited()), 0.5)
    return instance.exited()


def _fault(rig: Rig, what: str) -> Fault | None:
    postgres, path = rig.environment.postgres, rig.start_path
    if what == "slow":
        row = next(fault for fault in NETWORK if fault.id == "latency")
        prober = SessionProber(rig.conninfo_at(path.port), path.port)
        return NetworkInjector(row, "pooled", rig.control, path.name, prober, path.sever)
    return LongRecovery(postgres, rig.conninfo) if isinstance(postgres, Postgres) else None


def _first(rig: Rig, instance: CommandTarget, within: float) -> float | None:
    """When a read was first answered well; None: not in time, or it ended."""
    session = replace(rig.driver.session, base_url=instance.base_url)
    sample = rig.driver.samples[Kind.READ][0]
    answered: list[float] = []

    def served() -> bool:
        done = rig.driver.call(send(session, sample, deadline=rig.driver.deadline, stall=rig.driver.stalls.between))
        if done.ok:
            answered.append(done.finished)
        return bool(answered) or bool(instance.exited())

    wait_for(served, within, every=0.1)
    return answered[0] if answered else None
