"""What the dashboards show, as rows: every panel of rep.dashboards, and a running soak. `chaos.export.grafana` draws them.

A query's window is Grafana's own `$__rate_interval`, which covers at least four scrapes
(https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.checks.deciding import ERRORS
from chaos.export import queries as ask
from chaos.export import soak_rules
from chaos.export.policy import BURNS, RETRIED, SATURATED, SOAK
from chaos.export.signals import Matcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.export.policy import Policy
    from chaos.export.signals import Signals

WINDOW = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called ('' as Prometheus does)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `unit` is Grafana's; `limit` a line that is red above (below, when `falling`)."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    limit: float | None = None
    falling: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard. `missing` are panels that it does not have, and why."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    missing: tuple[str, ...] = ()


def boards(policy: Policy) -> tuple[Board, ...]:
    """The target's (when it has metrics) and the soak's."""
    soak = Board(uid=f"chaos-gate-soak-{policy.slug}"[:40], title=f"Soak of {policy.target}", panels=tuple(_soak(policy)))
    if policy.metrics is None:
        return (soak,)
    missing = tuple(f"no metric for {role}" for role in policy.metrics.missing())
    of_target = Board(
        uid=f"chaos-gate-{policy.slug}"[:40], title=f"Gates of {policy.target}", panels=tuple(_target(policy)), missing=missing
    )
    return of_target, soak


def _target(policy: Policy) -> Iterator[Panel]:
    some = policy.metrics
    assert some is not None
    yield from _requests(policy, some)
    yield from _security(policy, some)
    yield from _database(some)
    if seo := some["seo"]:
        by = f" by ({seo.status[0]})" if len(seo.status) == 1 else ""
        refused = ask.crawlers_refused(some, WINDOW)
        yield Panel(
            title="SEO crawler pass-through",
            about="What search engines are answered on SEO hosts; refused are 5xx, 400 and 421.",
            queries=(
                Query(f"sum{by} ({seo.ranged('rate', WINDOW)})", f"{{{{{seo.status[0]}}}}}" if by else "requests"),
                *([Query(refused, "share refused")] if refused else []),
            ),
            limit=BURNS[0][0] * policy.budget,
        )
    alerts = f'ALERTS{{alertstate="firing", {Matcher(label="target", value=policy.target)}}}'
    yield Panel(
        title="Firing alerts",
        about="Of the rules that `chaos-gate export prometheus` writes.",
        queries=(Query(f"sum by (alertname, severity) ({alerts})", "{{alertname}} ({{severity}})"),),
        limit=1,
    )


def _requests(policy: Policy, some: Signals) -> Iterator[Panel]:
    for role, title, status in (("errors_4xx", "4xx by route", "4.."), ("errors_5xx", "5xx by route", "5..")):
        if (expr := ask.by(some, role, WINDOW, status=status)) is not None:
            yield Panel(title=title, about="Answers a second.", queries=(Query(expr),), unit="reqps")
    if (ratio := ask.error_ratio(some, WINDOW)) is not None:
        yield Panel(
            title="Share of 5xx",
            about=f"A roll-out pauses above {ERRORS:.1%}; the budget is {policy.budget:.3%}.",
            queries=(Query(ratio, "5xx"),),
            unit="percentunit",
            limit=ERRORS,
        )
    for q, gate in ((0.95, policy.gates["rel.p95"]), (0.99, policy.gates["rel.p99"])):
        if (value := ask.quantile(some, q, WINDOW)) is not None:
            yield Panel(
                title=f"P{q * 100:.0f}",
                about=f"{gate.id}: {gate.threshold}, over all that the metric counts.",
                queries=(Query(value, f"P{q * 100:.0f}"),),
                unit="s",
                limit=gate.seconds,
            )


def _security(policy: Policy, some: Signals) -> Iterator[Panel]:
    if (count := ask.unknown_hosts(some, WINDOW)) is not None:
        yield Panel(
            title="Unknown-host rejections", about="Within the panel's interval.", queries=(Query(count, "refused for Host"),)
        )
    if (failures := ask.tls_failures(some, WINDOW)) is not None:
        yield Panel(
            title="TLS handshake errors of the database",
            about="Connections a second that failed in TLS.",
            queries=(Query(failures, "failed"),),
        )
    if (ratio := ask.tls_ratio(some, WINDOW)) is not None:
        gate = policy.gates["sec.tls_handshake"]
        yield Panel(
            title="Share of failed TLS handshakes",
            about=f"{gate.id}: {gate.threshold}, outside the windows in which the suite itself breaks TLS.",
            queries=(Query(ratio, "failed"),),
            unit="percentunit",
            limit=gate.limit,
        )
    if one := some["certificate_days"]:
        yield Panel(
            title="Days until the database's certificate ends",
            about="As the service sees it; `chaos-gate export certificates` looks at the whole chain.",
            queries=(Query(f"min({one.select()})", one.name),),
            limit=policy.gates["sec.cert_expiry"].limit if "days" in one.name else None,
            falling=True,
        )


def _database(some: Signals) -> Iterator[Panel]:
    if (retries := ask.retries(some, WINDOW)) is not None:
        ratio = ask.retry_ratio(some, WINDOW)
        yield Panel(
            title="Database retries",
            about="A second, and for each request.",
            queries=(Query(retries, "a second"), *([Query(ratio, "a request")] if ratio else [])),
            limit=RETRIED if ratio else None,
        )
    if busy := some["pool_busy"]:
        saturation = ask.saturation(some)
        yield Panel(
            title="Pool saturation" if saturation else "Pool: connections in use",
            about="Of the fullest instance.",
            queries=(Query(saturation or f"max(sum by (job, instance) ({busy.select()}))", "used"),),
            unit="percentunit" if saturation else "short",
            limit=SATURATED if saturation else None,
        )


def _soak(policy: Policy) -> Iterator[Panel]:
    at = soak_rules
    yield Panel(
        title="Hours by colour",
        about="An hour is red when it violates a gate, grey when too little is known of it.",
        queries=(Query(f"sum by (colour) ({at.HOURS})", "{{colour}}"),),
    )
    yield Panel(
        title="Green hours in a row",
        about=f"GO takes {SOAK}.",
        queries=(Query(f"max({at.STREAK})", "streak"),),
        limit=SOAK,
        falling=True,
    )
    yield Panel(
        title="Requests and failures",
        about="A second.",
        queries=(
            Query(f"sum(rate({at.REQUESTS}[{WINDOW}]))", "requests"),
            Query(f"sum(rate({at.FAILED}[{WINDOW}]))", "failed"),
        ),
        unit="reqps",
    )
    for name, gate in ((at.P95, policy.gates["rel.p95"]), (at.P99, policy.gates["rel.p99"])):
        yield Panel(
            title=f"{gate.id[4:].upper()} of reads",
            about=f"{gate.id}: {gate.threshold}.",
            queries=(Query(f"max({name})", gate.id[4:].upper()),),
            unit="s",
            limit=gate.seconds,
        )
    yield Panel(
        title="Error budget burnt",
        about="Share of the month's.",
        queries=(Query(f"max({at.BURN})", "burnt"),),
        unit="percentunit",
        limit=policy.burn_limit,
    )
    yield Panel(
        title="Gates so far",
        about="How many stand at which outcome.",
        queries=(Query(f"sum by (outcome) ({at.GATE})", "{{outcome}}"),),
    )
    yield Panel(
        title="Faults",
        about="Injected and healed: apart only while one lasts.",
        queries=(Query(f"sum({at.INJECTED})", "injected"), Query(f"sum({at.HEALED})", "healed")),
    )
