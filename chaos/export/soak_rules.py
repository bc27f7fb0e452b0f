"""The alerts on what a running soak serves at /metrics: it stopped, it sends nothing, an hour turned red, a fault was left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.export.policy import SOAK, number
from chaos.export.rules import Group, Rule, counter, gauge

if TYPE_CHECKING:
    from chaos.export.policy import Policy

HOURS = "chaos_gate_hours"
STREAK = "chaos_gate_streak_hours"
REQUESTS, FAILED = "chaos_gate_requests_total", "chaos_gate_failed_total"
P95, P99 = "chaos_gate_p95_seconds", "chaos_gate_p99_seconds"
BURN = "chaos_gate_budget_burn"
INJECTED, HEALED = "chaos_gate_faults_injected_total", "chaos_gate_faults_healed_total"
RED = f'{HOURS}{{colour="red"}}'
GREEN = f'{HOURS}{{colour="green"}}'


def soak(policy: Policy) -> Group:
    """All of them. A soak that ended after its 48 green hours is no soak that stopped."""
    return Group(
        name="chaos-gate.soak",
        well={
            RED: gauge(0),
            GREEN: "0+0.0166667x120",
            f'{HOURS}{{colour="grey"}}': gauge(0),
            STREAK: "0+0.0166667x120",
            REQUESTS: counter(10),
            FAILED: counter(0),
            P95: gauge(policy.gates["rel.p95"].seconds / 2),
            P99: gauge(policy.gates["rel.p99"].seconds / 2),
            BURN: gauge(0),
            INJECTED: counter(0.01),
            HEALED: counter(0.01),
        },
        rules=(*_going(), *_judged(policy)),
    )


def _going() -> tuple[Rule, ...]:
    return (
        Rule(
            alert="SoakStopped",
            expr=f"(max_over_time({STREAK}[2h]) < {SOAK}) unless {STREAK}",
            severity="critical",
            summary=f"the soak stopped before {SOAK} green hours in a row",
            description="Its metrics are gone. `chaos-gate soak` goes on where it was; hours without it are grey.",
            gate="rep.go",
            held="5m",
            fires={STREAK: "7x40 stale", REQUESTS: "0+600x40 stale"},
            quiet=({STREAK: f"{SOAK}x40 stale", REQUESTS: "0+600x40 stale"},),
        ),
        Rule(
            alert="SoakSendsNothing",
            expr=f"increase({REQUESTS}[10m]) == 0",
            severity="critical",
            summary="the soak sends no requests",
            description="An hour without traffic proves nothing: it is grey.",
            gate="rep.go",
            held="5m",
            fires={REQUESTS: "0+600x30 18000x60"},
        ),
        Rule(
            alert="SoakFaultNotHealed",
            expr=f"min_over_time(({INJECTED} - {HEALED})[30m:1m]) > 0",
            severity="critical",
            summary="a fault of the soak was not healed for 30 minutes",
            description="`chaos-gate heal` undoes what its ledger says; no fault is planned to last so long.",
            gate="rep.go",
            fires={INJECTED: "1x5 2x100", HEALED: "1x100"},
            quiet=({INJECTED: "1x50 2x100", HEALED: "1x100"},),
        ),
    )


def _judged(policy: Policy) -> tuple[Rule, ...]:
    rules = [
        Rule(
            alert="SoakHourRed",
            expr=f"increase({RED}[15m]) > 0",
            severity="warning",
            summary="an hour of the soak was red",
            description="The streak of green hours starts again. The daily summary says which gate it violated.",
            gate="rep.go",
            fires={RED: "0x55 1x60"},
            quiet=({RED: "1x120"},),
        ),
        *(
            Rule(
                alert=f"SoakLatencyP{q}",
                expr=f"{name} > {number(gate.seconds)}",
                severity="warning",
                summary=f"P{q} of the soak's reads is above {gate.seconds * 1000:g} ms",
                description="Now {{ $value | humanizeDuration }}.",
                gate=gate.id,
                held="10m",
                fires={name: gauge(gate.seconds + 0.001)},
                quiet=({name: gauge(gate.seconds)},),
            )
            for q, name, gate in ((95, P95, policy.gates["rel.p95"]), (99, P99, policy.gates["rel.p99"]))
        ),
    ]
    limit = policy.burn_limit
    burnt = Rule(
        alert="SoakBurnsBudget",
        expr=f"{BURN} > {number(limit)}",
        severity="critical",
        summary=f"the soak has burnt more than {limit:.3g} of the monthly error budget"
        if limit
        else "a request of the soak failed",
        description="{{ $value | humanizePercentage }} of the month's budget is gone.",
        gate="rel.error_budget",
        fires={BURN: gauge(limit + 0.001)},
        quiet=({BURN: gauge(limit)},),
    )
    return (*rules, burnt)
