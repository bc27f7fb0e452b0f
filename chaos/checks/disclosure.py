"""How far the target went with a server that it must not trust: the ladder of catalogue-database-tls.md, read off the wire.

V0: the client gives up before its StartupMessage, in every connection that it opens. A second connection that falls back to
plaintext is a failure even when the first was right. The accept case runs on the same path with the right certificate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.model import Connection, Finding, History, Kind, Outcome, Rung, Window

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


def trusted(one: Connection) -> bool:
    """Whether the client disclosed more than a ClientHello."""
    return not one.cancel and (one.plaintext or one.reached >= Rung.STARTUP)


def check(history: History, limits: Limits) -> Finding:
    """The finding for sec.verify_full: of a reject case, or of the accept case ('valid')."""
    del limits
    met = [one for one in history.connections if one.behaviour == history.facts["behaviour"] and not _probe_only(one)]
    presented = history.facts["presented"]
    when = "at start" if history.experiment.endswith(".start") else "when it reconnects"
    if history.facts["must"] == "connect":
        return _accept(history, met, presented, when)
    wrong = [one for one in met if trusted(one)]
    attempts = [one for one in met if one.reached >= Rung.SSL_REQUEST or one.plaintext]
    if wrong:
        furthest = max(wrong, key=lambda one: one.reached)
        outcome = Outcome.FAIL
        how = "in plaintext" if furthest.plaintext else "inside TLS"
        detail = (
            f"{when} the target accepted {presented}: in {len(wrong)} of {len(attempts)} connections it went on and sent "
            f"{WORDS[furthest.reached]} {how}"
        )
    elif not attempts:
        outcome, detail = Outcome.INCONCLUSIVE, f"{when} the target never connected to {presented}, so nothing was shown"
    else:
        alerts = sorted({one.alert for one in attempts if one.alert})
        outcome = Outcome.PASS
        detail = f"{when} the target refused {presented} in all {len(attempts)} connections" + (
            f" (alert: {', '.join(alerts)})" if alerts else ""
        )
    return Finding(
        check=history.experiment,
        gate="sec.verify_full",
        outcome=outcome,
        detail=detail,
        n=len(attempts),
        bad=len(wrong),
        expected=f"{history.facts.get('why') or 'verify-full refuses it'}; the client gives up before its StartupMessage",
        examples=tuple(_story(one) for one in wrong[:3]),
    )


def _accept(history: History, met: list[Connection], presented: str, when: str) -> Finding:
    served = [one for one in met if one.tls and one.reached >= Rung.QUERY]
    answered = any(one.ok for one in history.operations if one.kind is Kind.READ) or history.facts.get("ready") == "yes"
    good = bool(served) and answered
    return Finding(
        check=history.experiment,
        gate="sec.verify_full",
        outcome=Outcome.PASS if good else Outcome.INCONCLUSIVE,
        detail=(
            f"control: {when} the target accepted {presented} in {len(served)} of {len(met)} connections"
            if good
            else f"control failed: {when} the target did not work with {presented}, so its refusals prove nothing"
        ),
        n=0,
        bad=0,
        expected="the right certificate, on the same path, is accepted",
        examples=() if good else tuple(_story(one) for one in met[:3]),
    )


def _probe_only(one: Connection) -> bool:
    """A connection that never said a word (a port check) shows nothing."""
    return one.reached is Rung.NOTHING and not one.plaintext


def _story(one: Connection) -> str:
    steps = ", ".join(f"{at - one.opened:+.3f} s {what}" for at, what in one.steps[:8])
    return f"connection {one.id}: {steps}" if steps else f"connection {one.id}: reached {one.reached.name}"


def _inside(one: Connection, window: Window, margin: float) -> bool:
    """Whether the suite itself may have broken this handshake (a second before the fault to `margin` seconds after it)."""
    return one.opened >= window.injected - 1.0 and (not window.healed or one.opened <= window.healed + margin)


def handshakes(history: History, limits: Limits) -> Finding | None:
    """sec.tls_handshake: TLS handshakes of the target with the real server that failed while nothing was broken.

    Counted are those that led to a session, that one side ended with an alert, or that the server broke off. A client that closes
    after a handshake without a word (a health check that only looks at the certificate) is neither.
    """
    margin = limits.recovery
    quiet = [
        one
        for one in history.connections
        if one.behaviour == "relay"
        and not one.cancel
        and one.reached >= Rung.CLIENT_HELLO
        and (one.established or one.alert or one.ended_by == "server")
        and not any(_inside(one, window, margin) for window in history.windows)
    ]
    failed = [one for one in quiet if not one.established]
    if not quiet:
        return None
    return Finding(
        check=f"handshakes.{history.experiment}",
        gate="sec.tls_handshake",
        outcome=Outcome.PASS,
        detail=f"{len(failed)} of {len(quiet)} handshakes outside fault windows failed",
        n=len(quiet),
        bad=len(failed),
        expected="handshakes with the right server succeed",
        examples=tuple(_story(one) for one in failed[:3]),
    )
