"""Between a process of ours and the one that sends: JSON lines over a loopback connection, both ways.

A pipe would do for one direction; this does for both, survives in a process that gevent has patched, and ends with either side.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from chaos.errors import PartFailed
from chaos.model import Interval, Kind, Layer, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path


VARIABLE = "CHAOS_LOAD_LINK"  # port:token, in the environment of the process that is started
STARTS = 60.0  # s until it has to be there
SILENT = 120.0  # s without a word after which nobody is there any more (a heartbeat comes every second)
ACKNOWLEDGED = 10.0  # s in which a command is answered
LONGEST = 1 << 26  # bytes of a line


class Running(Protocol):
    """A process that was started, as `chaos.processes.Process`."""

    pid: int

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""

    def wait(self, seconds: float) -> int | None:
        """Its exit status, None when it still runs then."""

    def tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of its log."""

    def stop(self) -> None:
        """End it."""


class Spawns(Protocol):
    """What starts processes and forgets none, as `chaos.processes.Reaper`."""

    def spawn(self, argv: Sequence[str], *, name: str, cwd: Path, env: Mapping[str, str], log: Path) -> Running:
        """Start it, its output appended to `log`."""


class Link:
    """The side of who starts the process. `heard` is called for each message, in a thread of this object's."""

    def __init__(self, *, name: str, reaper: Spawns, directory: Path, heard: Callable[[dict[str, Any]], None]) -> None:
        self._name = name
        self._reaper = reaper
        self._directory = directory
        self._heard = heard
        self._log = directory / f"{name}.log"
        self._process: Running | None = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._last = 0.0
        self._number = 0
        self._answers: dict[int, threading.Event] = {}
        self._ended = threading.Event()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    def start(
        self, argv: Sequence[str], first: dict[str, Any], *, env: Mapping[str, str] | None = None, within: float = STARTS
    ) -> None:
        """Start it, and tell it the first message, which it has to obey `within` seconds. PartFailed when it does not come."""
        self._directory.mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(0.2)
            told = {**os.environ, **(env or {}), VARIABLE: f"{server.getsockname()[1]}:{token}"}
            self._process = self._reaper.spawn(
                [sys.executable, *argv], name=self._name, cwd=self._directory, env=told, log=self._log
            )
            self._socket = self._accepted(server, token)
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._read, name=self._name, daemon=True)
        self._thread.start()
        self.ask(first, within=within)

    def _accepted(self, server: socket.socket, token: str) -> socket.socket:
        deadline = time.monotonic() + STARTS
        while time.monotonic() < deadline:
            self._alive()
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connection.settimeout(5.0)
            with suppress(OSError):
                if secrets.compare_digest(connection.recv(len(token), socket.MSG_WAITALL), token.encode()):
                    connection.settimeout(None)
                    return connection
            connection.close()
        raise self._failure("it did not come up")

    def _read(self) -> None:
        assert self._socket is not None
        with suppress(OSError, ValueError), self._socket.makefile("rb") as lines:
            while line := lines.readline(LONGEST):
                self._last = time.monotonic()
                message = json.loads(line)
                if (number := message.pop("did", None)) is not None and (waiting := self._answers.pop(number, None)):
                    waiting.set()
                if message:
                    self._heard(message)
        self._ended.set()

    def ask(self, message: dict[str, Any], *, within: float = ACKNOWLEDGED) -> None:
        """Tell it something, and wait until it has been done. PartFailed when it is not."""
        self._number += 1
        answered = self._answers[self._number] = threading.Event()
        assert self._socket is not None, "it was not started"
        with suppress(OSError):  # told below
            self._socket.sendall(json.dumps({**message, "number": self._number}).encode() + b"\n")
        deadline = time.monotonic() + within
        while not answered.wait(0.1):
            self._alive()
            if time.monotonic() > deadline:
                raise self._failure(f"it did not obey within {within:g} s")

    def check(self) -> None:
        """PartFailed when it has ended, or has said nothing for two minutes."""
        self._alive()
        if self._thread is not None and (silent := time.monotonic() - self._last) > SILENT:
            raise self._failure(f"it has said nothing for {silent:.0f} s")

    def _alive(self) -> None:
        if self._process is None:
            return
        status = self._process.poll()
        if status is None and not self._ended.is_set():
            return
        self._process.wait(1.0)
        raise self._failure(f"it ended by itself (status {self._process.poll()})")

    def _failure(self, what: str) -> PartFailed:
        tail = self._process.tail(6) if self._process is not None else ()
        return PartFailed(
            what, remedy=f"see {self._log.name} in the run's directory; then start the run again", where=self._name, tail=tail
        )

    def close(self) -> None:
        """End the process, once all that it said has been read."""
        if self._process is None:
            return
        if self._thread is not None:
            self._ended.wait(2.0)
        self._process.stop()
        if self._thread is not None:
            self._thread.join(5.0)
        if self._socket is not None:
            self._socket.close()
        self._process = None


class Child:
    """The side of the process that was started; on an event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connected(cls) -> Child:
        """To who started this process. KeyError when nobody did."""
        port, _, token = os.environ.pop(VARIABLE).partition(":")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port), limit=LONGEST)
        writer.write(token.encode())
        return cls(reader, writer)

    async def next(self) -> dict[str, Any] | None:
        """The next message; None when the other side has gone."""
        with suppress(OSError, ValueError):
            if line := await self._reader.readline():
                return dict(json.loads(line))
        return None

    def say(self, message: dict[str, Any]) -> None:
        """Tell the other side."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> None:
        """After everything was said."""
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.drain(), 5.0)
            self._writer.close()
            await asyncio.wait_for(self._writer.wait_closed(), 5.0)


def intervals(told: Iterable[dict[str, Any]]) -> tuple[Interval, ...]:
    """Out of a message."""
    return tuple(Interval(**{**one, "kind": Kind(one["kind"])}) for one in told)


def operations(told: Iterable[dict[str, Any]]) -> tuple[Operation, ...]:
    """Out of a message."""
    return tuple(Operation(**{**one, "kind": Kind(one["kind"]), "layer": Layer(one["layer"])}) for one in told)
