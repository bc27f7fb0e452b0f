"""Outage after outage of one kind, each of a length and at a phase that the seed draws: recovery as a distribution."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from chaos.experiment.core import await_recovery, broken, looked_up, serving
from chaos.experiment.faults import served
from chaos.faults.database import Slots, TlsOff
from chaos.faults.network import NETWORK, SLOW, NetworkInjector
from chaos.model import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.faults import Fault
    from chaos.model import History
    from chaos.rig import Rig

TIMES = 15  # outages a case; four cases of a kind are 60, and 59 without a miss prove 95 % at 95 % confidence
LENGTH = (0.2, 2.5)  # s, beside what it takes to see that it is there
PHASE = (0.0, 0.5)  # s between recovery and the next outage
DROPS = ("refused", "blackhole", "cut", "latency", "slicer", "bandwidth")


def _drop(rig: Rig, rng: random.Random) -> Fault:
    row = rng.choice([row for row in NETWORK if row.id in DROPS and not rig.hides(f"network.{row.id}.pooled")])
    return NetworkInjector(row, rng.choice(("pooled", "new")), rig.control, rig.path.name, rig.prober, rig.path.sever)


def _tls(rig: Rig, rng: random.Random) -> Fault:
    name = rng.choice(("expired", "untrusted-ca", "wrong-host", "off"))
    if name == "off":
        return TlsOff(rig.environment.postgres, rig.conninfo)
    return served(rig, name, f"tls.{name}", f"PostgreSQL serves a bad certificate: {name}")


def _pool(rig: Rig, rng: random.Random) -> Fault:
    postgres = rig.environment.postgres
    if rng.random() < 0.5:
        return Slots(postgres, rig.conninfo_at(postgres.port), rig.conninfo, time.sleep)
    return NetworkInjector(SLOW, "pooled", rig.control, rig.path.name, rig.prober, rig.path.sever)


DRAWN: Mapping[str, Callable[[Rig, random.Random], Fault]] = {"network": _drop, "tls": _tls, "pool": _pool}


def run(rig: Rig, case: Case, recording: Recording) -> History:
    """`TIMES` outages under traffic, each given the time to recover from; the first that it does not recover from is the last."""
    rng = random.Random(f"{rig.seed}/{case.id}")  # noqa: S311  (to be repeatable is the point)
    rig.driver.begin_clients(rig.live)
    healed = recording.started
    try:
        for _ in range(TIMES):
            time.sleep(rng.uniform(*PHASE))
            healed = _outage(rig, recording, DRAWN[case.what](rig, rng), rng.uniform(*LENGTH))
            await_recovery(rig, healed)
            if rig.target.exited() or not serving(rig, healed):
                break
    finally:
        rig.driver.end_clients()
    return looked_up(rig, recording, healed)


def _outage(rig: Rig, recording: Recording, fault: Fault, seconds: float) -> float:
    """Inject, see that it is there, hold, heal; returns when it had gone."""
    with broken(rig, recording, fault) as seen:
        fault.inject()
        seen.effect = fault.confirm()
        end = now() + seconds
        while now() < end and not rig.target.exited():
            rig.check_parts()
            time.sleep(min(0.05, max(0.0, end - now())))
    return recording.windows[-1].healed
