"""The one place that composes an experiment: steady state, inject, took effect?, heal, recovered?, and the history of it all.

A runner a family, chosen by `Case.family`. Each returns a `History` and judges nothing; `chaos.checks.judge` does that, from the
history alone. Whatever happens inside, the fault is healed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from chaos.experiment import (
    backoff,
    commits,
    contract,
    corpus,
    crossings,
    delta,
    documents,
    edge,
    faults,
    impostors,
    life,
    logs,
    metrics,
    pentest,
    pools,
    quiet,
    recoveries,
    replicas,
    restore,
    safeguards,
    schedules,
    shadow,
    stalls,
    starts,
)
from chaos.experiment.core import Recording, Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.cases import Case
    from chaos.model import History
    from chaos.rig import Rig

RUNNERS: Mapping[str, Runner] = {
    "network": faults.network,
    "slow": faults.network,
    "certificate": faults.certificate,
    "tls-off": faults.tls_off,
    "backoff": backoff.backoff,
    "stale": pools.stale,
    "leak": pools.leak,
    "final": backoff.final,
    "replicas": replicas.replicas,
    "commit-cut": commits.commit_cut,
    "locks": faults.locks,
    "slots": faults.slots,
    "restart": faults.restart,
    "life": life.run,
    "cross": crossings.cross,
    "flapping": crossings.flapping,
    "replica": crossings.replica,
    "starting": starts.starting,
    "bouncer": life.bouncer,
    "schedule": schedules.run,
    "recovery": recoveries.run,
    "restore": restore.run,
    "reconnect": impostors.reconnect,
    "start": impostors.start,
    "stall": stalls.stall,
    "cancel": stalls.cancel,
    "steady": quiet.steady,
    "hosts": quiet.hosts,
    "pentest": pentest.run,
    "edge": edge.edge,
    "server": quiet.server,
    "injection": quiet.injection,
    "contract": contract.contract,
    "shadow": shadow.shadow,
    "delta": delta.delta,
    "documents": documents.documents,
    "corpus-steady": corpus.steady,
    "corpus-candidate": corpus.candidate,
    **dict.fromkeys(("corpus-sample", "corpus-fault"), corpus.fault),
    "logs": logs.logs,
    "logs-fault": logs.logs_fault,
    "metrics": metrics.metrics,
    "metrics-tls": metrics.metrics_tls,
    "metrics-pool": metrics.metrics_pool,
    "safeguards": safeguards.run,
}

# Families whose faults write themselves down, each when it is injected. All others do so here, as a whole.
WRITTEN = {
    "network",
    "slow",
    "certificate",
    "tls-off",
    "locks",
    "slots",
    "restart",
    "stall",
    "cancel",
    "schedule",
    "recovery",
    "restore",
    *("life", "cross", "flapping", "replica", "starting", "bouncer"),
    "corpus-sample",
    "corpus-fault",
    *("logs-fault", "metrics-tls", "metrics-pool"),
}


def run(rig: Rig, case: Case, more: Mapping[str, Runner] | None = None) -> History:
    """Run one case on a rig and return what was recorded. `more` are runners of families that are composed above (roll-out)."""
    recording = Recording(rig, case)
    sick = rig.healthy_or_restarted()
    if sick:
        return recording.history(control=sick)
    recording.facts |= {f"once.{key}": str(count) for key, count in rig.once.items()}
    runner = {**RUNNERS, **(more or {})}[case.family]
    with rig.ledger.during(case) if case.injects and case.family not in WRITTEN else contextlib.nullcontext():
        return runner(rig, case, recording)


__all__ = ["RUNNERS", "Recording", "Runner", "run"]
