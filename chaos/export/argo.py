"""Argo Rollouts: 5 % -> 25 % -> 50 % -> 100 %, held by our verdict and by the thresholds of roll.pause: `chaos-gate export argo`.

https://argo-rollouts.readthedocs.io/en/stable/features/analysis/. A measurement that meets neither condition is inconclusive there, and
pauses the roll-out: that is what our INCONCLUSIVE, and a metric without data, have to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.checks.deciding import ERRORS, HANDSHAKES, HOSTS, LATENCY
from chaos.errors import UsageError
from chaos.export import queries as ask
from chaos.export.policy import as_yaml, number
from chaos.export.signals import Matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.export.policy import Policy
    from chaos.export.signals import Signals

WEIGHTS = (5, 25, 50)  # and then 100
STAY = "8h"  # at each: 24 hours in all
API = "argoproj.io/v1alpha1"
# Kubernetes' pod label rollouts-pod-template-hash, as Prometheus' usual relabelling names it.
HASH = "rollouts_pod_template_hash"
FEW = 0.01  # of a canary's requests that may have an unknown Host on top of what the stable pods see


def rollout(policy: Policy) -> str:
    """Two AnalysisTemplates and a Rollout that uses them; without [target.metrics] the verdict alone holds it."""
    if "{{" in policy.job:
        raise UsageError(
            f"Argo reads {policy.job!r} as an argument of its own", remedy="name the job: --job NAME", where="export argo"
        )
    measured = list(_measurements(policy))
    documents = [_verdict(policy), *([_pause(policy, measured)] if measured else []), _steps(policy, paused=bool(measured))]
    notes = [
        "Replace prometheus-url and evidence-url (an evidence.json, or /status.json of a soak).",
        "Without a traffic router 5 % takes 20 replicas.",
        f"Prometheus has to keep the pods' label as {HASH}.",
        *(["not applicable: no [target.metrics]; nothing but the verdict holds this roll-out"] if policy.metrics is None else []),
    ]
    return policy.header("Argo Rollouts: analysis and steps", "argo", notes) + as_yaml(*documents)


def _template(name: str, args: list[dict[str, str]], metrics: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": API,
        "kind": "AnalysisTemplate",
        "metadata": {"name": name},
        "spec": {"args": args, "metrics": metrics},
    }


def _verdict(policy: Policy) -> dict[str, Any]:
    """GO goes on, NO-GO ends it; CLEAR and INCONCLUSIVE wait for a person."""
    web = {"url": "{{args.evidence-url}}", "timeoutSeconds": 20, "jsonPath": "{$.verdict}"}
    metric = {
        "name": "verdict",
        "count": 1,
        "failureLimit": 0,
        "inconclusiveLimit": 0,
        "successCondition": 'result == "GO"',
        "failureCondition": 'result == "NO-GO"',
        "provider": {"web": web},
    }
    return _template(f"chaos-gate-{policy.slug}-verdict", [{"name": "evidence-url"}], [metric])


def _pause(policy: Policy, measured: list[tuple[str, str, float]]) -> dict[str, Any]:
    metrics = [
        {
            "name": name,
            "interval": "1m",
            "initialDelay": "5m",  # rates of five minutes need them
            "failureLimit": 2,
            "inconclusiveLimit": 5,
            "successCondition": f"len(result) > 0 && result[0] <= {number(limit)}",
            "failureCondition": f"len(result) > 0 && result[0] > {number(limit)}",
            "provider": {"prometheus": {"address": "{{args.prometheus-url}}", "query": query}},
        }
        for name, query, limit in measured
    ]
    args = [{"name": "prometheus-url"}, {"name": "canary-hash"}, {"name": "stable-hash"}]
    return _template(f"chaos-gate-{policy.slug}-pause", args, metrics)


def _measurements(policy: Policy) -> Iterator[tuple[str, str, float]]:
    """(name, query, the most that it may be) for each condition of roll.pause that the target has a metric for."""
    if policy.metrics is None:
        return
    canary, stable = (_pods(policy.metrics, f"{{{{args.{name}-hash}}}}") for name in ("canary", "stable"))
    new, old = ask.quantile(canary, 0.95, "5m"), ask.quantile(stable, 0.95, "5m")
    if new and old:
        yield "p95-to-baseline", f"({new}) / ({old})", LATENCY
    if ratio := ask.error_ratio(canary, "5m"):
        yield "errors-5xx", ratio, ERRORS
    refused, usual = (_refused(one, window) for one, window in ((canary, "5m"), (stable, "1h")))
    if refused and usual:
        yield "unknown-hosts", f"({refused}) - {HOSTS:g} * ({usual})", FEW
    if failed := ask.tls_ratio(canary, "5m"):
        yield "database-tls-failures", failed, HANDSHAKES


def _refused(some: Signals, window: str) -> str | None:
    """The share of requests that were refused for their Host: a canary sees fewer requests than the stable pods."""
    count, whole = some["unknown_host"], ask.total(some, window)
    return f"(sum({count.ranged('rate', window)}) or vector(0)) / {whole}" if count and whole else None


def _pods(some: Signals, template_hash: str) -> Signals:
    """The same metrics of these pods only."""
    return some.narrowed(Matcher(label=HASH, value=template_hash))


def _steps(policy: Policy, *, paused: bool) -> dict[str, Any]:
    name = f"chaos-gate-{policy.slug}"
    pods = [
        {"name": f"{what}-hash", "valueFrom": {"podTemplateHashValue": value}}
        for what, value in (("canary", "Latest"), ("stable", "Stable"))
    ]
    verdict = {
        "templates": [{"templateName": f"{name}-verdict"}],
        "args": [{"name": "evidence-url", "value": f"https://evidence.example.test/{policy.slug}/evidence.json"}],
    }
    steps: list[dict[str, Any]] = [{"analysis": verdict}]
    for weight in WEIGHTS:
        steps += [{"setWeight": weight}, {"pause": {"duration": STAY}}]
    steps.append({"setWeight": 100})
    background = {
        "templates": [{"templateName": f"{name}-pause"}],
        "startingStep": 2,
        "args": [{"name": "prometheus-url", "value": "http://prometheus.example.test:9090"}, *pods],
    }
    canary = {**({"analysis": background} if paused else {}), "steps": steps}
    return {
        "apiVersion": API,
        "kind": "Rollout",
        "metadata": {"name": policy.slug},
        "spec": {
            "replicas": 20,
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": policy.slug},
            "strategy": {"canary": canary},
        },
    }
