"""TLS handshakes with the right server, counted on both sides outside the suite's own fault windows; and every session's protection.

sec.tls_handshake, sec.verify_full. The wire counts what it saw pass; the server logs what it could not accept (how the two are
brought together: `chaos.experiment.census`). The worse count is the one that is judged: a refusal inside TLS 1.3 is encrypted for an
onlooker, and a handshake that never reached the server is in no log.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chaos.checks.disclosure import story
from chaos.model import Connection, Finding, History, Outcome, Rung, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.checks.limits import Limits


def completed(connections: Iterable[Connection], disturbed: Sequence[tuple[float, float]]) -> list[Connection]:
    """Handshakes with the real server that came to an end, one way or the other, outside of the `disturbed` stretches of time.

    Those that led to a session, that one side ended with an alert, or that the server broke off. A client that closes after a
    handshake without a word (a health check that only looks at the certificate) is neither.
    """
    return [one for one in connections if counted(one) and not any(start <= one.opened <= end for start, end in disturbed)]


def _disturbed(window: Window, margin: float) -> tuple[float, float]:
    """When the suite itself may have broken a handshake: a second before the fault to `margin` seconds after it."""
    return window.injected - 1.0, window.healed + margin if window.healed else math.inf


def counted(one: Connection) -> bool:
    """Whether it is a handshake with the real server that came to an end which says something; see `completed`."""
    told = one.established or bool(one.alert) or one.ended_by == "server"
    return one.behaviour == "relay" and not one.cancel and one.reached >= Rung.CLIENT_HELLO and told


def rate(history: History, limits: Limits) -> Finding | None:
    """sec.tls_handshake: TLS handshakes of the target with the real server that failed while nothing was broken.

    Counted is what `completed` says, or what the server logged as a failure, where that is more.
    """
    quiet = completed(history.connections, [_disturbed(window, limits.recovery) for window in history.windows])
    if not quiet:
        return None
    failed = [one for one in quiet if not one.established]
    logged = int(history.facts.get("log.refused", "0"))
    bad = max(len(failed), logged)
    told = history.facts.get("log.refused.text", "")
    return Finding(
        check=f"handshakes.{history.experiment}",
        gate="sec.tls_handshake",
        outcome=Outcome.PASS,
        detail=f"{bad} of {max(len(quiet), bad)} handshakes outside fault windows failed: {len(failed)} as the wire saw it, {logged} "
        f"by the server's log ({history.facts.get('log.aborted', '0')} more were broken off by the client)",
        n=max(len(quiet), bad),
        bad=bad,
        expected="handshakes with the right server succeed",
        examples=(*(story(one) for one in failed[:3]), *((f"server's log: {told}",) if told else ())),
    )


def sessions(history: History, limits: Limits) -> Finding | None:
    """sec.verify_full: all sessions that this worker's server let in from the target, in the whole run so far, by its own log."""
    del limits
    if "log.tls" not in history.facts:
        return None
    tls, plain = int(history.facts["log.tls"]), int(history.facts["log.plain"])
    if not tls + plain:  # behind a container's published port the server sees other ports than the wire has
        return Finding(
            check=f"sessions.{history.experiment}",
            gate="sec.verify_full",
            outcome=Outcome.NOT_APPLICABLE,
            detail="no line of the server's log could be matched with a connection of the target's",
        )
    return Finding(
        check=f"sessions.{history.experiment}",
        gate="sec.verify_full",
        outcome=Outcome.FAIL if plain else Outcome.PASS,
        detail=f"{tls} sessions of the target's were let in with TLS so far, {plain} without "
        "('connection authorized' in the server's log)",
        n=tls + plain,
        bad=plain,
        expected="every session is TLS",
    )
