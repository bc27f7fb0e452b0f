"""What is recorded of connections. Written by the wire's thread, read from any other as frozen `Connection`s."""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Literal

from chaos.model import Connection, Rung, now

_STEPS = 40  # a client that talks for ever must not fill the memory
_KEPT = 50_000  # connections; a soak of 72 h with a target that retries every few seconds stays below it
End = Literal["client", "server", "wire"]


class Record:
    """One connection, while it lasts. Nothing that a client sends is kept but its SNI and the names of its messages."""

    __slots__ = (
        "_final", "_steps", "alert", "behaviour", "bytes_down", "bytes_up", "cancel", "closed", "ended_by", "established", "id",
        "opened", "plaintext", "reached", "sni", "tls",
    )  # fmt: skip

    def __init__(self, number: int, behaviour: str) -> None:
        self.id = number
        self.behaviour = behaviour
        self.opened = now()
        self.closed = 0.0
        self.reached = Rung.NOTHING
        self.tls = self.established = self.plaintext = self.cancel = False
        self.sni = self.alert = ""
        self.ended_by: End | Literal[""] = ""
        self.bytes_up = self.bytes_down = 0
        self._steps: list[tuple[float, str]] = []
        self._final: Connection | None = None

    def step(self, what: str) -> None:
        """Note what happened, with the time."""
        if len(self._steps) < _STEPS:
            self._steps.append((now(), what))

    def reach(self, rung: Rung, what: str = "") -> None:
        """The client got (at least) as far as this rung."""
        if rung > self.reached:
            self.reached = rung
            self.step(what or rung.name)

    def establish(self) -> None:
        """An authenticated session stands."""
        if not self.established:
            self.established = True
            self.step("established")

    def end(self, by: End, how: str) -> None:
        """The first end counts: who gave the connection up, and how ('FIN', 'RST', ...)."""
        if not self.closed:
            self.closed, self.ended_by = now(), by
            self.step(f"{how} by {by}")

    def finish(self) -> None:
        """Nothing will be added any more."""
        self.end("wire", "end")
        self._final = self.snapshot()

    @property
    def finished(self) -> bool:
        """Whether `finish` was called."""
        return self._final is not None

    def snapshot(self) -> Connection:
        """As it is now."""
        return self._final or Connection(
            id=self.id,
            opened=self.opened,
            behaviour=self.behaviour,
            closed=self.closed,
            reached=self.reached,
            tls=self.tls,
            established=self.established,
            plaintext=self.plaintext,
            cancel=self.cancel,
            sni=self.sni,
            alert=self.alert,
            ended_by=self.ended_by,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            steps=tuple(self._steps),
        )


class Ledger:
    """All records, in the order in which the connections came. Beyond `kept` the oldest finished ones are dropped, and counted."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._records: list[Record] = []
        self._mutex = threading.Lock()
        self._kept = kept
        self._count = 0
        self.dropped = 0

    def open(self, behaviour: str) -> Record:
        """A new record."""
        with self._mutex:
            self._count += 1
            record = Record(self._count, behaviour)
            self._records.append(record)
            if len(self._records) > self._kept:
                self._drop()
            return record

    def since(self, when: float) -> tuple[Connection, ...]:
        """Snapshots of all connections opened at `when` or later."""
        with self._mutex:
            found = self._records[bisect_left(self._records, when, key=lambda record: record.opened) :]
        return tuple(record.snapshot() for record in found)

    def forget(self, before: float) -> None:
        """Records of connections that were opened and had ended before then."""
        with self._mutex:
            young = bisect_left(self._records, before, key=lambda record: record.opened)
            self._records[:young] = [one for one in self._records[:young] if not one.finished or one.closed >= before]

    def moved(self) -> int:
        """Bytes that all connections have moved so far, both ways."""
        with self._mutex:
            return sum(record.bytes_up + record.bytes_down for record in self._records)

    def _drop(self) -> None:
        """A tenth at once, so that it need not be done for each."""
        old = self._kept // 10 + 1
        remain = [record for record in self._records[:old] if not record.finished]
        self.dropped += old - len(remain)
        self._records[:old] = remain
