"""A lean HTTP/1.1 client on asyncio: what a load generator costs itself is what it cannot measure of others.

Every request has a connection of its own, as in the suite's other traffic: a server may close an idle connection at any moment (RFC
9112, 9.5), and the race with our next request would be counted against a healthy service. With `kept` a connection is used again,
under this rule: by GET and HEAD only, within a second of its last answer, and when it is closed before a byte of the answer has come,
the request is sent once more on a new connection (RFC 9110, 9.2.2 lets a client do so). Its latency counts from the plan all the same,
what the new connection brings counts, and `resent` says how often it was done. A write is never sent twice.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httptools

from chaos.traffic.exchange import classify, unverified

if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE = 1.0  # s after which a kept connection is not used again: no server that keeps connections at all closes them so soon
RESOLVED = 30.0  # s for which an address is known
ATTEMPTS = 3  # addresses of a name that are tried
OURS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}  # this machine's limits, not the target's


class Exhausted(Exception):  # noqa: N818  (nothing is wrong with the target)
    """This machine has no descriptor, port or memory left for the request: it was not sent."""


@dataclass(slots=True)
class Answer:
    """`status` is None when no whole answer came, and `error` says why. `headers` have lower-case names; `body` is what was kept.

    `at` is when it was whole (CLOCK_MONOTONIC): many that come at once are read at once, and looked at one after the other.
    """

    status: int | None = None
    error: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    at: float = field(default_factory=time.monotonic)


class _Exchange(asyncio.Protocol):
    """One connection. `answer` is a future of the request that it carries; between two requests there is none."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[Answer] | None = None
        self.spare = False  # between two requests
        self.keep = 0.0  # until when it may be used again
        self.headers: dict[str, str] = {}

    def begin(self, wire: bytes, *, head: bool, kept: int, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Answer]:
        self.parser = httptools.HttpResponseParser(self)
        self.status, self.headers, self.framed, self.touched, self.done = 0, {}, False, False, False
        self.body, self.kept, self.head = bytearray(), kept, head
        self.answer = loop.create_future()
        assert self.transport is not None
        self.transport.write(wire)
        return self.answer

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self.answer is None or self.answer.done():
            self.spare = False  # bytes that nobody asked for: not to be used again
            return
        self.touched = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._finish()
        except httptools.HttpParserError:
            self._fail("closed" if not self.status else "garbled")

    def connection_lost(self, error: Exception | None) -> None:
        self.spare = False
        if self.answer is None or self.answer.done():
            return
        if error is None and self.status >= 200 and not self.framed:
            self._finish()  # RFC 9112, 6.3: without a length the end of the connection ends the body
        else:
            self._fail("closed" if error is None else classify(error))

    # -- httptools ----------------------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.decode("latin-1").lower()
        self.headers[lowered] = value.decode("latin-1")
        if lowered in {"content-length", "transfer-encoding"}:
            self.framed = True

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        if self.head and self.status >= 200:
            self._finish()

    def on_body(self, data: bytes) -> None:
        if len(self.body) < self.kept:
            self.body += data[: self.kept - len(self.body)]

    def on_message_complete(self) -> None:
        if self.status < 200:  # 100 and 103 come before the answer
            self.status, self.headers, self.framed = 0, {}, False
        else:
            self._finish()

    # -- ends -------------------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if self.answer is not None and not self.answer.done():
            self.spare = self.framed and not self.head and self.parser.should_keep_alive()
            self.answer.set_result(Answer(self.status, "", self.headers, bytes(self.body)))

    def _fail(self, why: str) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(Answer(None, why))


class Client:
    """Asks one server. `deadline` bounds each exchange, in seconds."""

    def __init__(self, *, scheme: str, host: str, port: int, deadline: float, kept: bool = False) -> None:
        self._loop = asyncio.get_running_loop()
        self._host, self._port = host, port
        self._tls = unverified() if scheme == "https" else None
        self._deadline = deadline
        self._kept = kept
        self._idle: deque[_Exchange] = deque()
        self._addresses: Sequence[tuple[int, tuple[object, ...]]] = ()
        self._known_until = 0.0
        self.resent = 0

    async def ask(self, wire: bytes, *, method: str, kept: int = 0) -> Answer:
        """Send a whole request and read all of its answer, `kept` bytes of whose body are given back. Raises `Exhausted` only."""
        try:
            async with asyncio.timeout(self._deadline):
                return await self._ask(wire, method, kept)
        except TimeoutError:
            return Answer(None, "timeout")
        except OSError as error:
            if error.errno in OURS:
                raise Exhausted(str(error)) from error
            return Answer(None, classify(error))

    async def _ask(self, wire: bytes, method: str, kept: int) -> Answer:
        safe = self._kept and method in {"GET", "HEAD"}
        used = self._spare() if safe else None
        if used is not None:
            answer = await self._on(used, wire, method, kept, safe=safe)
            if answer.status is not None or used.touched:
                return answer
            self.resent += 1
        return await self._on(await self._connected(), wire, method, kept, safe=safe)

    async def _on(self, one: _Exchange, wire: bytes, method: str, kept: int, *, safe: bool) -> Answer:
        assert one.transport is not None
        try:
            answer = await one.begin(wire, head=method == "HEAD", kept=kept, loop=self._loop)
            if safe and one.spare and not one.transport.is_closing():
                one.keep = self._loop.time() + IDLE
                self._idle.append(one)
            return answer
        finally:
            if not (self._idle and self._idle[-1] is one):
                one.transport.abort()  # the answer is whole, or nobody wants it any more: no lingering close

    def _spare(self) -> _Exchange | None:
        """The connection that was used last; those that idled too long are closed."""
        now = self._loop.time()
        while self._idle and self._idle[0].keep < now:
            old = self._idle.popleft()
            if old.transport is not None:
                old.transport.abort()
        while self._idle:
            one = self._idle.pop()
            if one.spare and one.transport is not None and not one.transport.is_closing():
                one.spare = False
                return one
        return None

    async def _connected(self) -> _Exchange:
        failure: OSError = ConnectionRefusedError()
        for family, address in itertools.islice(await self._resolve(), ATTEMPTS):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self._loop.sock_connect(sock, address)
                _, protocol = await self._loop.create_connection(
                    _Exchange, sock=sock, ssl=self._tls, server_hostname=self._host if self._tls else None
                )
            except OSError as error:
                sock.close()
                if error.errno in OURS:
                    raise
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return protocol
        raise failure

    async def _resolve(self) -> Sequence[tuple[int, tuple[object, ...]]]:
        if self._loop.time() >= self._known_until:
            found = await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses = [(family, address) for family, _, _, _, address in found]
            self._known_until = self._loop.time() + RESOLVED
        return self._addresses

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            one = self._idle.pop()
            if one.transport is not None:
                one.transport.abort()
