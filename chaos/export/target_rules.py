"""The alerts on the target's own metrics: error budget, latency, hosts, the database's TLS, pool and retries, crawlers, and silence.

Thresholds are those of gates.toml and [gates]. A role without a metric has no rule, and the file says which and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.export import queries as ask
from chaos.export.policy import BURNS, RETRIED, SATURATED, number
from chaos.export.rules import Group, Recording, Rule
from chaos.export.signals import Matcher
from chaos.export.trials import WINDOWS, Trials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.export.policy import Policy
    from chaos.export.signals import Signals

BURST = 10  # unknown hosts in five minutes that are nobody's concern
SOME = 2  # refusals that may be chance where crawlers are few
TIMES = 3  # the learned baseline of them


def target(policy: Policy) -> Group:
    """All of them; without [target.metrics] a group without rules, which says so."""
    if policy.metrics is None:
        return Group(name="chaos-gate.target", rules=(), well={}, notes=("not applicable: no [target.metrics]",))
    some, trials = policy.metrics, Trials(policy)
    made = (
        *_budget(policy, trials),
        *_latency(policy, trials),
        *_hosts(some, trials),
        *_database(policy, trials),
        *_pool(some, trials),
        *_crawlers(policy, trials),
        *_certificate(policy, trials),
        *_silence(policy, trials),
    )
    return Group(
        name="chaos-gate.target",
        labels={"target": policy.target},
        recordings=tuple(_recordings(policy)),
        rules=made,
        well=trials.well,
        notes=tuple(_notes(some)),
    )


def recorded(policy: Policy, name: str) -> str:
    """A recording of this target's; several targets may be recorded side by side."""
    return f"target:{name}{{{Matcher(label='target', value=policy.target)}}}"


def _recordings(policy: Policy) -> Iterator[Recording]:
    some = policy.metrics
    assert some is not None
    rows = [
        *((f"request_errors:ratio_rate{window}", ask.error_ratio(some, window)) for window in WINDOWS),
        ("request_duration_seconds:p95_5m", ask.quantile(some, 0.95, "5m")),
        ("request_duration_seconds:p99_5m", ask.quantile(some, 0.99, "5m")),
        ("unknown_hosts:increase5m", ask.unknown_hosts_born(some, "5m")),
        ("database_tls_failures:ratio_rate5m", ask.tls_ratio(some, "5m")),
        ("database_tls_failures:ratio_rate1h", ask.tls_ratio(some, "1h")),
        ("database_retries:per_request_rate5m", ask.retry_ratio(some, "5m")),
        ("database_pool:saturation", ask.saturation(some)),
        ("seo_crawlers:refused_ratio_rate15m", ask.crawlers_refused(some, "15m")),
    ]
    yield from (Recording(f"target:{name}", expr) for name, expr in rows if expr)


def _notes(some: Signals) -> Iterator[str]:
    for role in some.missing():
        yield f"not watched: {role}, for which the target has no metric ([target.metrics] names)"
    if some["errors_5xx"] is not None and some.requests is None:
        yield "not watched: the error budget, for errors_5xx counts errors only, and nothing counts all requests"
    if some["seo"] is not None and ask.crawlers_refused(some, "5m") is None:
        yield "not watched: crawlers' pass-through, for the metric of seo has no label of the status"
    if some["latency"] is not None and ask.quantile(some, 0.95, "5m") is None:
        yield "not watched: P95, for the metric of latency has neither buckets nor that quantile"
    yield "not watched: rel.error_schema, which no metric tells; the suite checks it (chaos-gate run --only rel.error_schema)"


def _budget(policy: Policy, trials: Trials) -> Iterator[Rule]:
    some = policy.metrics
    assert some is not None
    if some.requests is None or some["errors_5xx"] is None:
        return
    names = ("ErrorBudgetBurnsFast", "ErrorBudgetBurns", "ErrorBudgetBurnsSlowly", "ErrorBudgetWears")
    for name, (rate, long, short, severity) in zip(names, BURNS, strict=True):
        limit = number(rate * policy.budget)
        ratio = [recorded(policy, f"request_errors:ratio_rate{window}") for window in (long, short)]
        yield Rule(
            alert=name,
            expr=f"{ratio[0]} > {limit} and {ratio[1]} > {limit}",
            severity=severity,
            summary=f"{policy.shown}: 5xx burn the error budget {rate:g} times faster than a month allows",
            description=f"{{{{ $value | humanizePercentage }}}} failed in the last {long}, and the last {short} are no better.",
            gate="rel.availability",
            fires=trials.failing(rate * policy.budget * 1.1 + 1e-5),
            # Over again: the long window still says so, the short one does not (in the hour that a test has).
            quiet=(
                *([trials.failing(rate * policy.budget * 0.9)] if policy.budget else []),
                *([trials.failed(until=18)] if short in {"5m", "30m"} else []),
            ),
        )


def _latency(policy: Policy, trials: Trials) -> Iterator[Rule]:
    some = policy.metrics
    assert some is not None
    for q, gate in ((95, policy.gates["rel.p95"]), (99, policy.gates["rel.p99"])):
        if ask.quantile(some, q / 100, "5m") is None:
            continue
        yield Rule(
            alert=f"LatencyP{q}",
            expr=f"{recorded(policy, f'request_duration_seconds:p{q}_5m')} > {number(gate.seconds)}",
            severity="warning",
            summary=f"{policy.shown}: P{q} is above {gate.seconds * 1000:g} ms",
            description="Now {{ $value | humanizeDuration }}, of all requests that the metric counts.",
            gate=gate.id,
            held="10m",
            fires=trials.slow(),
            quiet=(trials.slow(since=55),),
        )


def _hosts(some: Signals, trials: Trials) -> Iterator[Rule]:
    if some["unknown_host"] is None:
        return
    now = recorded(trials.policy, "unknown_hosts:increase5m")
    yield Rule(
        alert="UnknownHostsSpike",
        expr=f"{now} > {BURST} + {TIMES} * (avg_over_time({now}[1d] offset 10m) or {now} * 0)",
        severity="warning",
        summary=f"{trials.policy.shown}: many more requests than usual are refused for their Host",
        description="{{ $value | humanize }} in five minutes. A wrong DNS or CDN change, or somebody who is looking around.",
        gate="sec.unknown_host_400",
        fires=trials.counts("unknown_host", usual=0.01, then=1.0, since=55),
        more=(trials.born("unknown_host", 40, since=57),),
        quiet=(trials.counts("unknown_host", usual=1.0, then=1.0, since=55),),  # as ever
    )


def _database(policy: Policy, trials: Trials) -> Iterator[Rule]:
    some = policy.metrics
    assert some is not None
    limit = policy.gates["sec.tls_handshake"].limit
    if some["tls_errors"] is not None:
        known = ask.tls_ratio(some, "1h") is not None
        failed = [recorded(policy, f"database_tls_failures:ratio_rate{window}") for window in ("1h", "5m")]
        yield Rule(
            alert="DatabaseTlsFails",
            expr=f"{failed[0]} > {number(limit)} and {failed[1]} > {number(limit)}"
            if known
            else f"{ask.tls_failures(some, '5m')} > 0",
            severity="critical",
            summary=f"{policy.shown}: TLS handshakes with the database fail",
            description="A wrong certificate, an ended one, or somebody in between. Do not make clients accept it: rotate by the SOP."
            + (" {{ $value | humanizePercentage }} of connections in the last hour." if known else ""),
            gate="sec.tls_handshake",
            held="5m",
            fires=trials.counts("tls_errors", usual=0.0, then=0.1, since=20),
            quiet=(trials.born("tls_errors", 1, since=30), trials.counts("tls_errors", usual=0.1, then=0.0, since=40)),
            runbook="docs/certificate-rotation-sop.md",
        )
    if ask.retry_ratio(some, "5m") is not None:
        yield Rule(
            alert="DatabaseRetriesSpike",
            expr=f"{recorded(policy, 'database_retries:per_request_rate5m')} > {number(RETRIED)}",
            severity="warning",
            summary=f"{policy.shown}: more than one request in {1 / RETRIED:g} is a retry against the database",
            description="{{ $value | humanizePercentage }}. Retries keep a database down that is about to recover.",
            gate="res.backoff",
            held="5m",
            fires=trials.counts("retries", usual=0.0, then=20.0, since=30),
            quiet=(trials.counts("retries", usual=5.0, then=5.0, since=30),),
        )


def _pool(some: Signals, trials: Trials) -> Iterator[Rule]:
    if ask.saturation(some) is None:
        return
    yield Rule(
        alert="DatabasePoolSaturated",
        expr=f"{recorded(trials.policy, 'database_pool:saturation')} > {number(SATURATED)}",
        severity="warning",
        summary=f"{trials.policy.shown}: the connection pool is nearly used up",
        description="{{ $value | humanizePercentage }} of it is busy in the fullest instance: requests wait for a connection next.",
        gate="res.pool",
        held="5m",
        fires=trials.pool(busy=10),
        quiet=(trials.pool(busy=9),),
    )


def _crawlers(policy: Policy, trials: Trials) -> Iterator[Rule]:
    some = policy.metrics
    assert some is not None
    if ask.crawlers_refused(some, "15m") is None:
        return
    limit = number(BURNS[0][0] * policy.budget)
    share = recorded(policy, "seo_crawlers:refused_ratio_rate15m")
    yield Rule(
        alert="SeoCrawlersRefused",
        expr=f"{share} > {limit} and on () {ask.crawlers_refused_count(some, '15m')} > {SOME}",
        severity="warning",
        summary=f"{policy.shown}: search engines are not served",
        description="{{ $value | humanizePercentage }} were refused for their host, or failed: pages will leave the index.",
        gate="sec.host_allowlist",
        held="10m",
        fires=trials.crawlers(refused=0.5),
        quiet=(trials.crawlers(refused=0.5, since=55), trials.few_crawlers()),
    )


def _certificate(policy: Policy, trials: Trials) -> Iterator[Rule]:
    """Only a name that says 'days' says in what it counts; the exporter's own metric is watched by certificate_rules."""
    one = (policy.metrics or {"certificate_days": None})["certificate_days"]
    if one is None or "days" not in one.name:
        return
    days = policy.gates["sec.cert_expiry"].limit
    yield Rule(
        alert="TargetCertificateExpiresSoon",
        expr=f"{one.select()} <= {days:g}",
        severity="warning",
        summary=f"{policy.shown}: the database's certificate, as the service sees it, ends within {days:g} days",
        description="{{ $value | humanize }} days left. Rotate it by the SOP.",
        gate="sec.cert_expiry",
        fires={trials.name(one): f"{days:g}x120"},
        quiet=({trials.name(one): f"{days + 1:g}x120"},),
        runbook="docs/certificate-rotation-sop.md",
    )


def _silence(policy: Policy, trials: Trials) -> Iterator[Rule]:
    """What is always there when the service is well; a labelled counter of errors is born with the first one, and may be missing."""
    some = policy.metrics
    assert some is not None
    latency, busy = some["latency"], some["pool_busy"]
    watched = {
        "Request": (some.requests.select() if some.requests else "", "requests"),
        "Latency": (latency.select(suffix="" if latency.quantiles else "_bucket") if latency else "", "latency"),
        "Pool": (busy.select() if busy else "", "pool_busy"),
    }
    for what, (selector, role) in watched.items():
        if selector:
            yield Rule(
                alert=f"{what}MetricsGone",
                expr=f"absent({selector})",
                severity="critical",
                summary=f"{policy.shown}: no metric of {role} any more, or under another name or job",
                description="No alert on it can fire. If it never was there: `export --job`, or [target.metrics] names.",
                gate="rep.dashboards",
                held="5m",
                fires=trials.gone(role),
                quiet=(trials.gone(role, since=57),),
                alone=role == "requests",
            )
    if policy.job:
        yield Rule(
            alert="TargetDown",
            expr=trials.up + " == 0",
            severity="critical",
            summary=f"{policy.shown}: {{{{ $labels.instance }}}} cannot be scraped",
            description="It is down, or its metrics are.",
            gate="rel.availability",
            held="2m",
            fires={trials.up_series: "0x120"},
            quiet=({trials.up_series: "1x58 0x10"},),
        )
