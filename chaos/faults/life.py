"""What happens to a database server in its life: a process killed, a long recovery, fail-over, a full disk.

Each is done to a real PostgreSQL by real means (SIGKILL, archive recovery, pg_basebackup and pg_ctl promote, a file system without
room); the server is handed in as a `LivingServer`, which only one on this machine is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import psycopg

from chaos.errors import CleanupFailed
from chaos.faults.database import OURS, Server, admin
from chaos.faults.probe import Seen, connect
from chaos.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE = 10.0  # s for a server to do what it was told


class SmallDisk(Protocol):
    """The file system that the WAL is on."""

    def fill(self) -> int:
        """Take all that is free; how many bytes."""

    def empty(self) -> None:
        """Give it back."""


class LivingServer(Server, Protocol):
    """A server whose processes and files are within reach."""

    port: int

    def log_offset(self) -> int:
        """Where the server's log ends now."""

    def log_since(self, offset: int) -> list[str]:
        """The whole lines of the server's log after `offset`."""

    def crash(self) -> None:
        """SIGKILL to the postmaster."""

    def kill_backend(self, pid: int) -> bool:
        """SIGKILL to a backend; whether there was one with this pid."""

    def recover_slowly(self) -> None:
        """Start it in a recovery that goes on until `recovered` is called."""

    def recovered(self) -> None:
        """Let the recovery end; it takes connections when this returns."""

    def adjust(self, settings: Mapping[str, str]) -> None:
        """These settings on top of its own, reloaded; {} takes them off."""


class DiskedServer(LivingServer, Protocol):
    """A server whose WAL can be put on a disk of its own."""

    def small_disk(self) -> SmallDisk:
        """Restart it with its WAL there."""

    def usual_disk(self) -> None:
        """Back to where it was, and running. Idempotent."""


def targets(server: Server) -> list[int]:
    """The pids of the target's backends, those at work first."""
    with admin(server) as session:
        rows = session.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = %s AND application_name <> ALL (%s) "
            "ORDER BY state = 'active' DESC, backend_start",
            (server.app_user, list(OURS)),
        ).fetchall()
    return [int(str(row[0])) for row in rows]


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether it came to hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def answers(conninfo: str) -> None:
    """CleanupFailed unless a session of our own gets an answer again."""
    seen: list[Seen] = []

    def answered() -> bool:
        seen.append(connect(conninfo))
        return seen[-1].how == "answer"

    if not until(answered):
        raise CleanupFailed(
            f"the database does not answer again: {seen[-1]}",
            remedy="the environment is thrown away with the run; run again",
            where="PostgreSQL",
        )


@dataclass(slots=True)
class BackendKilled:
    """One of the target's backends gets SIGKILL (as the out-of-memory killer does it): PostgreSQL ends all sessions and recovers.

    https://www.postgresql.org/docs/current/server-shutdown.html; the clients are told 57P02, or nothing.
    """

    server: LivingServer
    probe_conninfo: str
    id: str = "life.backend"
    title: str = "a backend is killed (SIGKILL), and PostgreSQL with it recovers from a crash"
    _offset: int = 0

    def inject(self) -> None:
        """A service may hold a connection for no longer than a request: it is waited for one."""
        self._offset = self.server.log_offset()
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            if any(self.server.kill_backend(pid) for pid in targets(self.server)[:1]) and until(lambda: self._crashes() > 0, 0.5):
                return
            time.sleep(0.01)

    def confirm(self) -> Effect:
        until(lambda: self._crashes() > 0, 2.0)
        return Effect(
            took=self._crashes() > 0,
            seen=f"PostgreSQL's log: {self._crashes()} backend terminated by signal 9, all others ended",
            count=self._crashes(),
        )

    def _crashes(self) -> int:
        return sum("was terminated by signal 9" in line for line in self.server.log_since(self._offset))

    def heal(self) -> None:
        answers(self.probe_conninfo)


@dataclass(slots=True)
class PostmasterKilled:
    """The postmaster gets SIGKILL, and somebody starts it again: nobody says goodbye, and the start is a recovery."""

    server: LivingServer
    probe_conninfo: str
    id: str = "life.postmaster"
    title: str = "the postmaster is killed (SIGKILL) and started again"

    def inject(self) -> None:
        self.server.crash()

    def confirm(self) -> Effect:
        seen = connect(self.probe_conninfo)
        return Effect(took=seen.how != "answer", seen=f"a session of our own: {seen}", count=1)

    def heal(self) -> None:
        self.server.start()
        answers(self.probe_conninfo)


@dataclass(slots=True)
class LongRecovery:
    """A crash, and a recovery that takes as long as the window: the server is there, and answers 57P03 to everybody."""

    server: LivingServer
    probe_conninfo: str
    id: str = "life.recovery"
    title: str = "PostgreSQL recovers for long: 'the database system is starting up'"

    def inject(self) -> None:
        self.server.crash()
        self.server.recover_slowly()

    def confirm(self) -> Effect:
        seen: list[Seen] = []

        def told() -> bool:
            seen.append(connect(self.probe_conninfo))
            return seen[-1].how == "57P03"

        took = until(told, 3.0)
        return Effect(took=took, seen=f"a session of our own: {seen[-1]} ({seen[-1].text[-60:]})", count=len(seen))

    def heal(self) -> None:
        self.server.recovered()
        answers(self.probe_conninfo)


@dataclass(slots=True)
class Failover:
    """The primary is gone, its standby is promoted, and takes its place behind the same address.

    `demoted`: it is a planned one, and the old primary goes on answering there as a read-only standby of the new one (25006) until the
    address moves; sessions with it stay open even then, as a DNS change or a proxy that drains leaves them. Otherwise it is killed.
    The standby was synchronous, so that whatever was acknowledged is in it. `promote` and `follow` make
    the standby lead and the old primary follow it; `move` points the address at a port.
    """

    primary: LivingServer
    standby: LivingServer
    promote: Callable[[], None]
    follow: Callable[[], None]
    move: Callable[[int], None]
    probe_conninfo: str
    demoted: bool = False
    id: str = "life.failover"
    title: str = "the primary dies; its standby is promoted and takes its place"
    _promoted: bool = field(default=False)

    def inject(self) -> None:
        if not self.demoted:
            self.primary.crash()
            return
        self.primary.stop("fast")  # waits until the standby has got everything
        self._lead()
        self.follow()

    def _lead(self) -> None:
        if not self._promoted:
            self.promote()
            self._promoted = True

    def confirm(self) -> Effect:
        if not self.demoted:
            seen = connect(self.probe_conninfo)
            return Effect(took=seen.how != "answer", seen=f"a session of our own: {seen}", count=1)
        how = read_only(self.probe_conninfo)
        return Effect(
            took=how == "on", seen=f"a session of our own at the target's address: transaction_read_only = {how}", count=1
        )

    def heal(self) -> None:
        self._lead()
        self.move(self.standby.port)
        if not until(lambda: read_only(self.probe_conninfo) == "off"):
            raise CleanupFailed(
                "the promoted standby does not take writes",
                remedy="the environment is thrown away with the run; run again",
                where="PostgreSQL",
            )


def read_only(conninfo: str) -> str:
    """'on' or 'off', as a new session at this address is told; otherwise why there was none."""
    try:
        with psycopg.connect(conninfo, connect_timeout=2, autocommit=True) as session:
            row = session.execute("SHOW transaction_read_only").fetchone()
    except psycopg.Error as error:
        return str(error).strip()[:80]
    return str(row[0]) if row else "unknown"


@dataclass(slots=True)
class DiskFull:
    """No byte is left where the WAL is: whoever writes makes PostgreSQL panic, and its recovery may find no room either.

    https://www.postgresql.org/docs/current/disk-full.html. `inject` starts by writing WAL itself, for not every target writes.
    """

    server: DiskedServer
    disk: SmallDisk
    probe_conninfo: str
    id: str = "life.disk"
    title: str = "no space left where the WAL is"
    _offset: int = 0
    _taken: int = 0

    def inject(self) -> None:
        self._offset = self.server.log_offset()
        self._taken = self.disk.fill()
        self._write()

    def _write(self) -> None:
        """Segments of 1 MB, until PostgreSQL gives up."""
        try:
            with admin(self.server) as session:
                for _ in range(200):
                    session.execute("SELECT pg_logical_emit_message(false, 'chaos-gate', repeat('x', 262144))")
                    if self._panics():
                        return
        except psycopg.Error:
            return

    def _panics(self) -> int:
        return sum("No space left on device" in line for line in self.server.log_since(self._offset))

    def confirm(self) -> Effect:
        until(lambda: self._panics() > 0, 2.0)
        seen = f"{self._taken >> 20} MB were taken; PostgreSQL's log: 'No space left on device', {self._panics()} times"
        return Effect(took=self._panics() > 0, seen=seen, count=self._panics())

    def heal(self) -> None:
        self.disk.empty()
        self.server.stop("immediate")
        self.server.start()
        answers(self.probe_conninfo)
