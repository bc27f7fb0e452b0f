"""What the database server itself shows about the sessions that it serves: sec.verify_full, the server's side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from chaos.checks.limits import Limits


def check(history: History, limits: Limits) -> list[Finding]:
    """Plaintext is refused (and TLS with the right name accepted: control); every session of the target's is TLS."""
    del limits
    facts = history.facts
    refused, accepted = facts["plaintext"] != "answer", facts["verified"] == "answer"
    tls, plain = int(facts["sessions.tls"]), int(facts["sessions.plain"])
    return [
        Finding(
            check="server.plaintext",
            gate="sec.verify_full",
            outcome=Outcome.INCONCLUSIVE if not accepted else Outcome.PASS if refused else Outcome.FAIL,
            detail=f"sslmode=disable: {facts['plaintext.text'] or facts['plaintext']}; verify-full: {facts['verified']}",
            n=1,
            bad=int(not refused),
            expected="the server refuses a plaintext connection (pg_hba.conf has hostssl only) and accepts a verified one",
        ),
        Finding(
            check="server.sessions",
            gate="sec.verify_full",
            outcome=Outcome.FAIL if plain else Outcome.PASS if tls else Outcome.INCONCLUSIVE,
            detail=f"{tls} sessions of the target's were TLS, {plain} were not (pg_stat_ssl)",
            n=tls + plain,
            bad=plain,
            expected="every session is TLS",
        ),
    ]


def injection(history: History, limits: Limits) -> Finding:
    """P7: bytes that were injected between a client's SSLRequest and its handshake are not taken for the client's own."""
    del limits
    injected, control = history.facts["injected"], history.facts["control"]
    obeyed = injected == "R"
    return Finding(
        check=history.experiment,
        gate="sec.verify_full",
        outcome=Outcome.FAIL if obeyed else Outcome.PASS if control == "R" else Outcome.INCONCLUSIVE,
        detail=f"a StartupMessage in one segment with the SSLRequest: {'it was obeyed inside TLS' if obeyed else injected}; the same "
        f"message inside TLS: {'authentication begins' if control == 'R' else control}",
        n=1,
        bad=int(obeyed),
        expected="CVE-2021-23214: since 14.1 PostgreSQL ends such a connection (FATAL 08P01; 17: the handshake fails)",
    )
