"""OpenSLO v1 objects: `chaos-gate export openslo`. https://github.com/OpenSLO/OpenSLO (README, Specification).

OpenSLO has no word for how sure an SLO is: a target is met or not, with however few requests. A gate asks for a bound
(docs/evidence.md), so an SLO that is met is no gate that passed; the file says so in its header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.errors import UsageError
from chaos.export import queries as ask
from chaos.export.policy import BURNS, as_yaml, number
from chaos.export.signals import Matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.export.policy import Policy
    from chaos.export.signals import Signals

API = "openslo/v1"
WINDOW = "5m"
MOST = 1050  # characters of a description
CONFIDENCE = (
    "OpenSLO cannot express confidence: an SLO is met with however few requests. A gate of chaos-gate passes only when the",
    "one-sided 95 % bound of what was counted is below its limit. Read an SLO that is met as 'not violated', and never as a pass.",
)
NO_METRICS = UsageError(
    "not applicable: no [target.metrics]",
    remedy='say in chaos.toml where the target serves them: [target.metrics] path = "/metrics"',
    where="export openslo",
)


def objects(policy: Policy) -> str:
    """Service, DataSource, SLIs, SLOs, alert policies and whom they tell. UsageError without [target.metrics]."""
    if policy.metrics is None:
        raise NO_METRICS
    slos = list(_slos(policy))
    notes = [*CONFIDENCE, *_left_out(policy, {one[0] for one in slos})]
    documents = [
        _object("Service", policy.slug, {"description": f"{policy.target}, judged by chaos-gate"[:MOST]}),
        _object(
            "DataSource",
            "prometheus",
            {"type": "Prometheus", "connectionDetails": {"url": "http://prometheus.example.test:9090"}},
        ),
        *(_target(severity) for severity in ("critical", "warning")),
        *(_alert_policy(*burn) for burn in BURNS),
        *(one for gate, bad, whole in slos for one in _slo(policy, gate, bad, whole)),
    ]
    return policy.header("OpenSLO v1 objects", "openslo", notes) + as_yaml(*documents)


def _object(kind: str, name: str, spec: dict[str, Any], shown: str = "") -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": name, **({"displayName": shown} if shown else {})},
        "spec": spec,
    }


def _slos(policy: Policy) -> Iterator[tuple[str, str, str]]:
    """(gate, bad events a second, all events a second) of each gate that is a share of something counted."""
    some = policy.metrics
    assert some is not None
    rows = (
        ("rel.availability", ask.bad(some, WINDOW), ask.total(some, WINDOW)),
        ("rel.p95", _slower(policy, some, "rel.p95"), _timed(some)),
        ("rel.p99", _slower(policy, some, "rel.p99"), _timed(some)),
        ("sec.tls_handshake", ask.tls_failures(some, WINDOW), _attempts(some)),
    )
    for gate, bad, whole in rows:
        if bad and whole and 0 < policy.gates[gate].limit < 1:
            yield gate, bad, whole


def _timed(some: Signals) -> str | None:
    latency = some["latency"]
    return f"sum({latency.ranged('rate', WINDOW, suffix='_count')})" if latency and not latency.quantiles else None


def _slower(policy: Policy, some: Signals, gate: str) -> str | None:
    """Requests above the limit: all, less those in the bucket that ends there."""
    latency, whole = some["latency"], _timed(some)
    if latency is None or whole is None:
        return None
    edge = Matcher(label="le", value=number(policy.gates[gate].seconds * latency.unit))
    return f"{whole} - sum(rate({latency.select(edge, suffix='_bucket')}[{WINDOW}]))"


def _attempts(some: Signals) -> str | None:
    attempts = some["attempts"]
    return f"sum({attempts.ranged('rate', WINDOW)})" if attempts else None


def _left_out(policy: Policy, made: set[str]) -> Iterator[str]:
    for gate in ("rel.availability", "rel.p95", "rel.p99", "sec.tls_handshake"):
        if gate not in made:
            limit = policy.gates[gate].limit
            why = "its limit leaves no budget, and a target is below 1" if limit <= 0 else "the target has no metric for it"
            yield f"not expressed: {gate}: {why}"
    yield "not expressed: rel.error_schema, for no metric tells it; and gates that are demonstrated, not counted"


def _metric(query: str) -> dict[str, Any]:
    return {"metricSource": {"metricSourceRef": "prometheus", "type": "Prometheus", "spec": {"query": query}}}


def _slo(policy: Policy, key: str, bad: str, whole: str) -> Iterator[dict[str, Any]]:
    gate = policy.gates[key]
    name = f"{policy.slug}-{key.replace('.', '-').replace('_', '-')}"
    needs = f" The histogram needs a bucket that ends at {number(gate.seconds)} s." if gate.seconds else ""
    ratio = {"counter": False, "bad": _metric(bad), "total": _metric(whole)}
    yield _object("SLI", name, {"description": f"{key}: {gate.title}.{needs}"[:MOST], "ratioMetric": ratio})
    policies = [{"alertPolicyRef": _policy_name(rate)} for rate, *_ in BURNS]
    yield _object(
        "SLO",
        name,
        {
            "description": f"{key}: {gate.title}, {gate.threshold}. No confidence can be expressed: see the head of the file."[
                :MOST
            ],
            "service": policy.slug,
            "indicatorRef": name,
            "timeWindow": [{"duration": "30d", "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": gate.threshold, "target": float(number(1 - gate.limit))}],
            **({"alertPolicies": policies} if key == "rel.availability" else {}),
        },
    )


def _policy_name(rate: float) -> str:
    return f"burn-{number(rate).replace('.', '-')}"


def _alert_policy(rate: float, long: str, short: str, severity: str) -> dict[str, Any]:
    condition = _object(
        "AlertCondition",
        _policy_name(rate),
        {
            "severity": severity,
            "condition": {"kind": "burnrate", "op": "gte", "threshold": rate, "lookbackWindow": long, "alertAfter": short},
        },
    )
    spec = {
        "description": f"The error budget burns {number(rate)} times too fast (The Site Reliability Workbook, chapter 5).",
        "alertWhenNoData": True,
        "alertWhenResolved": True,
        "alertWhenBreaching": True,
        "conditions": [{key: condition[key] for key in ("kind", "metadata", "spec")}],
        "notificationTargets": [{"targetRef": severity}],
    }
    return _object("AlertPolicy", _policy_name(rate), spec)


def _target(severity: str) -> dict[str, Any]:
    return _object(
        "AlertNotificationTarget", severity, {"target": "alertmanager", "description": f"the route of {severity} alerts"}
    )
