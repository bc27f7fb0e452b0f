"""How each behaviour is played. One function for each, of one shape: (scene, behaviour) -> None, in the wire's loop.

An act returns when it is through, or when the client has gone; the wire then closes what is open. It may raise OSError (a socket
ended badly) and HandshakeFailed, both of which are recorded by `perform`.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.faults.wire import protocol
from chaos.faults.wire.behaviours import EOF, RST, Behaviour, Impostor, Refuse, Relay, Stall
from chaos.faults.wire.channel import Clear, HandshakeFailed, Secure, Stream, client_context, read_packet
from chaos.faults.wire.observer import Observer, note_packet
from chaos.faults.wire.protocol import Ladder, Packet, Splitter

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from chaos.faults.wire.record import End, Record

CONNECT_PATIENCE = 30.0  # s to reach PostgreSQL
WATCH = 30.0  # s that a refused client is watched for what it does next
_TURNS = 32  # reads in a row that found data at once, before others get their turn


@dataclass(slots=True)
class Scene:
    """One connection and all that an act needs for it."""

    client: Clear
    record: Record
    upstream_address: tuple[str, int]
    context: ssl.SSLContext | None
    upstream: Clear | None = None

    async def connect(self) -> Clear:
        """To PostgreSQL. OSError when it is not there."""
        family = socket.AF_INET6 if ":" in self.upstream_address[0] else socket.AF_INET
        link = socket.socket(family, socket.SOCK_STREAM)
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.upstream = Clear(link)
        async with asyncio.timeout(CONNECT_PATIENCE):
            await asyncio.get_running_loop().sock_connect(link, self.upstream_address)
        return self.upstream

    def close(self) -> None:
        """Close every socket of this connection."""
        for one in (self.client, self.upstream):
            if one is not None:
                one.close()

    def reset(self) -> None:
        """Let every close be an RST."""
        for one in (self.client, self.upstream):
            if one is not None:
                one.reset()


async def perform(scene: Scene, behaviour: Behaviour) -> None:
    """Play it to its end, record how it ended, close. Only bugs and cancellation get out."""
    record = scene.record
    try:
        match behaviour:
            case Relay():
                await relay(scene)
            case Impostor():
                await impostor(scene, behaviour)
            case Refuse():
                await refuse(scene, behaviour)
            case Stall():
                await stall(scene, behaviour)
    except HandshakeFailed as error:
        record.end("client", error.how)
    except TimeoutError:
        record.end("wire", "time-out")
    except OSError as error:
        record.end("client", _how(error))
    finally:
        scene.close()
        record.finish()


# -- relay ----------------------------------------------------------------------------------------------------------------------


async def relay(scene: Scene) -> None:
    """Bytes and ends pass as they are."""
    try:
        upstream = await scene.connect()
    except OSError as error:
        scene.record.step("PostgreSQL cannot be reached")
        scene.record.end("server", _how(error))
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
            scene.record.end(who, _how(error))
            scene.reset()
            raise
        if not data:
            scene.record.end(who, "FIN")
            await sink.end()
            return
        observe(data)
        try:
            await sink.write(data)
        except OSError as error:
            scene.record.end(other, _how(error))
            scene.reset()
            raise
        at_once += 1
        if at_once >= _TURNS:  # the loop's sock_recv does not yield when there is data already
            at_once = 0
            await asyncio.sleep(0)


def _how(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "RST" if isinstance(error, ConnectionError) else error.strerror or type(error).__name__


# -- the start of a connection, for those who answer it themselves ----------------------------------------------------------------


async def _opening(scene: Scene) -> tuple[Packet | None, bytes]:
    """Reads up to an SSLRequest, or whatever comes instead; GSSENCRequests are answered N.

    Gives the kind of packet and the packet itself. None with the byte 0x16 is direct TLS, None with b'' the end. Bytes that came behind
    the packet can be read again.
    """
    client, rest = scene.client, b""
    while True:
        packet, rest = await read_packet(client, rest)
        if not packet:
            client.unread(rest)
            if rest[:1] == b"\x16":
                return None, rest[:1]
            return (Packet.GARBAGE, rest) if rest else (None, b"")
        kind = protocol.packet_kind(packet)
        note_packet(scene.record, kind)
        if kind is Packet.GSSENC_REQUEST:
            await client.write(b"N")
            continue
        client.unread(rest)
        return kind, packet


def _gone(scene: Scene, how: str = "FIN") -> None:
    scene.record.end("client", how)


async def _secure(scene: Scene, kind: Packet | None) -> Secure:
    """TLS with the client, after our S (or at once, for direct TLS)."""
    assert scene.context is not None
    if kind is Packet.SSL_REQUEST:
        await scene.client.write(b"S")
    secure = Secure(scene.client, scene.context, server_side=True, record=scene.record)
    await secure.handshake()
    scene.record.step(f"{secure.version} handshake finished")
    return secure


# -- impostor -------------------------------------------------------------------------------------------------------------------


async def impostor(scene: Scene, behaviour: Impostor) -> None:
    """A server that is not the one it seems to be."""
    kind, packet = await _opening(scene)
    stream: Stream = scene.client
    tls = kind is Packet.SSL_REQUEST or packet == b"\x16"
    rest = b""
    if tls:
        stream = await _secure(scene, kind)
        packet, rest = await read_packet(stream)
        kind = protocol.packet_kind(packet) if packet else Packet.GARBAGE if rest else None
        if kind:
            note_packet(scene.record, kind, tls=True)
    if kind is None:
        _gone(scene)
    elif kind is Packet.CANCEL and behaviour.then == "relay":
        await _forward_cancel(scene, stream, packet)
    elif kind is not Packet.STARTUP:
        scene.record.end("wire", "nothing to answer")
    elif behaviour.then == "close":
        await stream.write(protocol.error_response("57P03", "the database system is not accepting connections"))
        scene.record.end("wire", "FATAL 57P03")
        await stream.end()
        await _watch(stream)
    elif behaviour.then == "ask":
        await _ask(scene, stream, rest, tls=tls)
    else:
        await _relay_inside(scene, stream, packet + rest, tls=tls)


async def _ask(scene: Scene, stream: Stream, rest: bytes, *, tls: bool) -> None:
    """SCRAM up to the proof, which is refused: see how far the client goes."""
    ladder, splitter = Ladder(scene.record), Splitter(4096)

    async def say(data: bytes) -> None:
        ladder.down(data)
        await stream.write(data)

    await say(protocol.ask_for_scram(tls=tls))
    challenged = False
    data = rest or await stream.read()
    while data:
        ladder.up(data)
        for kind, body in splitter.feed(data):
            challenge = b"" if challenged or kind != b"p" else protocol.scram_challenge(body)
            if challenge:
                challenged = True
                await say(challenge)
                continue
            await say(protocol.error_response("28P01", "password authentication failed"))
            scene.record.end("wire", "FATAL 28P01")
            await stream.end()
            await _watch(stream, ladder)
            return
        if splitter.broken:
            scene.record.end("wire", "not the PostgreSQL protocol")
            return
        data = await stream.read()
    _gone(scene)


async def _relay_inside(scene: Scene, stream: Stream, first: bytes, *, tls: bool) -> None:
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


async def _forward_cancel(scene: Scene, stream: Stream, packet: bytes) -> None:
    server = await _upstream_session(scene, packet)
    if server is not None:
        await _watch(server)  # PostgreSQL has done it when it closes
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
        scene.record.end("server", error.how if isinstance(error, HandshakeFailed) else _how(error))
        return None
    return stream


# -- refuse and stall -----------------------------------------------------------------------------------------------------------


async def refuse(scene: Scene, behaviour: Refuse) -> None:
    """No TLS here, says the server. Does the client go on without?"""
    record, client = scene.record, scene.client
    async with asyncio.timeout(WATCH):
        while True:
            kind, packet = await _opening(scene)
            if kind is None and not packet:
                _gone(scene)
                return
            if kind is not Packet.SSL_REQUEST:
                break
            if behaviour.answer in {EOF, RST}:
                if behaviour.answer == RST:
                    client.reset()
                record.end("wire", "RST" if behaviour.answer == RST else "FIN")
                return
            assert isinstance(behaviour.answer, bytes)
            await client.write(_answer(behaviour.answer))
            record.step(f"answered {behaviour.answer[:8]!r}")
            if behaviour.answer[:1] == b"E":
                await client.end()
    if kind is None:
        watch = Observer(record)
        watch.up(await client.read())
    record.end("wire", "nothing more to answer")


def _answer(answer: bytes) -> bytes:
    return protocol.error_response("0A000", "chaos-gate: this text must not reach a user") if answer == b"E" else answer


async def stall(scene: Scene, behaviour: Stall) -> None:
    """Silence, from one place on."""
    stream: Stream = scene.client
    if behaviour.where == "accept":
        await _hold(scene, stream, Observer(scene.record).up)
        return
    kind, packet = await _opening(scene)
    if kind is None and not packet:
        _gone(scene)
        return
    watch: Callable[[bytes], None] = Observer(scene.record).up
    if kind is Packet.SSL_REQUEST and behaviour.where == "after_S":
        await scene.client.write(b"S")
    elif kind is Packet.STARTUP:
        watch = Ladder(scene.record).up
    elif (kind is Packet.SSL_REQUEST or packet == b"\x16") and scene.context is not None:
        if behaviour.where == "in_tls":
            if kind is Packet.SSL_REQUEST:
                await scene.client.write(b"S")
            await Secure(scene.client, scene.context, server_side=True, record=scene.record).handshake(first_flight=0.5)
            watch = _ignore
        else:
            stream = await _secure(scene, kind)
            started, rest = await read_packet(stream)
            if not started and not rest:
                _gone(scene)
                return
            note_packet(scene.record, protocol.packet_kind(started) if started else Packet.GARBAGE, tls=True)
            ladder = Ladder(scene.record)
            ladder.up(rest)
            watch = ladder.up
    scene.record.step("silent from here on")
    await _hold(scene, stream, watch)


async def _hold(scene: Scene, stream: Stream, watch: Callable[[bytes], None]) -> None:
    """Read, and never answer, until the client goes."""
    while data := await stream.read():
        watch(data)
    _gone(scene)


async def _watch(stream: Stream, ladder: Ladder | None = None) -> None:
    """Wait for the other side to go, so that our last words arrive before the close; not for long."""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(2.0):
            while data := await stream.read():
                if ladder:
                    ladder.up(data)


def _ignore(data: bytes) -> None:
    del data
