"""Bytes that pass: unchanged, or out of one TLS session of the impostor's into another with the real PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chaos.faults.wire import protocol
from chaos.faults.wire.channel import HandshakeFailed, Secure, Stream, client_context
from chaos.faults.wire.observer import Observer
from chaos.faults.wire.protocol import Ladder
from chaos.faults.wire.scene import Scene, how_it_failed, watch_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.faults.wire.record import End

_TURNS = 32  # reads in a row that found data at once, before others get their turn


async def relay(scene: Scene) -> None:
    """Bytes and ends pass as they are."""
    try:
        upstream = await scene.connect()
    except OSError as error:
        scene.record.step("PostgreSQL cannot be reached")
        scene.record.end("server", how_it_failed(error))
        scene.client.reset()
        return
    watch = Observer(scene.record)
    await _both_ways(scene, scene.client, upstream, watch.up, watch.down)


async def _both_ways(
    scene: Scene, client: Stream, server: Stream, up: Callable[[bytes], None], down: Callable[[bytes], None]
) -> None:
    """Until both sides have ended. When one ends badly, so does the other."""
    pumps = [
        asyncio.ensure_future(_pump(scene, client, server, up, "client")),
        asyncio.ensure_future(_pump(scene, server, client, down, "server")),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # No socket may be closed while the loop still waits for it.
        for pump in pumps:
            pump.cancel()
        results = await asyncio.gather(*pumps, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, OSError | asyncio.CancelledError):
            raise result


async def _pump(scene: Scene, source: Stream, sink: Stream, observe: Callable[[bytes], None], who: End) -> None:
    """One direction. A broken one makes RSTs of what is left of the connection, and raises to end the other direction."""
    other: End = "server" if who == "client" else "client"
    at_once = 0
    while True:
        try:
            data = await source.read()
        except OSError as error:
            scene.record.end(who, how_it_failed(error))
            scene.reset()
            raise
        if not data:
            scene.record.end(who, "FIN")
            await sink.end()
            return
        observe(data)
        if scene.held:
            await asyncio.Event().wait()  # for ever: it is cut from outside
        try:
            await sink.write(data)
        except OSError as error:
            scene.record.end(other, how_it_failed(error))
            scene.reset()
            raise
        at_once += 1
        if at_once >= _TURNS:  # the loop's sock_recv does not yield when there is data already
            at_once = 0
            await asyncio.sleep(0)


async def relay_inside(scene: Scene, stream: Stream, first: bytes, *, tls: bool) -> None:
    """Log in to PostgreSQL as the client, with the client's own words, of which `first` are known: StartupMessage, and maybe more."""
    server = await _upstream_session(scene, first)
    if server is None:
        return
    ladder = Ladder(scene.record)
    ladder.up(first[protocol.packet_length(first) :])
    if not tls:  # it cannot bind to a channel, and is not to see that PostgreSQL could
        answer = protocol.without_binding(await server.read())
        ladder.down(answer)
        await stream.write(answer)
    await _both_ways(scene, stream, server, ladder.up, ladder.down)


async def forward_cancel(scene: Scene, stream: Stream, packet: bytes) -> None:
    """A CancelRequest goes on to PostgreSQL, over TLS."""
    server = await _upstream_session(scene, packet)
    if server is not None:
        await watch_out(server)  # PostgreSQL has done it when it closes
        scene.record.end("server", "FIN")
        await stream.end()


async def _upstream_session(scene: Scene, first: bytes) -> Stream | None:
    """A session of our own with PostgreSQL, TLS where it speaks it, `first` sent; None, and recorded, when there is none."""
    try:
        clear = await scene.connect()
        await clear.write(protocol.SSL_REQUEST)
        stream: Stream = clear
        if (await clear.read())[:1] == b"S":
            stream = secure = Secure(clear, client_context(), server_side=False)
            await secure.handshake()
        await stream.write(first)
    except (OSError, HandshakeFailed) as error:
        scene.record.step("PostgreSQL cannot be reached")
        scene.record.end("server", error.how if isinstance(error, HandshakeFailed) else how_it_failed(error))
        return None
    return stream
