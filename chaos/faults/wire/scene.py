"""One connection on stage: its sockets, and what every act does with them - read the opening, speak TLS, hold, wait for the end."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.faults.wire import protocol
from chaos.faults.wire.channel import Clear, Secure, Stream, read_packet
from chaos.faults.wire.observer import note_packet
from chaos.faults.wire.protocol import Ladder, Packet

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from chaos.faults.wire.record import Record

CONNECT_PATIENCE = 30.0  # s to reach PostgreSQL


@dataclass(slots=True)
class Scene:
    """One connection and all that an act needs for it. One that is `held` is a black hole: nothing that comes is passed on."""

    client: Clear
    record: Record
    upstream_address: tuple[str, int]
    context: ssl.SSLContext | None
    upstream: Clear | None = None
    held: bool = False

    async def connect(self) -> Clear:
        """To PostgreSQL. OSError when it is not there."""
        family = socket.AF_INET6 if ":" in self.upstream_address[0] else socket.AF_INET
        link = socket.socket(family, socket.SOCK_STREAM)
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.upstream = Clear(link)
        async with asyncio.timeout(CONNECT_PATIENCE):
            await asyncio.get_running_loop().sock_connect(link, self.upstream_address)
        self.record.step(f"goes on to PostgreSQL from port {link.getsockname()[1]}")
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


async def opening(scene: Scene) -> tuple[Packet | None, bytes]:
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
        note_packet(scene.record, kind, packet=packet)
        if kind is Packet.GSSENC_REQUEST:
            await client.write(b"N")
            continue
        client.unread(rest)
        return kind, packet


def gone(scene: Scene, how: str = "FIN") -> None:
    """The client has given the connection up."""
    scene.record.end("client", how)


async def secure_of(scene: Scene, kind: Packet | None) -> Secure:
    """TLS with the client, after our S (or at once, for direct TLS)."""
    if kind is Packet.SSL_REQUEST:
        await scene.client.write(b"S")
    return await secured(scene)


async def secured(scene: Scene) -> Secure:
    """The handshake, to its end; HandshakeFailed otherwise."""
    assert scene.context is not None
    secure = Secure(scene.client, scene.context, server_side=True, record=scene.record)
    await secure.handshake()
    scene.record.step(f"{secure.version} handshake finished")
    return secure


async def hold(scene: Scene, stream: Stream, watch: Callable[[bytes], None]) -> None:
    """Read, and never answer, until the client goes."""
    while data := await stream.read():
        watch(data)
    gone(scene)


async def watch_out(stream: Stream, ladder: Ladder | None = None) -> None:
    """Wait for the other side to go, so that our last words arrive before the close; not for long."""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(2.0):
            while data := await stream.read():
                if ladder:
                    ladder.up(data)


def how_it_failed(error: OSError) -> str:
    """One word for an OSError of a socket."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "RST" if isinstance(error, ConnectionError) else error.strerror or type(error).__name__
