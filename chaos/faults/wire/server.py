"""The wire's listener, and the thread with the loop that everything happens in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from typing import TYPE_CHECKING, Literal

from chaos.errors import CleanupFailed, PartFailed
from chaos.faults.wire.acts import perform
from chaos.faults.wire.behaviours import Behaviour, Impostor, Meddle, Relay, Stall, Terms
from chaos.faults.wire.channel import Clear, server_context
from chaos.faults.wire.record import Ledger
from chaos.faults.wire.scene import Scene

if TYPE_CHECKING:
    import ssl
    from concurrent.futures import Future

    from chaos.model import Connection

_BACKLOG = 4096
_PATIENCE = 10.0  # s for the loop to do what it is told
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Wire:
    """A listener on `address` (loopback) in front of `upstream`, in a thread of its own. All methods can be called from any thread.

    It relays until it is told otherwise by `behave`. `upstream` may be set at any time, for the connections to come. `errors` holds
    the wire's own failures (bugs, no more descriptors): when there are any, what it recorded must not be trusted.
    """

    def __init__(self, upstream: tuple[str, int], address: str = "127.0.0.1") -> None:
        self.upstream = upstream
        self.address = address
        self.port = 0
        self._errors: list[str] = []
        self._ledger = Ledger()
        self._playing: tuple[Behaviour, ssl.SSLContext | None] = (Relay(), None)
        self._scenes: dict[asyncio.Task[None], Scene] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen; the port. A second start changes nothing. PartFailed when it cannot."""
        if self._thread is not None:
            return self.port
        with contextlib.ExitStack() as undo:
            try:
                listener = undo.enter_context(socket.socket())
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.address, self.port))
                listener.listen(_BACKLOG)
                listener.setblocking(False)
                loop = asyncio.new_event_loop()
            except OSError as error:
                remedy = "end what uses the port, or raise the limit of open files (ulimit -n)"
                raise PartFailed(f"it cannot listen: {error}", remedy=remedy, where="wire") from error
            undo.pop_all()
        self.port, self._loop = listener.getsockname()[1], loop
        self._thread = threading.Thread(target=self._run, args=(loop, listener), name=f"wire:{self.port}", daemon=True)
        self._thread.start()
        return self.port

    def stop(self) -> None:
        """Cut every connection and stop listening. A second stop changes nothing. CleanupFailed when the thread does not end."""
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        self._thread = self._loop = None
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(loop.stop)
        thread.join(_PATIENCE)
        if thread.is_alive():
            remedy = "end this process; the wire has no other resource"
            raise CleanupFailed("its thread does not end", remedy=remedy, where="wire")

    def behave(self, behaviour: Behaviour) -> None:
        """What connections accepted from now on will meet. UsageError when its certificate cannot be served."""
        identity = behaviour.identity if isinstance(behaviour, Impostor | Meddle | Stall) else None
        terms = behaviour.terms if isinstance(behaviour, Impostor) else Terms()
        self._playing = (behaviour, server_context(identity, terms) if identity else None)

    def sever(self, how: Literal["rst", "fin"] = "rst") -> int:
        """Cut every open connection, on both sides, and say how many there were. They are closed when this returns."""
        loop = self._loop
        if loop is None:
            return 0
        done: Future[int] = asyncio.run_coroutine_threadsafe(self._sever(how), loop)
        try:
            return done.result(_PATIENCE)
        except TimeoutError as error:
            remedy = "end this process; the wire's loop is stuck"
            raise CleanupFailed("connections could not be cut", remedy=remedy, where="wire") from error

    def kill(self, how: Literal["rst", "hole"], most: int) -> int:
        """Of the established connections, let the `most` oldest die: by RST, or as black holes that nothing passes and nobody closes.

        How many did. Black holes are cut by the next `sever`.
        """
        loop = self._loop
        if loop is None:
            return 0
        return asyncio.run_coroutine_threadsafe(self._kill(how, most), loop).result(_PATIENCE)

    def connections(self, since: float = 0.0) -> tuple[Connection, ...]:
        """Snapshots of all connections accepted at `since` (chaos.model.now) or later, also of those that are still open."""
        return self._ledger.since(since)

    def forget(self, before: float) -> None:
        """Drop the records of connections that ended before then: they are told already, and a run of days must not fill the memory."""
        self._ledger.forget(before)

    def moved(self) -> int:
        """Bytes that all connections have moved so far, both ways: cheap, for who looks before and after each request."""
        return self._ledger.moved()

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong in the wire itself."""
        dropped = self._ledger.dropped
        return (*self._errors, *([f"{dropped} old records were dropped"] if dropped else []))

    # -- in the wire's own thread -----------------------------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        loop.set_exception_handler(lambda _, context: self._failed(str(context.get("exception") or context["message"])))
        accepting = loop.create_task(self._accept(loop, listener))
        accepting.add_done_callback(
            lambda task: None if task.cancelled() else self._failed(f"accepts no more: {task.exception()!r}")
        )
        try:
            loop.run_forever()
            accepting.cancel()
            loop.run_until_complete(asyncio.gather(accepting, return_exceptions=True))
            loop.run_until_complete(self._sever("rst"))
        finally:
            listener.close()
            loop.close()

    async def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        while True:
            try:
                link, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _SHORT:
                    self._failed(f"no connection can be accepted: {error.strerror}")
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0.001)  # otherwise the client has gone already
                continue
            behaviour, context = self._playing
            link.setblocking(False)
            with contextlib.suppress(OSError):
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            record = self._ledger.open(behaviour.name)
            scene = Scene(Clear(link, record), record, self.upstream, context)
            task = loop.create_task(perform(scene, behaviour))
            self._scenes[task] = scene
            task.add_done_callback(self._forget)
            await asyncio.sleep(0)  # a crowd at the door must not keep those inside from being served

    def _forget(self, task: asyncio.Task[None]) -> None:
        scene = self._scenes.pop(task)
        scene.close()  # a task that was cancelled before its first step has closed nothing
        if not scene.record.finished:
            scene.record.finish()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(f"connection {scene.record.id}: {error!r}")

    def _failed(self, what: str) -> None:
        if what not in self._errors[-1:]:  # the same again and again is said once
            self._errors.append(what)

    async def _kill(self, how: Literal["rst", "hole"], most: int) -> int:
        standing = [(task, scene) for task, scene in self._scenes.items() if scene.record.established and not scene.held]
        chosen = dict(standing[:most])
        if how == "rst":
            return await self._sever("rst", chosen)
        for scene in chosen.values():
            scene.held = True
            scene.record.step("held: a black hole from here on")
        return len(chosen)

    async def _sever(self, how: Literal["rst", "fin"], which: dict[asyncio.Task[None], Scene] | None = None) -> int:
        scenes = dict(self._scenes) if which is None else which
        for task, scene in scenes.items():
            scene.record.end("wire", how.upper())
            if how == "rst":
                scene.reset()
            else:
                scene.client.shut()
            task.cancel()
        await asyncio.gather(*scenes, return_exceptions=True)
        return len(scenes)
