"""What a database's life must not do beyond the outage itself: reach another replica, or keep an instance from ever starting."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks import recovery
from chaos.model import Finding, History, Kind, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

GATE = "res.network"


def outage(history: History, limits: Limits) -> Finding:
    """As every outage; but for what sound clients differ on (fact 'row').

    L2: sessions with a primary that has become a read-only standby are kept, so reads are served and writes are refused (25006) until
    they end by themselves. A ping does not tell. Whether such sessions outlive a fail-over depends on what stands at the address: so
    it is reported, and [policy] "L2" = "reject" makes it a failure. Anything else that is wrong fails, as ever.
    """
    found = recovery.check(history, limits)
    decided = limits.policy.get("L2", "report")
    if history.facts.get("row") != "L2" or found.outcome is not Outcome.FAIL:
        return found
    reads = replace(history, operations=tuple(one for one in history.operations if one.kind is not Kind.WRITE))
    if recovery.check(reads, limits).outcome is not Outcome.PASS or recovery.late(history.operations, history.windows[0], limits):
        return found
    detail = f"reads are served, writes are not: sessions with the old primary, which is read-only now, are kept. {found.detail}"
    if decided == "reject":
        return replace(found, detail=detail)
    if decided == "accept":
        return replace(found, outcome=Outcome.PASS, bad=0, detail=f"{detail}; [policy] accepts it")
    detail += '. Reported (medium): [policy] "L2" = "reject" makes it a failure'
    return replace(found, outcome=Outcome.NOT_APPLICABLE, bad=0, detail=detail, severity="medium")


def replica(history: History, limits: Limits) -> Finding | None:
    """The blast radius: a replica whose own path is whole serves all the while (its requests are counted in the facts)."""
    del limits
    facts = history.facts
    if "replica.sent" not in facts:
        return None
    sent, failed, before = (int(facts[f"replica.{name}"]) for name in ("sent", "failed", "before"))
    detail = f"{failed} of {sent} requests to the other replica failed while this one's path was broken"
    outcome = Outcome.FAIL if failed else Outcome.PASS
    if facts["replica.exited"]:
        outcome, detail = Outcome.FAIL, f"the other replica ended ({facts['replica.exited']}); {detail}"
    elif not sent or not before:
        outcome, detail = Outcome.INCONCLUSIVE, f"the other replica served {before} requests before the fault; {detail}"
    return Finding(
        check=f"blast.{history.experiment}",
        gate=GATE,
        outcome=outcome,
        detail=detail,
        n=sent,
        bad=failed,
        expected="a replica whose own path to the database is whole does not notice",
        examples=(facts["replica.example"],) if facts["replica.example"] else (),
    )


def starting(history: History, limits: Limits) -> Finding:
    """An instance that starts while its database is not there yet (or slow) serves in the end.

    Facts: 'served' are seconds from the moment the fault had gone to the first read that was answered well, '' when none was; 'ended'
    how the instance ended meanwhile. One that ended is started again, as a supervisor does, before 'served' is taken: sound services
    differ there, so that is reported, and [policy] "L1" = "reject" makes it a failure.
    """
    facts = history.facts
    served, ended, within = facts.get("served", ""), facts.get("ended", ""), float(facts["within"])
    decided = limits.policy.get("L1", "report")
    outcome, severity = Outcome.PASS, ""
    detail = f"it served {float(served):.1f} s after the fault had gone" if served else f"it did not serve within {within:g} s"
    if not served:
        outcome = Outcome.FAIL
    if ended:
        detail = f"it ended ({ended}) while its database was not to be had; started again, {detail}"
        if decided == "reject":
            outcome = Outcome.FAIL
        elif served and decided != "accept":
            outcome, severity = Outcome.NOT_APPLICABLE, "medium"
            detail += '. Reported (medium): [policy] "L1" = "reject" makes it a failure'
    return Finding(
        check=history.experiment,
        gate=GATE,
        outcome=outcome,
        detail=detail,
        n=1,
        bad=int(outcome is Outcome.FAIL),
        measured=float(served) if served else None,
        expected=f"an instance that starts while its database is not ready waits for it, and serves within {within:g} s of it",
        examples=history.logs[-3:] if outcome is Outcome.FAIL else (),
        severity=severity,
    )
