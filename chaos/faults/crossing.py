"""Network faults crossed with the state of the target's connections, the direction, and the length; and a path that flaps.

    network.py's rows  x  new | idle | flight  x  up | down | both  x  short | long

Up is from the target to its database. A row that is refused or reset has no direction. What is in flight is made so by a lock: the
target's queries wait in PostgreSQL when the fault strikes, and are answered into it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from chaos.errors import CleanupFailed, PartFailed
from chaos.faults.contention import tables
from chaos.faults.database import OURS, admin
from chaos.faults.network import NETWORK, NetworkFault
from chaos.faults.probe import PooledProbe, Rule, Seen, ask, connect
from chaos.model import Effect, now

if TYPE_CHECKING:
    import random

    from chaos.faults.database import Server
    from chaos.faults.toxiproxy import ProxyControl
    from chaos.ledger import Restore

STATES = {"new": "new connections", "idle": "idle connections", "flight": "queries in flight"}
LENGTHS = {"short": "for a moment", "long": "for longer than the target's deadlines"}
ONE_WAY = {"blackhole", "latency", "bandwidth", "slicer", "cut"}
DIRECTIONS = {"up": "from the target to its database", "down": "from the database to the target", "both": ""}
SILENCE = 0.5  # s without an answer on loopback, where one takes a hundredth of it
# What a probe asks for, or sends. It is through in half a second at the lowest rate: a connection that ends while Toxiproxy (2.12)
# still has something for it, in the moment in which a toxic is removed, can block it for good.
ASKED = 2_048
PATIENCE = 2.5  # s for that
UP_CUT = 600  # bytes: inside a client's part of a handshake
Flow = Callable[[], Mapping[int, tuple[int, int]]]
"""Bytes (up, down) of the target's open connections as the wire counted them, by connection."""


def directions(fault: NetworkFault) -> tuple[str, ...]:
    """In which a row can be played."""
    return ("up", "down") if fault.id in ONE_WAY else ("both",)


def _slower(floor: float) -> Rule:
    return lambda _before, seen: seen.how == "silence" or seen.seconds >= floor


# What a whole new session takes at least when the client's part of it (a kilobyte) goes through the toxic.
_UP_NEW: Mapping[str, Rule] = {"bandwidth": _slower(0.1), "slicer": _slower(0.05)}


def turned(fault: NetworkFault, direction: str) -> NetworkFault:
    """The row, its toxics in one direction only."""
    if direction == "both":
        return fault
    streams = {"up": "upstream", "down": "downstream"}
    toxics = {one.kind: replace(one, stream=streams[direction]) for one in fault.toxics}
    if fault.id == "cut" and direction == "up":
        toxics = {kind: replace(one, attributes={"bytes": UP_CUT}) for kind, one in toxics.items()}
    return replace(fault, toxics=tuple(toxics.values()))


BY_ID = {fault.id: fault for fault in NETWORK}


@dataclass(slots=True)
class InFlight:
    """The target's queries, held in PostgreSQL by locks on all of its tables, and let go into whatever was broken meanwhile."""

    server: Server
    waiting: int = 0
    locked: int = 0
    _session: psycopg.Connection[tuple[object, ...]] | None = field(default=None)

    def hold(self, seconds: float = 1.5) -> None:
        """Until a session of the target's waits; `waiting` of them do."""
        self._session = admin(self.server)
        self._session.autocommit = False
        try:
            found = tables(self._session)
            self._session.execute("SET LOCAL lock_timeout = '1s'")
            for table in found:
                self._session.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table))
            self.locked = len(found)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            self._session.rollback()  # a query of the target's was in the way: it is in flight itself
        deadline = time.monotonic() + seconds
        with admin(self.server) as session:
            while self.waiting < 2 and time.monotonic() < deadline:
                row = session.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> ALL (%s) "
                    "AND wait_event_type = 'Lock'",
                    (self.server.app_user, list(OURS)),
                ).fetchone()
                self.waiting = max(self.waiting, int(str(row[0])) if row else 0)
                time.sleep(0.02)

    def let_go(self) -> None:
        """Idempotent."""
        if self._session is not None:
            self._session.close()  # which rolls back
            self._session = None


@dataclass(slots=True)
class Crossing:
    """One row, in one direction, on connections in one state. `flow` counts the target's bytes; see `Flow`."""

    fault: NetworkFault
    state: str
    direction: str
    control: ProxyControl
    proxy: str
    conninfo: str
    port: int
    sever: Callable[[], int]
    flow: Flow
    flight: InFlight
    id: str = field(init=False)
    title: str = field(init=False)
    began: float = 0.0
    _probe: PooledProbe | None = field(default=None)
    _before: Restore | None = field(default=None)
    _whole: Seen = field(default=Seen("never asked", 0.0))

    def __post_init__(self) -> None:
        where = DIRECTIONS[self.direction]
        self.id = ".".join(filter(None, (self.fault.id, self.state, self.direction)))
        self.title = f"{self.fault.title}, {STATES[self.state]}{', ' if where else ''}{where}"
        self.fault = turned(self.fault, self.direction)

    def undo(self) -> tuple[Restore, ...]:
        """The proxy as it is now, without any of the row's toxics."""
        self._before = self.control.undo(self.proxy, (*self.fault.toxics, *self.fault.arm))
        return (self._before,)

    @property
    def armed(self) -> bool:
        """Whether an RST on established connections needs something in place before they are opened."""
        return bool(self.fault.arm) and self.state != "new"

    def arm(self) -> bool:
        """See `NetworkInjector.arm`."""
        for toxic in self.fault.arm if self.armed else ():
            self.control.add(self.proxy, toxic)
        if self.armed:
            self.sever()
        return self.armed

    def inject(self) -> None:
        """The probe is opened, what is in flight is held, the path broken, and what was held let go."""
        self.began = now()
        up = self.direction == "up"
        self._probe = PooledProbe(self.conninfo, self.port, size=0 if up else ASKED, upload=ASKED if up else 0)
        self._whole = connect(self.conninfo)
        if self.state == "flight":
            self.flight.hold()
        try:
            self._break()
        finally:
            self.flight.let_go()

    def _break(self) -> None:
        if self.armed or self.fault.disable:
            self.control.enable(self.proxy, False)
        for toxic in self.fault.arm if self.armed else ():
            self.control.remove(self.proxy, toxic)
        for toxic in self.fault.toxics:
            self.control.add(self.proxy, toxic)
        if self.armed:
            self.control.enable(self.proxy, True)
        if self.state == "new":
            self.sever()

    def confirm(self) -> Effect:
        """A new connection, and an established one where they were left established; and the bytes that the wire counted."""
        assert self._probe is not None
        start = self.flow()
        fresh = ask(self.port, patience=SILENCE)
        took, seen = self.fault.new(_WELL, fresh), f"a new connection saw {fresh}"
        if self.state == "new" and self.fault.id in {"bandwidth", "slicer", "cut"}:
            whole = connect(self.conninfo)
            rule = _UP_NEW.get(self.fault.id, self.fault.pooled) if self.direction == "up" else self.fault.pooled
            took = took and (whole.how != "answer" or rule(self._whole, whole))
            seen += f"; a whole new session saw {whole} ({self._whole} before)"
        elif self.state != "new":
            during = self._probe.query(SILENCE if self.fault.id == "blackhole" else PATIENCE)
            took = took and self.fault.pooled(self._probe.baseline, during)
            seen += f"; an established one saw {during} ({self._probe.baseline} before)"
        if self.fault.arm:
            ended = self._probe.ended() if self.state != "new" else fresh.how
            took, seen = (
                took and ended == "reset",
                f"{seen}; an RST was received (ECONNRESET): {'yes' if ended == 'reset' else ended}",
            )
        if self.fault.id == "blackhole":
            took, seen = self._counted(start, took, seen)
        if self.state == "flight":
            took, seen = took and self.flight.waiting > 0, f"{seen}; {self.flight.waiting} queries were in flight when it struck"
        return Effect(took=took, seen=seen, count=1 + (self.state != "new"))

    def _counted(self, start: Mapping[int, tuple[int, int]], took: bool, seen: str) -> tuple[bool, str]:
        """Not one byte came through from the target. What PostgreSQL sends the other way is lost behind the wire: the probe tells."""
        if self.direction == "down":
            return took, f"{seen}, 0 bytes of it"
        passed = sum(up - start[one][0] for one, (up, _) in self.flow().items() if one in start)
        return took and passed == 0, f"{seen}; the wire counted {passed} bytes from the target on {len(start)} connections"

    def heal(self) -> None:
        """No toxics of ours, enabled as it was, read back."""
        self.flight.let_go()
        self.control.clean(self.proxy, enabled=self._before.enabled if self._before else True)
        if self._probe is not None:
            self._probe.close()
            self._probe = None


_WELL = Seen("answer", 0.005)


@dataclass(slots=True)
class Flapping:
    """The path goes down and up again every few hundred milliseconds; `rng` says when."""

    control: ProxyControl
    proxy: str
    port: int
    rng: random.Random
    id: str = "flapping"
    title: str = "the path to the database flaps, down and up every few 100 ms"
    downs: int = 0
    _before: Restore | None = field(default=None)
    _seen: list[str] = field(default_factory=list)
    _failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = field(default=None)

    def undo(self) -> tuple[Restore, ...]:
        """The proxy as it is now."""
        self._before = self.control.undo(self.proxy, ())
        return (self._before,)

    def inject(self) -> None:
        self._thread = threading.Thread(target=self._flap, name="flapping", daemon=True)
        self._thread.start()

    def _flap(self) -> None:
        try:
            while not self._stop.is_set():
                self.control.enable(self.proxy, False)
                self.downs += 1
                self._seen.append(ask(self.port, patience=0.2).how)
                self._stop.wait(self.rng.uniform(0.15, 0.4))
                self.control.enable(self.proxy, True)
                self._seen.append(ask(self.port, patience=0.2).how)
                self._stop.wait(self.rng.uniform(0.15, 0.4))
        except PartFailed as error:
            self._failed.append(error.what)

    def confirm(self) -> Effect:
        deadline = time.monotonic() + 5.0
        while self.downs < 3 and not self._failed and time.monotonic() < deadline:
            time.sleep(0.05)
        down, up = self._seen.count("refused"), self._seen.count("answer")
        seen = (
            f"a new connection of ours was refused {down} times and answered {up} times, in turn{'; '.join(['', *self._failed])}"
        )
        return Effect(took=down >= 2 and up >= 2, seen=seen, count=down)

    def heal(self) -> None:
        """The thread first: it must not break again what is mended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(12.0)
            if self._thread.is_alive():
                raise CleanupFailed("the flapping does not end", remedy="end this process", where=self.proxy)
        self.control.clean(self.proxy, enabled=self._before.enabled if self._before else True)
