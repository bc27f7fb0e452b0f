"""What an edge says to the origin behind it, and what it hears: a relay of ours between the two, which changes nothing.

Bytes pass as they are, in both directions, and are kept. An exchange begins with the first bytes from the edge after an answer: no
edge sends a second request on a connection before the first is answered (RFC 9112, 9.3.2 lets it, none does), so a request is what
came between two answers. Nothing has to be understood for bytes to pass; what a request says is read afterwards, tolerantly.

The relay knows which of our own requests it sees by a header that each carries: `ASK`.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.model import now
from chaos.traffic.raw import RawAnswer

if TYPE_CHECKING:
    from types import TracebackType

ASK = "X-Chaos-Ask"
KEPT = 32 * 1024  # bytes of each request and of each answer
_BLOCK = 64 * 1024
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n")


@dataclass(slots=True)
class Exchange:
    """One request as the origin got it, and the answer as the origin gave it: the first KEPT bytes of each."""

    started: float
    request: bytearray = field(default_factory=bytearray)
    answer: bytearray = field(default_factory=bytearray)
    finished: float = 0.0

    @property
    def start_line(self) -> str:
        """The request line, '' when there is none."""
        return bytes(self.request).partition(b"\n")[0].strip().decode("latin-1")

    def values(self, name: str) -> tuple[str, ...]:
        """The values of every line of a header in the request, in order."""
        return tuple(value for key, value in _fields(bytes(self.request)) if key == name.lower())

    @property
    def names(self) -> frozenset[str]:
        """The names of all header lines of the request, in lower case."""
        return frozenset(key for key, _ in _fields(bytes(self.request)))

    def answered(self) -> RawAnswer:
        """The final answer (1xx ones passed over), as far as it was kept; `status` None when there is none."""
        rest = bytes(self.answer)
        while True:
            head, found, rest = rest.partition(b"\r\n\r\n")
            line = re.match(rb"HTTP/\d\.\d (\d{3})", head)
            if line is None or not found:
                return RawAnswer(started=self.started, finished=self.finished)
            status = int(line[1])
            if status >= 200 or status == 101:
                break
        headers = tuple(_fields(head))
        chunked = any(name == "transfer-encoding" and "chunked" in value.lower() for name, value in headers)
        body = _joined(rest) if chunked else rest
        return RawAnswer(status=status, headers=headers, body=body, started=self.started, finished=self.finished)


class Relay:
    """Listens on a free port of loopback and passes every connection on to `origin`. A context manager; `close` ends it all."""

    def __init__(self, origin: tuple[str, int], *, timeout: float = 5.0) -> None:
        self._origin = origin
        self._timeout = timeout
        self._lock = threading.Lock()
        self._exchanges: list[Exchange] = []
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._threads = [threading.Thread(target=self._accept, name="relay", daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    def exchanges(self) -> tuple[Exchange, ...]:
        """All that were begun so far, in the order of their beginning."""
        with self._lock:
            return tuple(self._exchanges)

    def asked(self) -> dict[str, Exchange]:
        """Those that carry `ASK`, by its value; of several with the same (an edge that tried again) the last."""
        return {value: one for one in self.exchanges() for value in one.values(ASK)[:1]}

    def exchange(self, mark: str) -> Exchange | None:
        """The last one that carries this value of `ASK`."""
        return next((one for one in reversed(self.exchanges()) if mark in one.values(ASK)), None)

    def close(self) -> None:
        """End every connection and the listener."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            ending = tuple(self._open)
        for one in ending:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(2.0)

    def __enter__(self) -> Relay:  # noqa: PYI034  (not meant to be subclassed)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- bytes --------------------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while not self._closed:
            try:
                edge, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(edge,), name="relay", daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def _serve(self, edge: socket.socket) -> None:
        """One connection of the edge's, from its beginning to its end."""
        with contextlib.ExitStack() as ending, contextlib.suppress(OSError):
            ending.callback(edge.close)
            origin = socket.create_connection(self._origin, timeout=self._timeout)
            ending.callback(origin.close)
            pair = (edge, origin)
            with self._lock:
                self._open.update(pair)
            ending.callback(self._forget, pair)
            for one in pair:
                one.settimeout(self._timeout)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pass(edge, origin)

    def _forget(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._open.difference_update(pair)

    def _pass(self, edge: socket.socket, origin: socket.socket) -> None:
        """Bytes both ways until both sides have ended; one side's end is passed on as such."""
        current: Exchange | None = None
        with selectors.DefaultSelector() as ready:
            for one in (edge, origin):
                ready.register(one, selectors.EVENT_READ)
            while ready.get_map():
                # What the edge said is looked at first: its next request never waits behind an answer.
                for key, _ in sorted(ready.select(), key=lambda one: one[0].fileobj is origin):
                    source = edge if key.fileobj is edge else origin
                    sink = origin if source is edge else edge
                    block = source.recv(_BLOCK)
                    if not block:
                        ready.unregister(source)
                        with contextlib.suppress(OSError):
                            sink.shutdown(socket.SHUT_WR)
                        continue
                    if source is edge and (current is None or current.answer):
                        current = self._begin()
                    if current is not None:
                        current.finished = now()
                        kept = current.request if source is edge else current.answer
                        kept += block[: max(0, KEPT - len(kept))]
                    sink.sendall(block)

    def _begin(self) -> Exchange:
        begun = Exchange(started=now())
        with self._lock:
            self._exchanges.append(begun)
        return begun


def _fields(message: bytes) -> list[tuple[str, str]]:
    """(name in lower case, value) of each header line of a message, trailers left out."""
    head = re.split(rb"\r?\n\r?\n", message, maxsplit=1)[0]
    lines = head.replace(b"\r\n", b"\n").split(b"\n")[1:]
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return [(name.strip().lower(), value.strip()) for name, found, value in pairs if found]


def _joined(body: bytes) -> bytes:
    """The data of a chunked body, as far as it goes (RFC 9112, 7.1)."""
    data, at = bytearray(), 0
    while (size := _CHUNK.match(body, at)) and (length := int(size[1], 16)):
        data += body[size.end() : size.end() + length]
        at = size.end() + length + 2
    return bytes(data)


__all__ = ["ASK", "Exchange", "Relay"]
