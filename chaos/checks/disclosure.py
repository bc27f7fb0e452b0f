"""How far the target went with a server that it must not trust: the ladder of catalogue-database-tls.md, read off the wire.

V0: the client gives up before its StartupMessage (some rows: before its password, or its first query), in every connection that it
opens. A second connection that falls back to plaintext is a failure even when the first was right, and on every row. A refusal counts
only beside an acceptance: the same target, on the same path, came to the right server.

Rows on which sound clients differ (`must` is 'policy') are reported with a severity and judged only where [policy] says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.model import Connection, Finding, History, Kind, Outcome, Rung

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

WORDS = {
    Rung.NOTHING: "nothing",
    Rung.SSL_REQUEST: "an SSLRequest",
    Rung.CLIENT_HELLO: "a ClientHello",
    Rung.STARTUP: "its StartupMessage (user and database name)",
    Rung.SCRAM_PROOF: "a SCRAM proof of its password",
    Rung.PASSWORD: "its password",
    Rung.QUERY: "a query",
}
SECRET_TEXT = "this text must not reach a user"  # noqa: S105  (the error of row P2)


@dataclass(frozen=True, slots=True)
class Encounter:
    """What a target met and did, as a check needs it. `wrong` went as far as they must not, `plain` did so without TLS."""

    history: History
    until: Rung
    attempts: tuple[Connection, ...]
    wrong: tuple[Connection, ...]
    plain: tuple[Connection, ...]

    @classmethod
    def of(cls, history: History) -> Encounter:
        """From the facts that the experiment recorded."""
        until = Rung[history.facts.get("until", "STARTUP")]
        met = [one for one in history.connections if one.behaviour == history.facts["behaviour"] and not one.cancel]
        attempts = tuple(one for one in met if one.reached >= Rung.SSL_REQUEST or one.plaintext)
        plain = tuple(one for one in attempts if one.plaintext)
        return cls(history, until, attempts, tuple(one for one in attempts if one.plaintext or one.reached >= until), plain)

    @property
    def presented(self) -> str:
        """What it met."""
        return self.history.facts["presented"]

    @property
    def when(self) -> str:
        """In which situation."""
        return "at start" if self.history.experiment.endswith(".start") else "when it reconnects"

    @property
    def went_on(self) -> str:
        """What the furthest of `wrong` did."""
        furthest = max(self.wrong, key=lambda one: (one.plaintext, one.reached))
        how = "in plaintext" if furthest.plaintext else "inside TLS"
        return (
            f"{self.when} the target accepted {self.presented}; in {len(self.wrong)} of {len(self.attempts)} connections it went on "
            f"and sent {WORDS[furthest.reached]} {how}"
        )

    @property
    def refused(self) -> str:
        """What it did instead."""
        alerts = sorted({one.alert for one in self.attempts if one.alert})
        return f"{self.when} the target refused {self.presented} in all {len(self.attempts)} connections" + (
            f" (alert: {', '.join(alerts)})" if alerts else ""
        )

    def finding(self, outcome: Outcome, detail: str, *, severity: str = "") -> Finding:
        """With the numbers that a gate counts; nothing that is only reported is counted."""
        counted = outcome in {Outcome.PASS, Outcome.FAIL}
        must = self.history.facts["must"]
        verb = {"connect": "accepts it", "bounded": "gives up by itself"}.get(must, f"gives up before {_before(self.until)}")
        who = "a client can be made so strict that it" if must == "policy" else "a client that verifies fully"
        return Finding(
            check=self.history.experiment,
            gate=self.history.facts["gate"],
            outcome=outcome,
            detail=detail,
            n=len(self.attempts) if counted else 0,
            bad=len(self.wrong) if outcome is Outcome.FAIL else 0,
            expected=f"{who} {verb}: {self.history.facts['why']}",
            examples=tuple(story(one) for one in self.wrong[:3]),
            severity=severity,
        )


def check(history: History, limits: Limits) -> Finding:
    """The finding of one row in one situation."""
    facts = history.facts
    met = Encounter.of(history)
    if met.plain:
        return met.finding(Outcome.FAIL, replace(met, wrong=met.plain).went_on)
    if not met.attempts:
        return met.finding(
            Outcome.INCONCLUSIVE, f"{met.when} the target never connected to {met.presented}, so nothing was shown"
        )
    decided = limits.policy.get(facts["row"]) or limits.policy.get(facts["row"].partition(".")[0], "")
    if facts["must"] == "connect":
        return _control(met) if facts["row"] == "valid" else _accepted(met, decided)
    if facts["must"] == "bounded":
        return _bounded(met, limits)
    return _rejected(met, decided if facts["must"] == "policy" else "reject")


def _rejected(met: Encounter, decided: str) -> Finding:
    """A row that must be refused; `decided` is what [policy] makes of one on which sound clients differ."""
    facts = met.history.facts
    if met.wrong:
        return _went_on(met, decided)
    if facts["row"] == "A7":
        return _computing(met, decided)
    for proof, name in (("back", "the right server"), ("pair", "the same certificate without the defect")):
        if facts.get(proof, "yes") in {"", "refused"}:
            return met.finding(Outcome.INCONCLUSIVE, f"{met.refused}, but it did not come to {name} either, which proves nothing")
    went_on = [one for one in met.attempts if one.reached >= Rung.STARTUP]
    detail = met.refused
    if went_on and met.until > Rung.STARTUP:
        detail = (
            f"{met.when} the target met {met.presented}, and went no further than {WORDS[max(one.reached for one in went_on)]}"
        )
    shown = [one for one in met.history.operations if SECRET_TEXT in one.body]
    if shown:
        detail += f"; but {len(shown)} answers to users hold the impostor's own text (CVE-2024-10977): reported (medium)"
        return replace(
            met.finding(Outcome.PASS, detail, severity="medium"), examples=(f"{shown[0].path}: {shown[0].body[:200]}",)
        )
    accepted = facts.get("back", "")
    return met.finding(Outcome.PASS, detail + (f"; it was at the right server {accepted}" if accepted else ""))


def _went_on(met: Encounter, decided: str) -> Finding:
    """It did what it must not, or what sound clients differ on."""
    facts = met.history.facts
    if decided == "reject":
        return met.finding(Outcome.FAIL, met.went_on)
    if decided == "accept":
        return replace(met.finding(Outcome.PASS, f"{met.went_on}; [policy] accepts it"), n=0)
    why = f'{met.went_on}. Reported ({facts["severity"]}): [policy] "{facts["row"].partition(".")[0]}" = "reject" makes it a failure'
    if facts["row"] == "A7":
        why = f"it held a connection for {facts.get('held', '?')} s: {why}"
    return met.finding(Outcome.NOT_APPLICABLE, why, severity=facts["severity"])


def _computing(met: Encounter, decided: str) -> Finding:
    """50 million iterations: it gave up, or is still at it."""
    facts = met.history.facts
    seconds = float(facts.get("held", "0"))
    if all(one.ended_by == "client" for one in met.attempts):
        return met.finding(Outcome.PASS, f"{met.when} the target met {met.presented}, and gave up after {seconds:.1f} s")
    outcome = Outcome.FAIL if decided == "reject" else Outcome.NOT_APPLICABLE
    detail = f"{met.when} the target met {met.presented}, and was still at it after {seconds:.1f} s"
    if outcome is Outcome.NOT_APPLICABLE:
        detail += f'. Reported ({facts["severity"]}): [policy] "A7" = "reject" makes it a failure'
    finding = met.finding(outcome, detail, severity="" if outcome is Outcome.FAIL else facts["severity"])
    return replace(finding, bad=len(met.attempts)) if outcome is Outcome.FAIL else finding


def _accepted(met: Encounter, decided: str) -> Finding:
    """A good certificate that some clients may not like. To refuse it discloses nothing: an outage, not a breach."""
    if met.wrong:
        return replace(met.finding(Outcome.PASS, f"{met.when} the target accepted {met.presented}"), n=0, bad=0, examples=())
    detail = f"{met.refused}: with such a server it has an outage"
    if decided == "accept":
        return replace(met.finding(Outcome.FAIL, detail), bad=len(met.attempts), examples=_stories(met))
    return replace(met.finding(Outcome.NOT_APPLICABLE, f"{detail}. Reported (low)", severity="low"), examples=_stories(met))


def _bounded(met: Encounter, limits: Limits) -> Finding:
    """A stall at start: the client's own deadline. Reported only; what it does to requests is judged on the running target."""
    seconds, limit = float(met.history.facts.get("held", "0")), limits.recovery + limits.slack
    if any(one.closed and one.ended_by == "client" for one in met.attempts) and seconds <= limit:
        return replace(
            met.finding(Outcome.PASS, f"{met.when} the target met {met.presented}, and gave up after {seconds:.1f} s"), bad=0
        )
    detail = (
        f"{met.when} the target met {met.presented}, and was held for {seconds:.1f} s. Reported (medium): see connect_timeout"
    )
    return met.finding(Outcome.NOT_APPLICABLE, detail, severity="medium")


def _control(met: Encounter) -> Finding:
    """The accept case: the target works with the right certificate, served by the same impostor."""
    history = met.history
    served = [one for one in met.attempts if one.tls and one.reached >= Rung.QUERY]
    answered = any(one.ok for one in history.operations if one.kind is Kind.READ) or history.facts.get("ready") == "yes"
    if served and answered:
        detail = f"control: {met.when} the target accepted {met.presented} in {len(served)} of {len(met.attempts)} connections"
        return replace(met.finding(Outcome.PASS, detail), n=0, examples=())
    detail = f"control failed: {met.when} the target did not work with {met.presented}, so its refusals prove nothing"
    return replace(met.finding(Outcome.INCONCLUSIVE, detail), examples=_stories(met))


def _before(until: Rung) -> str:
    return {Rung.STARTUP: "its StartupMessage", Rung.SCRAM_PROOF: "its SCRAM proof", Rung.PASSWORD: "its password"}.get(
        until, "its first query"
    )


def _stories(met: Encounter) -> tuple[str, ...]:
    return tuple(story(one) for one in met.attempts[:3])


def story(one: Connection) -> str:
    """A connection, step by step, with times from its beginning."""
    steps = ", ".join(f"{at - one.opened:+.3f} s {what}" for at, what in one.steps[:10])
    return f"connection {one.id}: {steps}" if steps else f"connection {one.id}: reached {one.reached.name}"


# -- what is true of every connection, whatever was broken ------------------------------------------------------------------------


def plaintext(history: History, limits: Limits) -> Finding | None:
    """A StartupMessage without TLS to the real server, in any experiment: a connection without verify-full. None when there is none."""
    del limits
    wrong = [one for one in history.connections if one.behaviour == "relay" and one.plaintext and not one.cancel]
    if not wrong:
        return None
    return Finding(
        check=f"plaintext.{history.experiment}",
        gate="sec.verify_full",
        outcome=Outcome.FAIL,
        detail=f"{len(wrong)} connections of the target's to its own server sent "
        f"{WORDS[max(one.reached for one in wrong)]} in plaintext",
        n=len(wrong),
        bad=len(wrong),
        expected="libpq, 'SSL Support', verify-full: an encrypted and verified connection, or none",
        examples=tuple(story(one) for one in wrong[:3]),
    )


def cancels(history: History, limits: Limits) -> Finding | None:
    """P16: how the target cancelled what took too long. None outside the row's own experiment when there was nothing to see."""
    own = history.facts.get("row") == "P16"
    sent = [one for one in history.connections if one.cancel]
    bare = [one for one in sent if any("CancelRequest in plaintext" in what for _, what in one.steps)]
    check_id = history.experiment if own else f"P16.{history.experiment}"
    finding = Finding(
        check=check_id,
        gate="sec.verify_full",
        outcome=Outcome.NOT_APPLICABLE,
        detail="the target sent no CancelRequest while its queries were held up: it bounds them in another way",
        expected="libpq, 'Canceling Queries': PQcancel sends a session's key in plaintext at any sslmode (PQcancelBlocking: not)",
    )
    if not sent:
        return finding if own else None
    if not bare:
        return replace(finding, outcome=Outcome.PASS, n=len(sent), detail=f"{len(sent)} CancelRequests, all inside TLS")
    decided = limits.policy.get("P16", "")
    detail = f"{len(bare)} of {len(sent)} CancelRequests went out in plaintext, with the session's key in them"
    if decided == "reject":
        return replace(
            finding, outcome=Outcome.FAIL, n=len(sent), bad=len(bare), detail=detail, examples=tuple(map(story, bare[:3]))
        )
    if decided == "accept":
        return replace(finding, outcome=Outcome.PASS, detail=f"{detail}; [policy] accepts it")
    return replace(
        finding,
        severity="medium",
        detail=f'{detail}. Reported (medium): [policy] "P16" = "reject" makes it a failure',
        examples=tuple(map(story, bare[:3])),
    )
