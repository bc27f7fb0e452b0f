"""What a target says of itself, as experiments: its log and its metrics, with nothing broken and under a fault."""

from __future__ import annotations

from chaos.cases.case import Case

OBSERVED: tuple[Case, ...] = (
    Case(
        id="logs",
        family="logs",
        title="what the log says of requests that can be found again",
        gates=("sec.logs", "sec.audit_log"),
        needs=("logs", "read"),
        injects=False,
    ),
    Case(
        id="logs.fault",
        family="logs-fault",
        title="what the log says while the database shows a bad certificate",
        gates=("sec.logs",),
        what="untrusted-ca",
        needs=("logs", "read"),
        nightly=True,
    ),
    Case(
        id="metrics",
        family="metrics",
        title="what the metrics say of good, wrong and refused requests",
        gates=("rep.dashboards",),
        needs=("metrics", "read"),
        injects=False,
    ),
    Case(
        id="metrics.tls",
        family="metrics-tls",
        title="what the metrics say while the database shows a bad certificate",
        gates=("rep.dashboards",),
        what="untrusted-ca",
        needs=("metrics", "read"),
        nightly=True,
    ),
    Case(
        id="metrics.pool",
        family="metrics-pool",
        title="what the metrics say while the pool is held",
        gates=("rep.dashboards",),
        needs=("metrics", "read"),
        nightly=True,
    ),
)
