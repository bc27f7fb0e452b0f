"""The alerts on what a running soak serves at /metrics: it stopped, it sends nothing, an hour turned red, a fault was left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.export.policy import number
from chaos.export.rules import Group, Rule, counter, gauge

if TYPE_CHECKING:
    from chaos.export.policy import Policy

# As chaos.soak.status serves them; a test keeps both the same.
HOURS = "chaos_gate_hours"
STREAK = "chaos_gate_streak_hours"
ELAPSED, PLANNED = "chaos_gate_elapsed_hours", "chaos_gate_planned_hours"
REQUESTS, FAILED = "chaos_gate_requests_total", "chaos_gate_requests_failed_total"
LATENCY = "chaos_gate_read_latency_seconds"
P95, P99 = f'{LATENCY}{{quantile="0.95"}}', f'{LATENCY}{{quantile="0.99"}}'
BURN = "chaos_gate_error_budget_burn_ratio"
INJECTED, HEALED = "chaos_gate_faults_injected_total", "chaos_gate_faults_healed_total"
GATE = "chaos_gate_gate"
RED = f'{HOURS}{{colour="red"}}'
STEADY = f'{REQUESTS}{{stratum="steady"}}'
FAILS = f'{GATE}{{gate="sec.verify_full",outcome="fail"}}'
END = 0.1  # h before the planned end in which its last minute was told


def soak(policy: Policy) -> Group:
    """All of them. A soak that came to its planned end is no soak that stopped."""
    return Group(
        name="chaos-gate.soak",
        well={
            RED: gauge(0),
            f'{HOURS}{{colour="green"}}': "0+0.0166667x120",
            f'{HOURS}{{colour="grey"}}': gauge(0),
            STREAK: "0+0.0166667x120",
            ELAPSED: "0+0.0166667x120",
            PLANNED: gauge(72),
            STEADY: counter(10),
            f'{REQUESTS}{{stratum="fault"}}': gauge(7),  # nothing is broken just now
            P95: gauge(policy.gates["rel.p95"].seconds / 2),
            P99: gauge(policy.gates["rel.p99"].seconds / 2),
            BURN: gauge(0),
            INJECTED: counter(0.01),
            HEALED: counter(0.01),
            FAILS.replace("fail", "pass"): gauge(1),
        },
        rules=(*_going(), *_judged(policy)),
    )


def _going() -> tuple[Rule, ...]:
    return (
        Rule(
            alert="SoakStopped",
            expr=f"(max_over_time({ELAPSED}[2h]) + {END} < max_over_time({PLANNED}[2h])) unless {ELAPSED}",
            severity="critical",
            summary="the soak stopped before its planned end",
            description="Its metrics are gone. `chaos-gate soak --resume DIR` goes on where it was; hours without it are grey.",
            gate="rep.go",
            held="5m",
            fires={ELAPSED: "7x40 stale", PLANNED: "72x40 stale"},
            quiet=({ELAPSED: "71.95x40 stale", PLANNED: "72x40 stale"},),
        ),
        Rule(
            alert="SoakSendsNothing",
            expr=f"sum(increase({REQUESTS}[10m])) == 0",
            severity="critical",
            summary="the soak sends no requests",
            description="An hour without traffic proves nothing: it is grey.",
            gate="rep.go",
            held="5m",
            fires={STEADY: "0+600x30 18000x60"},
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
            alert="SoakGateFails",
            expr=f'count({GATE}{{outcome="fail"}} == 1) > 0',
            severity="critical",
            summary="the soak has found a gate that fails: it ends NO-GO",
            description="{{ $value }} of them. Its status page says which, and how to see it again.",
            gate="rep.go",
            fires={FAILS: gauge(1)},
        ),
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
