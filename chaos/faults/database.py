"""Faults inside or at PostgreSQL itself: TLS broken at the server, its slots or the target's pool exhausted, stopped and restarted.

The server is handed in as a `Server`; what it is (a process, a container) does not matter here.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import psycopg
from psycopg import sql

from chaos.errors import CleanupFailed
from chaos.faults.probe import PROBE_NAME, connect
from chaos.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCKER = "chaos-gate blocker"
ADMIN = "chaos-gate"
OURS = (BLOCKER, ADMIN, PROBE_NAME)


class Server(Protocol):
    """What a fault needs of PostgreSQL."""

    admin_conninfo: str
    app_user: str
    app_database: str

    def use_certificate(self, chain_file: Path, key_file: Path) -> None:
        """Serve another certificate, confirmed."""

    def tls(self, enabled: bool) -> None:
        """Switch TLS on or off, confirmed."""

    def stop(self, mode: str = "fast") -> None:
        """Stop: 'fast' (SIGINT) or 'immediate' (SIGQUIT)."""

    def start(self) -> None:
        """Start again, and wait until it accepts connections."""


def admin(server: Server) -> psycopg.Connection[tuple[object, ...]]:
    """A superuser session in the application's database, straight to the server, past every proxy."""
    return psycopg.connect(
        server.admin_conninfo, dbname=server.app_database, autocommit=True, application_name=ADMIN, connect_timeout=10
    )


def terminate(server: Server) -> int:
    """Close all of the target's sessions, as an administrator would; returns how many there were."""
    with admin(server) as session:
        rows = session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND application_name <> ALL (%s)",
            (server.app_user, list(OURS)),
        ).fetchall()
    return len(rows)


@dataclass(slots=True)
class ServerCertificate:
    """The server presents another certificate: swapped on disk, reloaded, and the target's sessions closed so that it must see it."""

    id: str
    title: str
    server: Server
    chain_file: Path
    key_file: Path
    good_chain: Path
    good_key: Path
    probe_conninfo: str

    def inject(self) -> None:
        self.server.use_certificate(self.chain_file, self.key_file)
        terminate(self.server)

    def confirm(self) -> Effect:
        seen = connect(self.probe_conninfo)
        return Effect(
            took=seen.how == "certificate", seen=f"a verify-full session of our own: {seen} ({seen.text[:120]})", count=1
        )

    def heal(self) -> None:
        self.server.use_certificate(self.good_chain, self.good_key)


@dataclass(slots=True)
class TlsOff:
    """The server stops offering TLS. pg_hba knows hostssl only, so whoever goes on in plaintext is refused, and seen."""

    server: Server
    probe_conninfo: str
    id: str = "tls.off"
    title: str = "the server offers no TLS"

    def inject(self) -> None:
        self.server.tls(enabled=False)
        terminate(self.server)

    def confirm(self) -> Effect:
        seen = connect(self.probe_conninfo)
        return Effect(took=seen.how == "no TLS", seen=f"a verify-full session of our own: {seen} ({seen.text[:120]})", count=1)

    def heal(self) -> None:
        self.server.tls(enabled=True)


@dataclass(slots=True)
class Restart:
    """PostgreSQL is stopped for as long as the window lasts, then started again."""

    server: Server
    mode: str
    probe_conninfo: str
    id: str = "restart"
    title: str = "PostgreSQL stopped and restarted"

    def inject(self) -> None:
        self.server.stop(self.mode)

    def confirm(self) -> Effect:
        seen = connect(self.probe_conninfo)
        return Effect(took=seen.how != "answer", seen=f"a session of our own: {seen}", count=1)

    def heal(self) -> None:
        self.server.start()


@dataclass(slots=True)
class Locks:
    """Every table of the target's is locked (ACCESS EXCLUSIVE), so each of its queries waits and holds its pool slot.

    `step` adds one more request to the traffic; it is called until no more of the target's sessions come to wait: its pool (or its
    threads) is then exhausted, and one more request than that is on its way. `locked` is how many tables are; -1 when it failed.
    """

    server: Server
    step: Callable[[], None]
    pause: Callable[[float], None]
    id: str = "locks"
    title: str = "every table locked: the target's pool is held by waiting queries"
    limit: int = 24
    _session: psycopg.Connection[tuple[object, ...]] | None = field(default=None)
    locked: int = -1
    _waiting: int = 0

    def inject(self) -> None:
        for _ in range(5):  # a query of the target's in mid-flight can hold us up, or be our partner in a deadlock
            try:
                self._lock()
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                self.heal()
            else:
                return

    def _lock(self) -> None:
        self._session = admin(self.server)
        self._session.autocommit = False
        tables = self._session.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%'"
        ).fetchall()
        self._session.execute("SET LOCAL lock_timeout = '1s'")
        for schema, table in tables:
            self._session.execute(
                sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(str(schema), str(table)))
            )
        self.locked = len(tables)

    def confirm(self) -> Effect:
        with admin(self.server) as session:
            flat = 0
            for _ in range(self.limit):
                self.step()
                self.pause(0.12)
                waiting = self._count(session)
                flat = flat + 1 if waiting <= self._waiting else 0
                self._waiting = max(waiting, self._waiting)
                if flat >= 2:
                    break
        return Effect(
            took=self._waiting > 0,
            seen=f"{self._waiting} of the target's sessions waited for a lock at once",
            count=self._waiting,
        )

    def _count(self, session: psycopg.Connection[tuple[object, ...]]) -> int:
        row = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'", (self.server.app_user,)
        ).fetchone()
        assert row is not None
        return int(str(row[0]))

    def heal(self) -> None:
        if self._session is not None:
            self._session.rollback()
            self._session.close()
            self._session = None


@dataclass(slots=True)
class Slots:
    """Every connection slot of the server is taken (max_connections), after the target's sessions were closed.

    The blockers connect as the target's own role, so that only the superuser's reserved slots stay free.
    """

    server: Server
    blocker_conninfo: str
    probe_conninfo: str
    pause: Callable[[float], None]
    id: str = "slots"
    title: str = "max_connections reached: the server has no slot left"
    _held: list[psycopg.Connection[tuple[object, ...]]] = field(default_factory=list)

    def inject(self) -> None:
        """A backend frees its slot a moment after it was told to end, so slots are taken until a probe finds none, twice."""
        full = 0
        for _ in range(20):
            if self._targets():
                terminate(self.server)
            self._fill()
            full = full + 1 if connect(self.probe_conninfo).how == "53300" and not self._targets() else 0
            if full == 2:
                return
            self.pause(0.05)

    def _fill(self) -> None:
        """Take slots until the server says that there are none."""
        for _ in range(200):
            try:
                self._held.append(
                    psycopg.connect(self.blocker_conninfo, autocommit=True, application_name=BLOCKER, connect_timeout=5)
                )
            except psycopg.OperationalError:
                return

    def _targets(self) -> int:
        with admin(self.server) as session:
            row = session.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> ALL (%s)",
                (self.server.app_user, list(OURS)),
            ).fetchone()
        assert row is not None
        return int(str(row[0]))

    def confirm(self) -> Effect:
        seen = connect(self.probe_conninfo)
        left = self._targets()
        return Effect(
            took=seen.how == "53300",
            seen=f"{len(self._held)} slots taken, {left} left to the target; a session of our own: {seen}",
            count=len(self._held),
        )

    def heal(self) -> None:
        for session in self._held:
            with contextlib.suppress(psycopg.Error):
                session.close()
        self._held.clear()
        for _ in range(100):  # a backend frees its slot a moment after its client has gone
            if connect(self.probe_conninfo).how == "answer":
                return
            self.pause(0.05)
        raise CleanupFailed(
            "the server's slots did not become free again",
            remedy="the environment is thrown away with the run; run again",
            where="PostgreSQL",
        )
