"""Sessions that get into each other's way: lock storms, cancelled queries, deadlocks, serialization failures, a migration.

The errors are PostgreSQL's own. Where a statement of the target's has to meet another session at a certain point, a trigger brings it
there; its function is an administrator's, does nothing but lock or update a row of ours, and is taken away again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from chaos.errors import CleanupFailed
from chaos.faults.database import ADMIN, OURS, admin
from chaos.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.faults.database import Server
    from chaos.faults.life import LivingServer

    Session = psycopg.Connection[tuple[object, ...]]

FIRST, SECOND = 7_260_001, 7_260_002  # advisory locks of ours
SCHEMA = "chaos_gate"
_TABLES = """SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'chaos_gate')
   AND n.nspname NOT LIKE 'pg_toast%%' ORDER BY 1, 2"""
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> ALL (%s) AND wait_event_type = 'Lock'"
)


def tables(session: Session) -> list[sql.Identifier]:
    """All tables of the target's database."""
    return [sql.Identifier(str(schema), str(name)) for schema, name in session.execute(_TABLES).fetchall()]


def number(session: Session, query: str, *values: object) -> int:
    """A query's one number."""
    row = session.execute(query, values).fetchone()
    return int(str(row[0])) if row else 0


def patiently(session: Session, statement: sql.Composed) -> None:
    """DDL on the target's tables: its work may hold it up for a moment."""
    for turn in range(10):
        try:
            session.execute(statement)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if turn == 9:
                raise
        else:
            return


def _lock_all(session: Session, hold: float) -> None:
    """Every table locked (ACCESS EXCLUSIVE) for `hold` seconds."""
    with session.transaction():
        for table in tables(session):
            session.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
        time.sleep(hold)


class Beside:
    """Work that goes on in a thread until it is told to stop: `step(session)` again and again, in a session of an administrator's.

    A session that breaks is made anew: it is the target that is looked at.
    """

    def __init__(self, server: Server, step: Callable[[Session], None], *, pause: float = 0.02) -> None:
        self._server, self._step, self._pause = server, step, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.Error), admin(self._server) as session:
                session.execute("SET lock_timeout = '2s'")
                session.execute("SET statement_timeout = '5s'")
                while not self._stop.is_set():
                    with contextlib.suppress(psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                        self._step(session)
                    self._stop.wait(self._pause)
            self._stop.wait(self._pause)

    def end(self) -> None:
        """Idempotent; CleanupFailed when it does not end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(12.0)
        if self._thread.is_alive():
            raise CleanupFailed("a session of ours does not end", remedy="end this process", where="PostgreSQL")


@dataclass(slots=True)
class LockStorm:
    """Table after table is locked (ACCESS EXCLUSIVE) for a moment, again and again, each lock queueing behind the target's work."""

    server: Server
    id: str = "life.locks"
    title: str = "a storm of short ACCESS EXCLUSIVE locks"
    hold: float = 0.15
    locked: int = 0
    _waited: int = 0
    _threads: list[Beside] = field(default_factory=list)

    def inject(self) -> None:
        self._threads = [Beside(self.server, self._lock), Beside(self.server, self._look, pause=0.03)]
        for one in self._threads:
            one.start()

    def _lock(self, session: Session) -> None:
        _lock_all(session, self.hold)
        self.locked += 1

    def _look(self, session: Session) -> None:
        self._waited += number(session, _WAITING, self.server.app_user, list(OURS)) > 0

    def confirm(self) -> Effect:
        _until(lambda: self._waited > 2 and self.locked > 2, 4.0)
        seen = f"all tables were locked {self.locked} times; the target's sessions were seen waiting {self._waited} times"
        return Effect(took=self._waited > 0, seen=seen, count=self._waited)

    def heal(self) -> None:
        for one in self._threads:
            one.end()


@dataclass(slots=True)
class Cancelled:
    """The target's queries wait for locks and are cancelled: 57014, as statement_timeout or an administrator brings it about."""

    server: Server
    id: str = "life.cancelled"
    title: str = "queries are cancelled by the server (57014)"
    cancelled: int = 0
    _threads: list[Beside] = field(default_factory=list)

    def inject(self) -> None:
        self._threads = [Beside(self.server, self._lock, pause=0.0), Beside(self.server, self._cancel, pause=0.05)]
        for one in self._threads:
            one.start()

    def _lock(self, session: Session) -> None:
        _lock_all(session, 0.6)

    def _cancel(self, session: Session) -> None:
        self.cancelled += number(
            session,
            "SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity WHERE usename = %s "
            "AND application_name <> ALL (%s) AND wait_event_type = 'Lock'",
            self.server.app_user,
            list(OURS),
        )

    def confirm(self) -> Effect:
        _until(lambda: self.cancelled > 2, 4.0)
        seen = f"{self.cancelled} queries of the target's were cancelled while they waited"
        return Effect(took=self.cancelled > 0, seen=seen, count=self.cancelled)

    def heal(self) -> None:
        for one in self._threads:
            one.end()


_TRIGGER = sql.SQL(
    "CREATE TRIGGER chaos_gate AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH STATEMENT EXECUTE FUNCTION chaos_gate.meet()"
)
_GIVE_UP = (
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND query LIKE '%%ADD COLUMN chaos_gate_column%%' "
    "AND pid <> pg_backend_pid()"
)
_BARE = "BEGIN RETURN NULL; END"
_DEADLOCK = f"BEGIN PERFORM pg_advisory_xact_lock({FIRST}); PERFORM pg_advisory_xact_lock({SECOND}); RETURN NULL; END"
_CONFLICT = f"BEGIN PERFORM pg_sleep(0.03); UPDATE {SCHEMA}.hot SET n = n + 1; RETURN NULL; END"


@dataclass(slots=True)
class Aborted:
    """The target's writes meet another session in a trigger: 'deadlock' (40P01) or 'conflict' (40001, under REPEATABLE READ).

    For a deadlock, our session holds the second of two locks and asks for the first once the target holds it; its own deadlock_timeout
    is long, so the target is the one that PostgreSQL ends (https://www.postgresql.org/docs/current/explicit-locking.html).
    For a conflict, the target's role gets REPEATABLE READ, its sessions are closed, and a row that the trigger updates is updated by
    us all the time (https://www.postgresql.org/docs/current/transaction-iso.html).
    """

    server: LivingServer
    what: str
    sever: Callable[[], int]
    id: str = "life.deadlock"
    title: str = "writes end in a deadlock (40P01)"
    _offset: int = 0
    _beside: Beside | None = None

    @property
    def words(self) -> str:
        """What the server's log says of one."""
        return "deadlock detected" if self.what == "deadlock" else "could not serialize access"

    def inject(self) -> None:
        self._offset = self.server.log_offset()
        deadlock = self.what == "deadlock"
        with admin(self.server) as session:
            session.execute("SET lock_timeout = '1s'")
            session.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
            session.execute(f"CREATE TABLE IF NOT EXISTS {SCHEMA}.hot AS SELECT 0 AS n")
            self._function(session, _DEADLOCK if deadlock else _CONFLICT)
            for table in tables(session):
                patiently(session, _TRIGGER.format(table))
            if not deadlock:
                self._isolation(session, "'repeatable read'")
        if deadlock:
            self.server.adjust({"deadlock_timeout": "100ms"})
        else:
            self.sever()  # the role's new default is for new sessions
        self._beside = Beside(self.server, self._cross if deadlock else self._update, pause=0.005)
        self._beside.start()

    def _isolation(self, session: Session, value: str) -> None:
        role = sql.Identifier(self.server.app_user)
        session.execute(sql.SQL("ALTER ROLE {} SET default_transaction_isolation = {}").format(role, sql.SQL(value)))

    @staticmethod
    def _function(session: Session, body: str) -> None:
        session.execute(
            f"CREATE OR REPLACE FUNCTION {SCHEMA}.meet() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = pg_catalog AS $chaos${body}$chaos$"
        )

    def _cross(self, session: Session) -> None:
        """Hold the second, and ask for the first as soon as somebody else has it."""
        session.execute("SET deadlock_timeout = '60s'")
        with session.transaction():
            session.execute(f"SELECT pg_advisory_xact_lock({SECOND})")
            held = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = {FIRST}"
            if _until(lambda: number(session, held) > 0, 1.0, every=0.005):
                session.execute(f"SELECT pg_advisory_xact_lock({FIRST})")

    @staticmethod
    def _update(session: Session) -> None:
        session.execute(f"UPDATE {SCHEMA}.hot SET n = n + 1")

    def hits(self) -> int:
        """How often it happened to the target."""
        who = f" {self.server.app_user}@{self.server.app_database} ERROR:"
        return sum(self.words in line and who in line for line in self.server.log_since(self._offset))

    def confirm(self) -> Effect:
        _until(lambda: self.hits() > 1, 4.0)
        return Effect(
            took=self.hits() > 0, seen=f"PostgreSQL's log: '{self.words}', {self.hits()} times to the target", count=self.hits()
        )

    def heal(self) -> None:
        if self._beside is not None:
            self._beside.end()
        self.server.adjust({})
        try:
            with admin(self.server) as session:
                session.execute("SET lock_timeout = '1s'")
                self._function(session, _BARE)  # needs no lock on a table: from here on nobody meets anybody
                if self.what != "deadlock":
                    self._isolation(session, "DEFAULT")
                    self.sever()
                for table in tables(session):
                    patiently(session, sql.SQL("DROP TRIGGER IF EXISTS chaos_gate ON {}").format(table))
                session.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(SCHEMA)))
        except psycopg.Error as error:
            raise CleanupFailed(
                f"the triggers could not be taken away: {str(error).strip()[:120]}",
                remedy="the environment is thrown away with the run; run again",
                where="PostgreSQL",
            ) from error


@dataclass(slots=True)
class Migration:
    """ALTER TABLE ... ADD COLUMN ... DEFAULT on every table, waiting behind a long transaction: all that comes after waits as well.

    When the long transaction ends, the columns are added; then they are dropped again, as a migration that is rolled back.
    """

    server: Server
    id: str = "life.migration"
    title: str = "a schema migration waits behind a long transaction, in mid-traffic"
    added: list[sql.Identifier] = field(default_factory=list)
    _waited: int = 0
    _long: Session | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def inject(self) -> None:
        self._long = admin(self.server)
        self._long.autocommit = False
        found = tables(self._long)
        for table in found:
            self._long.execute(sql.SQL("SELECT 1 FROM {} LIMIT 1").format(table))
        self._threads = [
            threading.Thread(target=self._alter, args=(table,), daemon=True, name="migration") for table in found[:16]
        ]
        for one in self._threads:
            one.start()

    def _alter(self, table: sql.Identifier) -> None:
        with contextlib.suppress(psycopg.Error), admin(self.server) as session:
            session.execute(sql.SQL("ALTER TABLE {} ADD COLUMN chaos_gate_column integer NOT NULL DEFAULT 7").format(table))
            self.added.append(table)

    def confirm(self) -> Effect:
        with admin(self.server) as session:
            _until(lambda: self._look(session) > 0, 3.0)
        seen = f"{len(self._threads)} ALTER TABLE behind a long transaction; {self._waited} of the target's sessions waited behind them"
        return Effect(took=self._waited > 0, seen=seen, count=self._waited)

    def _look(self, session: Session) -> int:
        self._waited = max(self._waited, number(session, _WAITING, self.server.app_user, list(OURS)))
        return self._waited

    def heal(self) -> None:
        if self._long is not None:
            self._long.rollback()
            self._long.close()
            self._long = None
        deadline = time.monotonic() + 5.0
        for one in self._threads:
            one.join(max(0.0, deadline - time.monotonic()))
        try:
            with admin(self.server) as session:
                if any(one.is_alive() for one in self._threads):  # a transaction of the target's does not end
                    session.execute(_GIVE_UP, (ADMIN,))
                    for one in self._threads:
                        one.join(5.0)
                session.execute("SET lock_timeout = '2s'")
                while self.added:
                    table = self.added[-1]
                    drop = sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS chaos_gate_column").format(table)
                    patiently(session, drop)
                    self.added.pop()
        except psycopg.Error as error:
            raise CleanupFailed(
                f"the migration could not be rolled back: {str(error).strip()[:120]}",
                remedy="the environment is thrown away with the run; run again",
                where="PostgreSQL",
            ) from error


def _until(condition: Callable[[], bool], seconds: float, *, every: float = 0.02) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
