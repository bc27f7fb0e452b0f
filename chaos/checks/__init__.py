"""Checks: pure functions from a recorded history to findings. `judge` is the only way in; it looks at nothing but its arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from chaos.checks import (
    audit,
    backoff,
    canary,
    commits,
    contract,
    corpus,
    delta,
    disclosure,
    documents,
    edge,
    errors,
    expiry,
    handshakes,
    hosts,
    invalid,
    latency,
    life,
    logs,
    metrics,
    pentest,
    pools,
    recoveries,
    recovery,
    replicas,
    restore,
    rollback,
    rollbacks,
    rotation,
    safeguards,
    server,
    shadow,
    writes,
)
from chaos.checks.limits import Limits
from chaos.model import Finding, History, Outcome

Check = Callable[[History, Limits], "Finding | Iterable[Finding] | None"]


def _hosts(history: History, limits: Limits) -> list[Finding]:
    return hosts.judge(history, policy=limits.policy)


def _edge(history: History, limits: Limits) -> list[Finding]:
    return edge.judge(history, policy=limits.policy)


OUTAGE: tuple[Check, ...] = (recovery.check, invalid.check, writes.check, disclosure.plaintext)
HELD: tuple[Check, ...] = (*OUTAGE, disclosure.cancels)
FAMILIES: Mapping[str, tuple[Check, ...]] = {
    **dict.fromkeys(("network", "certificate", "tls-off", "slots", "restart", "stall", "schedule"), OUTAGE),
    **dict.fromkeys(("cross", "flapping", "bouncer"), OUTAGE),
    "life": (life.outage, *OUTAGE[1:]),
    "replica": (*OUTAGE, life.replica),
    "starting": (life.starting, disclosure.plaintext),
    **dict.fromkeys(("locks", "slow"), HELD),
    "cancel": (disclosure.cancels, *OUTAGE[1:]),
    "reconnect": (disclosure.check, invalid.check, disclosure.plaintext),
    "start": (disclosure.check, disclosure.plaintext),
    "backoff": (backoff.check,),
    "replicas": (replicas.check,),
    "final": (backoff.final,),
    "stale": (pools.stale, disclosure.plaintext),
    "leak": (pools.leak, disclosure.plaintext),
    "recovery": (recoveries.check, *OUTAGE[1:]),
    "pentest": (pentest.check,),
    "edge": (_edge,),
    "commit-cut": (commits.check, disclosure.plaintext),
    "steady": (latency.check, invalid.check, writes.check, handshakes.rate, handshakes.sessions, disclosure.plaintext),
    "hosts": (_hosts, audit.check),
    "server": (server.check,),
    "injection": (server.injection,),
    "rollback": (rollback.check,),
    "rollback-drill": (rollbacks.check,),
    "rollback-times": (rollbacks.times,),
    "restore": (restore.check,),
    "safeguards": (safeguards.check,),
    "canary": (canary.step,),
    "canary-drill": (canary.drill,),
    "canary-end": (canary.end,),
    "rotation": (rotation.check,),
    "expiry": (expiry.check,),
    "contract": (contract.check,),
    "shadow": (shadow.check,),
    "delta": (delta.check,),
    "documents": (documents.check,),
    **dict.fromkeys(("corpus-sample", "corpus-steady", "corpus-fault", "corpus-candidate"), (corpus.check,)),
    **dict.fromkeys(("logs", "logs-fault"), (logs.check,)),
    **dict.fromkeys(("metrics", "metrics-tls", "metrics-pool"), (metrics.check,)),
    **dict.fromkeys(("soak", "baseline"), ()),  # a minute by itself says nothing: chaos.checks.longrun judges the whole run
}


def judge(history: History, limits: Limits) -> tuple[Finding, ...]:
    """All findings of one experiment, the one for its own gate first.

    The four proofs of non-vacuity are applied here, to every check alike: a control that was sick, or a fault that did not take
    effect, leaves a pass INCONCLUSIVE. A failure stands: it was seen, whatever the fault did. An experiment that found out that this
    target or this machine cannot be asked says so in its fact 'absent', and nothing else is made of it.
    """
    return tuple(_named(history, limits, one) for one in (*_own(history, limits), *_of_errors(history, limits)))


def _own(history: History, limits: Limits) -> list[Finding]:
    """What the checks of the experiment's own family make of it."""
    if absent := history.facts.get("absent"):
        return [Finding(check=history.experiment, gate=history.facts["gate"], outcome=Outcome.NOT_APPLICABLE, detail=absent)]
    if history.control:
        return [
            Finding(
                check=history.experiment,
                gate=history.facts["gate"],
                outcome=Outcome.INCONCLUSIVE,
                detail=f"not healthy before anything was broken: {history.control}",
                expected="a steady state before the fault (control)",
            )
        ]
    found: list[Finding] = []
    for check in FAMILIES[history.facts["family"]]:
        result = check(history, limits)
        found += [] if result is None else [result] if isinstance(result, Finding) else list(result)
    return [_proven(history, one) for one in found]


def _of_errors(history: History, limits: Limits) -> list[Finding]:
    """Every error answer of a run is looked at, whatever the experiment was for and whatever became of it: a census, no sample."""
    found = errors.judge(history, limits.schema) if limits.schema is not None else None
    return [found] if found else []


def _proven(history: History, finding: Finding) -> Finding:
    """A pass needs a fault that took effect, where there was one."""
    idle = [window for window in history.windows if not window.effect.took]
    if finding.outcome is Outcome.PASS and idle and history.facts["family"] != "rollback":
        return replace(
            finding,
            outcome=Outcome.INCONCLUSIVE,
            detail=f"{idle[0].fault} did not take effect ({idle[0].effect.seen}), so this shows nothing: {finding.detail}",
        )
    return finding


def _named(history: History, limits: Limits, finding: Finding) -> Finding:
    """Add what every finding carries: its experiment, the fault, and the line that runs it again."""
    windows = history.windows
    return replace(
        finding,
        experiment=history.experiment,
        fault=windows[0].fault if windows else "",
        took_effect=windows[0].effect.took if windows else None,
        rerun=limits.again(history.experiment),
        seconds=finding.seconds or max(0.0, history.finished - history.started),
    )


__all__ = ["FAMILIES", "Limits", "judge"]
