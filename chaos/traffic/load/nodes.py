"""What runs inside Locust's own processes: a relay on the master, and beside each worker the sender of `chaos.traffic.load`.

Imported by the generated locustfile only, and never by us: Locust patches the standard library (gevent) where it is imported. So the
sender is a process of its own there too, and Locust carries messages: orders from the master, records from the workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.processes import tail
from chaos.traffic.load.link import VARIABLE, Link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HERE, ORDER, DID, SAID = "chaos-here", "chaos-order", "chaos-did", "chaos-said"  # Locust's names of our messages
EXPECTED = "CHAOS_LOAD_WORKERS"
DIRECTORY = "CHAOS_LOAD_DIRECTORY"
AHEAD = 0.5  # s from the orders to the first arrival, the same moment everywhere
OBEYED = 3.0  # s in which the workers carry out a command; who does not is seen by its silence


class Master:
    """Between the run (JSON lines, see `link`) and the workers. Each has a turn, which another one takes over when it is lost."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._turns: dict[int, str] = {}
        self._count = int(os.environ[EXPECTED])
        self._first: dict[str, Any] = {}
        self._then: dict[str, dict[str, Any]] = {}  # the last command of each kind, for who comes later
        self._waiting: dict[int, set[str]] = {}
        self._lock = threading.Lock()
        port, _, token = os.environ.pop(VARIABLE).partition(":")
        self._socket = socket.create_connection(("127.0.0.1", int(port)))
        self._socket.sendall(token.encode())
        runner.register_message(HERE, self._here)
        runner.register_message(SAID, self._said)
        runner.register_message(DID, self._did)
        threading.Thread(target=self._obey, daemon=True).start()

    def _say(self, message: dict[str, Any]) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _obey(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._socket.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if not self._first:
                    self._begin(message)
                else:
                    for kind in ("mark", "rate", "orders"):
                        if kind in message:
                            self._then[kind] = message
                    self._pass_on(message)
        self._runner.quit()  # who started the run has gone

    def _begin(self, message: dict[str, Any]) -> None:
        while len(self._turns) < self._count:
            time.sleep(0.05)
        self._first = {**message, "start": time.time() + AHEAD}
        for turn, client in self._turns.items():
            self._order(turn, client, self._first["start"])
        self._await(message["number"], set(self._turns.values()), within=20.0)

    def _order(self, turn: int, client: str, start: float) -> None:
        orders = {**self._first["orders"], "turn": [turn, self._count], "machine": machine(turn), "start": start}
        self._runner.send_message(ORDER, {"number": self._first["number"], "orders": orders}, client)

    def _pass_on(self, message: dict[str, Any]) -> None:
        clients = {client for client in self._turns.values() if self._alive(client)}
        told = dict(message)
        for turn, client in self._turns.items():
            if "orders" in message:
                told["orders"] = {**message["orders"], "turn": [turn, self._count], "machine": machine(turn)}
            self._runner.send_message(ORDER, told, client)
        self._await(message["number"], clients, within=message.get("within", OBEYED))

    def _alive(self, client: str) -> bool:
        node = self._runner.clients.get(client)
        return node is not None and node.state != "missing"

    def _await(self, number: int, clients: set[str], *, within: float) -> None:
        """Tell the run when all of them have done it."""
        self._waiting[number] = set(clients)
        deadline = time.monotonic() + within
        while self._waiting[number] and time.monotonic() < deadline:
            time.sleep(0.01)
            self._waiting[number] = {client for client in self._waiting[number] if self._alive(client)}
        del self._waiting[number]
        self._say({"did": number})

    def _here(self, msg: Any, **_: Any) -> None:
        """A worker that has no orders yet."""
        client = msg.node_id
        if client in self._turns.values():
            return
        free = [turn for turn in range(self._count) if turn not in self._turns or not self._alive(self._turns[turn])]
        if not free:
            return
        self._turns[free[0]] = client
        if self._first:  # it takes the place of one that was lost
            self._order(free[0], client, time.time() + AHEAD)
            for message in self._then.values():
                self._runner.send_message(ORDER, message, client)

    def _did(self, msg: Any, **_: Any) -> None:
        self._waiting.get(msg.data["number"], set()).discard(msg.node_id)

    def _said(self, msg: Any, **_: Any) -> None:
        for turn, client in self._turns.items():
            if client == msg.node_id:
                self._say({**msg.data, "machine": machine(turn)})


def machine(turn: int) -> str:
    """What a worker is called in what is recorded."""
    return f"worker {turn}"


class Worker:
    """Starts the sender beside it, says that it is there, and passes on what is said on either side."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._ordered = False
        self._number = 0
        directory = Path(os.environ.get(DIRECTORY, ".")) / f"worker-{os.getpid()}"
        self._link = Link(name="load", reaper=Spawner(), directory=directory, heard=self._heard)
        runner.register_message(ORDER, self._order, concurrent=True)
        threading.Thread(target=self._announce, daemon=True).start()

    def _announce(self) -> None:
        self._link.start(["-m", "chaos.traffic.load"], {"prepare": True})
        while not self._ordered:
            with contextlib.suppress(Exception):  # not connected yet
                self._runner.send_message(HERE, {})
            time.sleep(0.5)

    def _order(self, msg: Any, **_: Any) -> None:
        message = dict(msg.data)
        number, within = message.pop("number"), message.pop("within", OBEYED)
        if "orders" in message:
            message["epoch"] = time.time() - time.monotonic()
        self._ordered = True
        self._link.ask(message, within=within)
        self._runner.send_message(DID, {"number": number})

    def _heard(self, message: dict[str, Any]) -> None:
        if not self._ordered:
            return
        if "until" in message:
            self._number += 1
            message = {**message, "part": self._number}
        self._runner.send_message(SAID, message)


class Spawner:
    """Starts the sender where no reaper is: it ends with its connection, whatever becomes of this process."""

    def spawn(self, argv: Sequence[str], *, name: str, cwd: Path, env: Mapping[str, str], log: Path) -> Sidecar:  # noqa: ARG002
        """As `chaos.processes.Reaper`."""
        with log.open("ab") as stream:
            popen = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        return Sidecar(popen, log)


class Sidecar:
    """The process beside a worker."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self._popen, self._log = popen, log
        self.pid = popen.pid

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._popen.poll()

    def wait(self, seconds: float) -> int | None:
        """Its exit status, None when it still runs then."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(seconds)
        return None

    def tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of its log."""
        return tail(self._log, lines)

    def stop(self) -> None:
        """End it."""
        self._popen.send_signal(signal.SIGTERM)
        if self.wait(3.0) is None:
            self._popen.kill()


def install(runner: Any, *, master: bool) -> None:
    """Called by the generated locustfile, once Locust has made its runner."""
    if sys.modules.get("gevent") is None:
        raise RuntimeError("this runs inside Locust's processes only")
    runner.chaos = Master(runner) if master else Worker(runner)
