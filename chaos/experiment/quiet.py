"""Experiments that break nothing: the steady state, host validation, and what the server itself shows."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from chaos.checks import audit
from chaos.experiment import census
from chaos.experiment.core import look_up_writes
from chaos.experiment.logs import out_of_reach
from chaos.faults import probe
from chaos.faults.database import admin
from chaos.faults.wire import injection as client_to_server
from chaos.model import Connection, History, Kind
from chaos.traffic import hosts as host_traffic
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig

LOAD_RATE, LOAD_SECONDS = 70.0, 5.5
AUDIT_PATIENCE = 3.0  # s in which a log line may still be on its way
TWICE = 3  # writes that are sent a second time with nothing broken


def steady(rig: Rig, case: Case, recording: Recording) -> History:
    """Invalid requests in a closed loop for a moment, then open-loop load by itself."""
    del case
    rig.driver.begin_clients(rig.live)
    time.sleep(1.0)
    rig.driver.end_clients()
    before = psutil.cpu_times()
    at = time.monotonic()
    rig.driver.load(rate=LOAD_RATE, seconds=LOAD_SECONDS)
    rig.check_alive()
    recording.facts["busy"] = f"{_busy(before, psutil.cpu_times(), time.monotonic() - at):.3f}"
    _send_twice(rig)
    look_up_writes(rig, recording.started)
    quiet = _undisturbed(rig)
    if rig.injects:
        recording.facts |= census.facts(rig.path.connections(0.0), quiet, rig.environment.postgres.log_since(0))
    return replace(recording.history(), connections=quiet)


def _send_twice(rig: Rig) -> None:
    """What a client does that never saw the answer: the same write again under the same idempotency key, later and at once."""
    for sample in rig.driver.samples[Kind.WRITE]:
        if getattr(sample.request, "idempotency_header", None):
            for _ in range(TWICE):
                first = rig.driver.once(sample)
                rig.driver.once(sample, unique=first.unique)
                rig.driver.at_once(sample)


def _undisturbed(rig: Rig) -> tuple[Connection, ...]:
    """All of this worker's connections so far that were opened outside the suite's own fault windows.

    What a network fault leaves behind may still be felt for as long as recovery takes; an impostor is gone when it is.
    """
    margin = rig.config.target.database.recovery
    windows = [(start - 1.0, end + margin) for start, end in rig.broken] + [(start - 0.2, end) for start, end in rig.posed]
    return tuple(
        one
        for one in (rig.path.connections(0.0) if rig.injects else ())
        if not any(start <= one.opened <= end for start, end in windows)
    )


def _busy(before: object, after: object, seconds: float) -> float:
    """Share of the machine's CPU time in use between two psutil.cpu_times()."""
    idle = getattr(after, "idle", 0.0) - getattr(before, "idle", 0.0)
    idle += getattr(after, "iowait", 0.0) - getattr(before, "iowait", 0.0)
    return max(0.0, 1.0 - idle / max(0.001, seconds * (psutil.cpu_count() or 1)))


def hosts(rig: Rig, case: Case, recording: Recording) -> History:
    """Every row of the host catalogue as raw bytes, and the log lines that tell of the refused ones."""
    del case
    target, facts = rig.target, recording.facts
    offset = target.log_offset()
    recording.extra = host_traffic.observe(
        rig.config.target, rig.driver.session, address=target.address, seed=rig.seed, facts=facts
    )
    history = recording.history()
    if rig.config.target.logs is None or out_of_reach(rig):
        return history
    refused = frozenset(one.unique.lower() for one in recording.extra if one.unique and one.status == 400)
    shown: list[str] = []

    def found() -> bool:
        shown[:] = [line for line in target.log_lines(offset) if audit.mentions(line, refused)]
        return bool(shown)

    wait_for(found, AUDIT_PATIENCE, every=0.1)
    facts |= {
        "audit.refused": str(len(refused)),
        "audit.shown": str(len({audit.mentions(line, refused).lower() for line in shown})),
        "audit.lines": str(len(target.log_lines(offset))),
    }
    return replace(history, logs=tuple(line[:400] for line in shown[:5]))


def server(rig: Rig, case: Case, recording: Recording) -> History:
    """What PostgreSQL shows: plaintext refused, verify-full accepted, and how its sessions came in."""
    del case
    direct = rig.conninfo_at(rig.environment.postgres.port)
    plain = probe.connect(direct.replace("sslmode=verify-full", "sslmode=disable"))
    verified = probe.connect(direct)
    for sample in rig.driver.samples[Kind.READ]:
        rig.driver.once(sample)
    rig.check_alive()
    with admin(rig.environment.postgres) as session:
        rows = session.execute(
            "SELECT s.ssl, count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
            "WHERE a.usename = %s AND a.application_name <> %s GROUP BY 1",
            (rig.environment.postgres.app_user, probe.PROBE_NAME),
        ).fetchall()
    counts = {bool(row[0]): int(str(row[1])) for row in rows}
    recording.facts |= {
        "plaintext": plain.how,
        "plaintext.text": " ".join(plain.text.split())[-160:],
        "verified": verified.how,
        "sessions.tls": str(counts.get(True, 0)),
        "sessions.plain": str(counts.get(False, 0)),
    }
    return recording.history()


def injection(rig: Rig, case: Case, recording: Recording) -> History:
    """P7: bytes injected between the SSLRequest and the handshake; and, as a control, the same bytes where they belong."""
    del case
    postgres = rig.environment.postgres
    for name, inject in (("injected", True), ("control", False)):
        recording.facts[name] = client_to_server.try_it(
            postgres.port, postgres.ca_file, user=postgres.app_user, database=postgres.app_database, inject=inject
        )
    return recording.history()
