"""The pool: a few connections, and one keeper that makes them.

psycopg_pool is not used, for four things it does (3.3, measured): its reconnection delay doubles without a cap and is jittered only
once, so recovery comes later the longer the outage was (40 s: 24.7 s); with `check` on, k dead connections cost a caller k time-outs;
every lost connection starts a retry chain of its own; and an unbounded queue forms behind them. Here instead:

- **One chain.** A single keeper connects, however many connections are missing: exponential, full jitter, capped. The wire sees one
  clean series of attempts, and after an outage of any length the next attempt is at most the cap away.
- **Nothing dead is handed out twice.** An idle connection is watched: when its socket becomes readable, the server has said good-bye
  (it says nothing else while idle), and it goes at once. When a connection fails at work without a word from the server, all idle
  ones of that moment went the same way, as a rule, and are dropped together: one request pays for an outage, not one a connection.
- **A short queue.** More than `waiting` callers are refused at once, and each waits a bounded time.
- **No hot loop.** A connection that dies before it has served or lived a second counts as a failed attempt, so a server that accepts
  and then hangs up is met with the same backoff as one that refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from psycopg import AsyncConnection

T = TypeVar("T")
PROVEN_AFTER = 1.0  # seconds a connection must have lived, or one unit of work it must have served, to count as a success


class PoolExhausted(Exception):  # noqa: N818  (a state of affairs, not a fault)
    """No connection: the queue was full (`full`), or none came free in time."""

    def __init__(self, *, full: bool) -> None:
        super().__init__("queue full" if full else "none came free in time")
        self.full = full


@dataclass(eq=False, slots=True, kw_only=True)
class Link:
    """A connection and what is known about it. `heard` is when the server last answered (loop time)."""

    connection: AsyncConnection
    opened: float
    heard: float
    tls_version: str = ""
    tls_cipher: str = ""
    served: int = 0

    def hang_up(self) -> None:
        """End the conversation from outside, whatever state it is in: whoever waits for an answer reads an end of file at once.

        Neither Task.cancel nor PGconn.finish would do. The first makes psycopg send a CancelRequest over a new connection and wait up
        to 10 s, which a black hole makes it do; the second frees a descriptor that the event loop still watches.
        """
        with contextlib.suppress(Exception), socket.socket(fileno=os.dup(self.connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """What `work` on this connection returns, or TimeoutError after `seconds`, with the connection hung up on.

        Given up from outside (a deadline, the process ending), it is hung up on as well: `work` itself is never cancelled.
        """
        task = asyncio.create_task(work)
        task.add_done_callback(_retrieve)
        try:
            await asyncio.wait({task}, timeout=seconds)
        finally:
            if abandoned := not task.done():
                self.hang_up()
        if abandoned:
            raise TimeoutError
        return task.result()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the outcome of work that was given up, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()


class Observer(Protocol):
    """What the pool tells (telemetry.py counts it)."""

    def attempted(self) -> None:
        """A connection is being made."""

    def connected(self, link: Link) -> None:
        """It was made."""

    def failed(self, error: Exception) -> None:
        """It could not be made."""

    def lost(self, reason: str) -> None:
        """A connection was dropped: 'broken', 'idle_closed' or 'suspect'."""


@dataclass(slots=True, kw_only=True)
class _Streak:
    """Failures in a row, and whether the next attempt has to wait for the last one."""

    failures: int = 0
    wait: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class Pool:
    """`size` connections made by `connect`, at most `waiting` callers in the queue. `delay(failures)` is the backoff in seconds."""

    connect: Callable[[], Awaitable[Link]]
    delay: Callable[[int], float]
    observer: Observer
    size: int = 5
    waiting: int = 20
    warmed: bool = False
    _idle: list[Link] = field(default_factory=list)
    _busy: set[Link] = field(default_factory=set)
    _waiters: deque[asyncio.Future[Link]] = field(default_factory=deque)
    _missing: asyncio.Event = field(default_factory=asyncio.Event)
    _streak: _Streak = field(default_factory=_Streak)
    _keeper: asyncio.Task[None] | None = None
    _closed: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Connections and callers by state: idle, busy, waiting."""
        return {"idle": len(self._idle), "busy": len(self._busy), "waiting": len(self._waiters)}

    def open(self) -> None:
        """Start the keeper. Returns at once: a database that is not there must not keep the process from starting."""
        self._keeper = asyncio.create_task(self._keep(), name="pool keeper")

    async def close(self) -> None:
        """Stop the keeper, turn the queue away, close what is idle and hang up on what is busy. Takes no round trip."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        while self._waiters:
            if not (waiter := self._waiters.popleft()).done():
                waiter.set_exception(PoolExhausted(full=False))
        for link in [*self._idle]:
            self._drop(link, "closed")
        for link in self._busy:
            link.hang_up()

    async def acquire(self, timeout: float) -> Link:  # noqa: ASYNC109  (the time-out is what the method is about)
        """An idle connection, or the next that comes free within `timeout` seconds. Raises PoolExhausted."""
        if self._idle:
            link = self._idle.pop(0)  # the one that has rested longest: new connections get to prove themselves
            self._unwatch(link)
            self._busy.add(link)
            return link
        if self._closed or len(self._waiters) >= self.waiting:
            raise PoolExhausted(full=True)
        waiter: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except BaseException as error:
            self._leave_queue(waiter)
            if isinstance(error, TimeoutError):
                raise PoolExhausted(full=False) from None
            raise

    def _leave_queue(self, waiter: asyncio.Future[Link]) -> None:
        """A connection that arrived in the very moment of giving up goes to the next in line: this is how pools leak."""
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            link = waiter.result()
            self._busy.discard(link)
            self._offer(link)

    def release(self, link: Link, *, broken: bool, suspect_others: bool = False) -> None:
        """Give a connection back. `broken`: it is closed instead. `suspect_others`: all idle ones are dropped as well."""
        if link not in self._busy:
            return
        self._busy.discard(link)
        if broken or self._closed:
            self._end(link, "broken")
        else:
            link.served += 1
            if link.served == 1:
                # Only a new connection ends a streak of failed attempts. The old ones may go on serving while the server has no room
                # for more: were they to reset the backoff, the keeper would knock at the rate of the requests.
                self._streak.failures = 0
            self._offer(link)
        if suspect_others:
            for idle in [*self._idle]:
                self._drop(idle, "suspect")

    def _offer(self, link: Link) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._busy.add(link)
                waiter.set_result(link)
                return
        self._idle.append(link)
        # A server that speaks unasked says good-bye: FATAL, FIN or RST.
        asyncio.get_running_loop().add_reader(link.connection.fileno(), self._drop, link, "idle_closed")

    def _unwatch(self, link: Link) -> None:
        with contextlib.suppress(Exception):
            asyncio.get_running_loop().remove_reader(link.connection.fileno())

    def _drop(self, link: Link, reason: str) -> None:
        """Close an idle connection."""
        if link in self._idle:
            self._idle.remove(link)
            self._unwatch(link)
            self._end(link, reason)

    def _end(self, link: Link, reason: str) -> None:
        """Close it, which takes no round trip, and have it replaced."""
        link.connection.pgconn.finish()
        self.observer.lost(reason)
        if reason != "suspect" and not link.served and asyncio.get_running_loop().time() - link.opened < PROVEN_AFTER:
            self._streak.failures += 1
        self._streak.wait = True
        self._missing.set()

    async def _keep(self) -> None:
        """Connect whatever is missing, one at a time, for as long as the process lives. Nothing ends this loop but `close`."""
        loop = asyncio.get_running_loop()
        while True:
            if len(self._idle) + len(self._busy) >= self.size:
                self.warmed = True
                self._missing.clear()
                filled = loop.time()
                await self._missing.wait()
                if loop.time() - filled >= PROVEN_AFTER:
                    self._streak.failures = 0  # all of them lived: what fails now begins a new streak
                continue
            if self._streak.wait:
                self._streak.wait = False
                await asyncio.sleep(self.delay(max(1, self._streak.failures)))
            self.observer.attempted()
            try:
                link = await self.connect()
            except Exception as error:  # noqa: BLE001  (whatever it was, the next attempt may do better; a dead keeper never does)
                self._streak.failures += 1
                self._streak.wait = True
                self.observer.failed(error)
            else:
                self._streak.wait = False
                self.observer.connected(link)
                self._offer(link)
