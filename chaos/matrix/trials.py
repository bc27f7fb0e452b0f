"""Every row of the catalogue in front of every driver at every setting, and what each gave away.

A lane is one driver at one setting: a wire of its own, a process of its own, one row after the other. Lanes run side by side. Before
its rows a lane has to connect to the real server (control), and beside each wrong certificate there is the one that differs from
it by the defect alone: a driver that cannot connect at all holds nothing.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from chaos.faults.wire import Wire
from chaos.faults.wire.rows import ROWS, VALID, Issue, Row, twin
from chaos.matrix.drivers import Client, Driver
from chaos.model import Rung, now
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from chaos.faults.wire import Behaviour
    from chaos.model import Connection

LIMIT = 6.0  # s in which a driver has to give up by itself: twice the 3 s that it is told at its strictest
ITERATING = 4.0  # s for row A7, which costs a core for as long as it lasts
CLOSING = 1.0  # s in which a driver that has answered has closed its connections
LANES = 6
STRICT = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The real PostgreSQL behind the wires: where it is, who may log in, and the authority that clients are given."""

    port: int
    user: str
    password: str
    database: str
    host: str
    ca_file: Path
    issue: Issue
    host_of: Callable[[str], str]
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What came of one row. `outcome`: 'holds', 'gives' (something away), 'refuses' (what is right), 'hangs', 'n/a', 'unproven'.

    `reached` is the highest rung of all its connections, `plaintext` whether any of them went on without TLS, and `clear` the highest
    rung of those.
    """

    driver: str
    mode: str
    row: str
    outcome: str
    reached: Rung = Rung.NOTHING
    plaintext: bool = False
    clear: Rung = Rung.NOTHING
    connections: int = 0
    seconds: float = 0.0
    answer: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A driver's cells at all its settings; `missing` says why there are none."""

    driver: Driver
    version: str = ""
    missing: str = ""
    cells: tuple[Cell, ...] = ()


def questions(rows: Iterable[Row]) -> list[tuple[Row, str]]:
    """Each row, with what the driver is asked to do: '' or a verb. Libpq can cancel in two ways (P16): two questions."""
    return [(row, verb) for row in rows for verb in (("cancel", "cancel_safe") if row.when == "cancel" else ("",))]


def run(drivers: Sequence[Driver], rows: Sequence[Row], server: Server, *, say: Callable[[str, int, int], None]) -> list[Result]:
    """All drivers, `LANES` lanes at a time. `say(what, done, of)` hears how far it is."""
    found = {driver.name: _look(driver) for driver in drivers}
    lanes = [Lane(driver, mode, server) for driver in drivers if not found[driver.name][1] for mode in driver.modes]
    asked = questions(rows)
    done, lock = 0, threading.Lock()

    def tick(lane: Lane) -> None:
        nonlocal done
        with lock:
            done += 1
            say(f"{lane.driver.name}, {lane.mode}", done, len(lanes) * len(asked))

    with ThreadPoolExecutor(LANES) as pool:
        cells = [cell for one in pool.map(lambda lane: lane.run(asked, lambda: tick(lane)), lanes) for cell in one]
    return [
        Result(
            driver=driver,
            version=found[driver.name][0],
            missing=found[driver.name][1],
            cells=tuple(cell for cell in cells if cell.driver == driver.name),
        )
        for driver in drivers
    ]


def _look(driver: Driver) -> tuple[str, str]:
    """(version, why it cannot be used)."""
    client = Client(driver)
    try:
        return (client.version, "") if client.start() else ("", f"not installed: {client.said}")
    finally:
        client.stop()


@cache
def resolves(host: str) -> bool:
    """Whether this machine finds the name on its loopback."""
    try:
        return any(str(one[4][0]) == "127.0.0.1" for one in socket.getaddrinfo(host, 1))
    except OSError:
        return False


def inapplicable(driver: Driver, mode: str, row: Row, host: str) -> str:
    """Why a row says nothing of a driver at a setting; '' when it does."""
    if row.when == "gss":
        return "needs credentials of Kerberos: without them no client asks for GSS encryption"
    options = set(row.client) | ({"sslnegotiation"} if row.when == "direct" else set())
    options |= {"system"} if row.client.get("sslrootcert") == "system" else set()
    options -= {"sslmode", "sslrootcert"}
    if options and mode != STRICT:
        return "is about an option that is set at the strictest only"
    if options - driver.knows:
        return f"has no {', '.join(sorted(options - driver.knows))}"
    if "hostaddr" not in driver.knows and not resolves(host):
        return f"this machine does not resolve {host}"
    return ""


@dataclass
class Lane:
    """One driver at one setting."""

    driver: Driver
    mode: str
    server: Server
    _pairs: dict[str, str] = field(default_factory=dict)

    def run(self, asked: Sequence[tuple[Row, str]], tick: Callable[[], None]) -> list[Cell]:
        """A cell for each question."""
        self.wire = Wire(("127.0.0.1", self.server.port))
        self.port = self.wire.start()
        self.client = Client(self.driver)
        try:
            control = self._trial(VALID, "", VALID.make(self.server.issue))
            sick = "" if control.outcome == "holds" else f"cannot connect at all: {control.answer or control.reason}"
            cells = []
            for row, verb in asked:
                cells.append(self._cell(row, verb, sick))
                tick()
            again = self._trial(VALID, "", VALID.make(self.server.issue))
            if again.outcome != "holds":  # whatever happened to it on the way, what it seemed to hold since is in doubt
                why = f"cannot connect any more, when all rows are through: {again.answer or again.reason}"
                cells = [_but(one, outcome="unproven", reason=why) if one.outcome == "holds" else one for one in cells]
            return cells
        finally:
            self.client.stop()
            self.wire.stop()

    def _cell(self, row: Row, verb: str, sick: str) -> Cell:
        name = f"{row.id}.safe" if verb == "cancel_safe" else row.id
        base = Cell(driver=self.driver.name, mode=self.mode, row=name, outcome="n/a")
        why = inapplicable(self.driver, self.mode, row, self._host(row))
        if why or sick:
            return _but(base, outcome="n/a" if why else "unproven", reason=why or sick)
        seen = _but(self._trial(row, verb, row.make(self.server.issue)), row=name)
        if seen.outcome == "holds" and row.must == "reject" and row.entry != row.pair:
            wrong = self._pair(row)
            if wrong:
                return _but(seen, outcome="unproven", reason=wrong)
        return seen

    def _pair(self, row: Row) -> str:
        """'' when the driver goes on to StartupMessage with the certificate that differs by the defect alone."""
        key = f"{row.pair} {row.host} {sorted(row.client)}"
        if key not in self._pairs:
            host = next((one.host for one in ROWS if one.entry == row.pair), row.host)
            seen = self._trial(replace(row, host=host), "", twin(row)(self.server.issue))
            good = seen.reached >= Rung.STARTUP
            self._pairs[key] = "" if good else f"refuses {row.pair!r} as well, which has no defect: {seen.answer or seen.reason}"
        return self._pairs[key]

    def _host(self, row: Row) -> str:
        return self.server.host_of(row.host)

    def _url(self, row: Row) -> str:
        """The driver's URL at this setting, with what the row asks of the client."""
        server = self.server
        options = {key: value.replace("{ca_file}", str(server.ca_file)) for key, value in self.driver.modes[self.mode].items()}
        for key, value in row.client.items():
            options[key] = str(server.files[value[1:-1]]) if value.startswith("{") else value
        if row.when == "direct":
            options["sslnegotiation"] = "direct"
        host = self._host(row)
        if "hostaddr" in self.driver.knows and not resolves(host):
            options["hostaddr"] = "127.0.0.1"
        query = f"?{urlencode(options, safe='/')}" if options else ""
        return f"postgresql://{server.user}:{quote(server.password)}@{host}:{self.port}/{server.database}{query}"

    def _trial(self, row: Row, verb: str, behaviour: Behaviour) -> Cell:
        """One connection of the driver's, as the wire saw it."""
        trusting = {"SSL_CERT_FILE": str(self.server.ca_file)} if row.client.get("sslrootcert") == "system" else {}
        if trusting != self.client.env:
            self.client.stop()
            self.client = Client(self.driver, trusting)
        if not self.client.start():
            return Cell(driver=self.driver.name, mode=self.mode, row=row.id, outcome="unproven", reason=self.client.said)
        self.wire.behave(behaviour)
        since, started = now(), time.monotonic()
        answer = self.client.ask(f"{self._url(row)} {verb}".strip(), ITERATING if row.base == "A7" else LIMIT)
        seconds = time.monotonic() - started
        if answer is not None:
            wait_for(lambda: all(one.closed for one in self.wire.connections(since)), CLOSING)
        self.wire.sever()
        met = self.wire.connections(since)
        cell = Cell(
            driver=self.driver.name,
            mode=self.mode,
            row=row.id,
            outcome="",
            reached=max((one.reached for one in met if not one.cancel), default=Rung.NOTHING),
            plaintext=any(one.plaintext for one in met if not one.cancel),
            clear=max((one.reached for one in met if one.plaintext and not one.cancel), default=Rung.NOTHING),
            connections=len(met),
            seconds=round(seconds, 2),
            answer=(answer or "").replace(self.server.password, "***"),
        )
        outcome, reason = judge(row, cell, met, hung=answer is None)
        return _but(cell, outcome=outcome, reason=reason)


def judge(row: Row, cell: Cell, met: Sequence[Connection], *, hung: bool) -> tuple[str, str]:
    """(outcome, reason) of what one driver did."""
    if row.when == "cancel":
        cancels = [one for one in met if one.cancel]
        if not cancels:
            return "n/a", "did not cancel: " + cell.answer.removeprefix("error ")
        open_ones = [one for one in cancels if not one.tls]
        return ("gives", "the session's key went out in plaintext") if open_ones else ("holds", "cancelled inside TLS")
    if hung and (row.must == "bounded" or row.base == "A7"):
        return "hangs", f"no end after {cell.seconds:.0f} s"
    went_on = cell.reached >= row.until or (cell.plaintext and row.until <= Rung.STARTUP)
    if row.must == "connect":
        good = went_on or (row is VALID and cell.answer == "ok")
        return ("holds", "") if good else ("refuses", cell.answer)
    if row.must == "bounded":
        return "holds", ""
    return ("gives", "in plaintext" if cell.plaintext else "") if went_on else ("holds", "")


def _but(cell: Cell, **change: object) -> Cell:
    return replace(cell, **change)  # type: ignore[arg-type]
