"""How each behaviour is played. One function for each, of one shape: (scene, behaviour) -> None, in the wire's loop.

An act returns when it is through, or when the client has gone; the wire then closes what is open. It may raise OSError (a socket
ended badly) and HandshakeFailed, both of which are recorded by `perform`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chaos.faults.wire import protocol
from chaos.faults.wire.behaviours import EOF, RST, Behaviour, Impostor, Meddle, Refuse, Relay, Stall
from chaos.faults.wire.channel import HandshakeFailed, Secure, Stream, read_packet
from chaos.faults.wire.commit import Unanswered
from chaos.faults.wire.login import NOT_NOW, login
from chaos.faults.wire.observer import Observer, note_packet
from chaos.faults.wire.protocol import AUTH_CLEARTEXT, Ladder, Packet
from chaos.faults.wire.relaying import forward_cancel, relay, relay_inside
from chaos.faults.wire.scene import Scene, gone, hold, how_it_failed, opening, secure_of, secured, watch_out
from chaos.model import Rung

if TYPE_CHECKING:
    from collections.abc import Callable

WATCH = 30.0  # s that a refused client is watched for what it does next
LATER = 0.05  # s between S and the bytes of somebody else's
OBEYS = 0.4  # s in which a client that took injected bytes for the server's would have obeyed them
HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


async def perform(scene: Scene, behaviour: Behaviour) -> None:
    """Play it to its end, record how it ended, close. Only bugs and cancellation get out."""
    record = scene.record
    try:
        match behaviour:
            case Relay():
                await relay(scene)
            case Impostor():
                await impostor(scene, behaviour)
            case Meddle():
                await meddle(scene, behaviour)
            case Refuse():
                await refuse(scene, behaviour)
            case Stall():
                await stall(scene, behaviour)
    except HandshakeFailed as error:
        record.end("client", error.how)
    except TimeoutError:
        record.end("wire", "time-out")
    except OSError as error:
        record.end("client", how_it_failed(error))
    finally:
        scene.close()
        record.finish()


async def _begun(
    scene: Scene, stream: Stream, packet: bytes, kind: Packet | None, *, tls: bool
) -> tuple[Packet | None, bytes, bytes]:
    """What a client says first once TLS stands (or at once, without TLS): its kind, the packet, and what came behind it."""
    rest = b""
    if tls:
        packet, rest = await read_packet(stream)
        kind = protocol.packet_kind(packet) if packet else Packet.GARBAGE if rest else None
        if kind:
            note_packet(scene.record, kind, tls=True, packet=packet)
    return kind, packet, rest


async def _not_now(scene: Scene, stream: Stream) -> None:
    """What any client takes for a passing trouble."""
    await stream.write(protocol.error_response(*NOT_NOW))
    scene.record.end("wire", f"FATAL {NOT_NOW[0]}")
    await stream.end()
    await watch_out(stream)


async def impostor(scene: Scene, behaviour: Impostor) -> None:
    """A server that is not the one it seems to be."""
    kind, packet = await opening(scene)
    stream: Stream = scene.client
    tls = kind is Packet.SSL_REQUEST or packet == b"\x16"
    if tls:
        stream = await secure_of(scene, kind)
    kind, packet, rest = await _begun(scene, stream, packet, kind, tls=tls)
    if kind is None:
        gone(scene)
    elif kind is Packet.CANCEL and behaviour.then == "relay":
        await forward_cancel(scene, stream, packet)
    elif kind is not Packet.STARTUP:
        scene.record.end("wire", "nothing to answer")
    elif behaviour.then == "close":
        await _not_now(scene, stream)
    elif behaviour.then == "relay":
        through = Unanswered(stream, scene, behaviour.fuse) if behaviour.fuse else stream
        await relay_inside(scene, through, packet + rest, tls=tls)
    else:
        await login(scene, stream, rest, then=behaviour.then, tls=tls)


async def meddle(scene: Scene, behaviour: Meddle) -> None:
    """Bytes that do not belong there, between S and the end of the handshake."""
    kind, packet = await opening(scene)
    direct = packet == b"\x16"
    if kind is not Packet.SSL_REQUEST and not direct:
        if kind is Packet.STARTUP:
            await _not_now(scene, scene.client)
        elif kind is None:
            gone(scene)
        return
    if behaviour.how in {"rst", "http"}:
        await _break_off(scene, behaviour.how, direct=direct)
        return
    wanted = protocol.authentication(AUTH_CLEARTEXT)
    answer = b"" if direct else b"S"
    if behaviour.how == "with_S":
        await scene.client.write(answer + wanted)
    else:
        await scene.client.write(answer)
        await asyncio.sleep(LATER)
        await scene.client.write(wanted)
    scene.record.step(f"answered {answer.decode()!r}, and {wanted.hex(' ')} in the clear")
    secure = await secured(scene)
    kind, packet, rest = await _begun(scene, secure, b"", None, tls=True)
    if kind is None:
        gone(scene)
        return
    ladder = Ladder(scene.record)
    ladder.up(rest)
    try:
        async with asyncio.timeout(OBEYS):  # nothing is asked: what comes now was asked for by the injected bytes
            while data := await secure.read():
                ladder.up(data)
    except TimeoutError:
        await _not_now(scene, secure)
    else:
        gone(scene)


async def _break_off(scene: Scene, how: str, *, direct: bool) -> None:
    """After the ClientHello, whatever else came with it."""
    if not direct:
        await scene.client.write(b"S")
    watch = Observer(scene.record)
    while scene.record.reached < Rung.CLIENT_HELLO:
        data = await scene.client.read()
        if not data:
            gone(scene)
            return
        watch.up(data)
    if how == "rst":
        scene.record.end("wire", "RST")
        scene.client.reset()
        return
    await scene.client.write(HTTP)
    scene.record.end("wire", "answered HTTP/1.1 400")
    await scene.client.end()
    await watch_out(scene.client)


async def refuse(scene: Scene, behaviour: Refuse) -> None:
    """No TLS here, says the server. Does the client go on without?"""
    record, client = scene.record, scene.client
    async with asyncio.timeout(WATCH):
        while True:
            kind, packet = await opening(scene)
            if kind is None and not packet:
                gone(scene)
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
    elif kind is Packet.STARTUP and behaviour.then == "ask":
        await login(scene, client, b"", then="cleartext", tls=False)
        return
    record.end("wire", "nothing more to answer")


SECRET_TEXT = "chaos-gate: this text must not reach a user"  # noqa: S105  (of row P2)


def _answer(answer: bytes) -> bytes:
    return protocol.error_response("0A000", SECRET_TEXT) if answer == b"E" else answer


async def stall(scene: Scene, behaviour: Stall) -> None:
    """Silence, from one place on."""
    stream: Stream = scene.client
    if behaviour.where == "accept":
        await hold(scene, stream, Observer(scene.record).up)
        return
    kind, packet = await opening(scene)
    if kind is None and not packet:
        gone(scene)
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
            stream = await secure_of(scene, kind)
            started, rest = await read_packet(stream)
            if not started and not rest:
                gone(scene)
                return
            note_packet(scene.record, protocol.packet_kind(started) if started else Packet.GARBAGE, tls=True, packet=started)
            ladder = Ladder(scene.record)
            ladder.up(rest)
            watch = ladder.up
    scene.record.step("silent from here on")
    await hold(scene, stream, watch)


def _ignore(data: bytes) -> None:
    del data
