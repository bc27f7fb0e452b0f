"""Availability and latency of an open-loop stretch with nothing broken: rel.availability, rel.error_budget, rel.p95, rel.p99.

A quantile is judged by its exceedances (P95 <= 120 ms: at most 5 % above 120 ms), which add up over hours and machines. Latency
counts from the planned time. A stretch in which the sender itself was late (P99 of the send lag above 10 ms), or the machine was
busy with other things, is GREY: it shows nothing about the target, and its findings are INCONCLUSIVE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.recovery import describe
from chaos.model import Finding, History, Kind, Operation, Outcome
from chaos.statistics import design_effect, lower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.checks.limits import Limits

SEND_LAG = 0.010  # s, P99 (statistics.md, Load)
BUSY = 0.85  # share of the machine's CPU time that was in use


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value with at least `share` of the sample at or below it; 0.0 without data."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, int(share * len(ordered) + 0.999999) - 1))] if ordered else 0.0


def grey(load: Sequence[Operation], busy: float) -> str:
    """Why this stretch shows nothing about the target; '' when it does."""
    lag = quantile([one.started - one.planned for one in load], 0.99)
    if lag > SEND_LAG:
        return f"the load generator slipped: P99 of its send lag was {lag * 1000:.0f} ms (limit {SEND_LAG * 1000:.0f} ms)"
    if busy > BUSY:
        return f"the machine was {busy:.0%} busy meanwhile"
    return ""


def check(history: History, limits: Limits) -> list[Finding]:
    """Up to four findings: one for each rate that the stretch contributes to."""
    load = [one for one in history.operations if one.client == "load" and one.kind in {Kind.READ, Kind.WRITE}]
    reads = [one for one in load if one.kind is Kind.READ]
    bad = [one for one in load if not one.ok]
    why = grey(load, float(history.facts.get("busy", "0")))
    found = [
        Finding(
            check=f"{name}.{history.experiment}",
            gate=gate,
            outcome=Outcome.INCONCLUSIVE if why else _outcome(len(bad), len(load), 0.05),
            detail=why or f"{len(bad)} of {len(load)} requests failed with nothing broken",
            n=0 if why else len(load),
            bad=0 if why else len(bad),
            deff=design_effect(_blocks(load)),
            expected="a healthy answer to every healthy request; one that was never answered counts as bad",
            examples=tuple(describe(one) for one in bad[:3]),
        )
        for name, gate in (("availability", "rel.availability"), ("budget", "rel.error_budget"))
    ]
    for name, gate, share in (("p95", "rel.p95", 0.05), ("p99", "rel.p99", 0.01)):
        limit = limits.seconds.get(gate, 0.0)
        if not reads or not limit:
            continue
        latencies = [one.finished - (one.planned or one.started) for one in reads]
        above = sum(value > limit for value in latencies)
        found.append(
            Finding(
                check=f"{name}.{history.experiment}",
                gate=gate,
                outcome=Outcome.INCONCLUSIVE if why else _outcome(above, len(reads), share),
                detail=why
                or f"{above} of {len(reads)} reads took longer than {limit * 1000:.0f} ms; "
                f"{name.upper()} was {quantile(latencies, 1 - share) * 1000:.0f} ms",
                n=0 if why else len(reads),
                bad=0 if why else above,
                measured=quantile(latencies, 1 - share),
                expected=f"at most {share:.0%} of reads above {limit * 1000:.0f} ms",
            )
        )
    return found


def _blocks(load: Sequence[Operation]) -> list[tuple[int, int]]:
    """(bad, n) of each second: failures come in bursts, and one burst is one event, not ten."""
    counts: dict[int, tuple[int, int]] = {}
    for one in load:
        bad, n = counts.get(int(one.started), (0, 0))
        counts[int(one.started)] = bad + (not one.ok), n + 1
    return list(counts.values())


def _outcome(bad: int, n: int, limit: float) -> Outcome:
    """A check fails only where its own sample proves it; whether the rate is proven is the gate's business."""
    if n == 0:
        return Outcome.INCONCLUSIVE
    return Outcome.FAIL if lower(bad, n) > limit else Outcome.PASS
