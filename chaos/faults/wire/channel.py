"""Byte streams of one connection: in the clear, and TLS by MemoryBIO over it, so that every byte passes through our hands.

Reading gives b'' at the end of the stream. Ends and errors of sockets are noted in the record by whoever calls.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from chaos.errors import UsageError
from chaos.faults.wire.behaviours import Terms
from chaos.faults.wire.observer import note_alert, note_hello
from chaos.faults.wire.protocol import packet_length
from chaos.faults.wire.tls_records import Hello, RecordScanner

if TYPE_CHECKING:
    from chaos.certs import Identity
    from chaos.faults.wire.record import Record

CHUNK = 1 << 17  # bytes a read asks for
_RST = struct.pack("ii", 1, 0)
_USUAL = Terms()
_ALERT = re.compile(r"(?:TLSV1[123]?|SSLV3)_ALERT_(\w+)")


class Stream(Protocol):
    """What the acts talk through."""

    async def read(self) -> bytes:
        """Some bytes, as many as there are; b'' at the end."""

    async def write(self, data: bytes) -> None:
        """All of them."""

    async def end(self) -> None:
        """No more will be written: a FIN, after a close notify inside TLS."""


class Clear:
    """A socket, whose bytes are counted in `record` when there is one. `unread` gives bytes back, to be read again."""

    def __init__(self, link: socket.socket, record: Record | None = None) -> None:
        self.link = link
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._back = b""

    async def read(self) -> bytes:
        """See Stream."""
        if self._back:
            data, self._back = self._back, b""
            return data
        data = await self._loop.sock_recv(self.link, CHUNK)
        if self._record:
            self._record.bytes_up += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """See Stream."""
        await self._loop.sock_sendall(self.link, data)
        if self._record:
            self._record.bytes_down += len(data)

    def unread(self, data: bytes) -> None:
        """These come first in the next read."""
        self._back = data + self._back

    async def end(self) -> None:
        """See Stream."""
        self.shut()

    def shut(self) -> None:
        """A FIN, now."""
        with suppress(OSError):
            self.link.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """The next close is an RST."""
        with suppress(OSError):
            self.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)

    def close(self) -> None:
        """Close; a FIN stays a FIN even when there is something unread (Linux would make it an RST)."""
        with suppress(OSError):
            for _ in range(64):  # of a client that goes on sending nobody can say when it will have read the FIN
                if not self.link.recv(CHUNK):
                    break
        self.link.close()


class HandshakeFailed(Exception):  # noqa: N818 - not an error of the suite's: most often the client did what it should
    """The TLS handshake ended before its time; `how` says why."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


class Secure:
    """TLS over a clear stream, as server (to the target) or as client (to PostgreSQL)."""

    def __init__(self, below: Clear, context: ssl.SSLContext, *, server_side: bool, record: Record | None = None) -> None:
        self._below = below
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side)
        self._sending = asyncio.Lock()
        self._record = record
        self._scanner = RecordScanner(on_record=_ignore, on_hello=self._on_hello, on_alert=_ignore) if record else None
        self.ended = False

    async def handshake(self, *, first_flight: float = 1.0) -> None:
        """To its end; HandshakeFailed otherwise. `first_flight` below 1 sends that part of our first answer and returns."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                flight = self._out.read()
                if flight and first_flight < 1.0:
                    await self._below.write(flight[: int(len(flight) * first_flight)])
                    return
                if flight:
                    await self._below.write(flight)
            except ssl.SSLError as error:
                await self._parting_words()
                raise HandshakeFailed(self._alert(error) or _reason(error)) from error
            else:
                await self._flush()
                return
            data = await self._below.read()
            if not data:
                raise HandshakeFailed("FIN")
            if self._scanner:
                self._scanner.feed(data)
            self._in.write(data)

    async def read(self) -> bytes:
        """See Stream. An alert of the peer's is the end too, and noted."""
        while not self.ended:
            parts = self._decrypt()
            if parts:
                return b"".join(parts)
            if self.ended:
                break
            data = await self._below.read()
            if not data:
                self.ended = True
                break
            self._in.write(data)
            if self._out.pending:
                await self._flush()
        return b""

    async def write(self, data: bytes) -> None:
        """See Stream."""
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        await self._flush()

    async def end(self) -> None:
        """See Stream."""
        with suppress(ssl.SSLError):  # WantRead: the peer's close notify is not waited for
            self._tls.unwrap()
        with suppress(OSError):
            await self._flush()
        self._below.shut()

    @property
    def version(self) -> str:
        """'TLSv1.3'."""
        return self._tls.version() or ""

    def _decrypt(self) -> list[bytes]:
        """What can be read without more bytes."""
        parts: list[bytes] = []
        try:
            while data := self._tls.read(CHUNK):
                parts.append(data)
            self.ended = True
            if self._record:
                note_alert(self._record, "close notify")
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
            if self._record:
                note_alert(self._record, "close notify")
        except ssl.SSLError as error:
            self.ended = True
            if not self._alert(error) and self._record:
                self._record.step(_reason(error))
        return parts

    async def _flush(self) -> None:
        async with self._sending:  # two tasks write (one its data, one a key update): records must not overtake each other
            data = self._out.read()
            if data:
                await self._below.write(data)

    async def _parting_words(self) -> None:
        """Our own alert, if it can still be delivered."""
        with suppress(OSError):
            await self._flush()

    def _alert(self, error: ssl.SSLError) -> str:
        """The peer's alert, when that is what the error is; it is recorded."""
        found = _ALERT.search(error.reason or "")
        if not found:
            return ""
        words = found[1].lower().replace("_", " ")
        if self._record:
            note_alert(self._record, words)
        return f"alert: {words}"

    def _on_hello(self, hello: Hello) -> None:
        if self._record and hello.client:
            note_hello(self._record, hello)


def server_context(identity: Identity, terms: Terms = _USUAL) -> ssl.SSLContext:
    """For an impostor: any certificate will do, however weak. UsageError when the files or the terms cannot be used here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions are what row P10 is about
            context.minimum_version = ssl.TLSVersion.TLSv1 if terms.newest == "TLSv1.1" else ssl.TLSVersion.TLSv1_2
            if terms.newest:
                context.maximum_version = {"TLSv1.1": ssl.TLSVersion.TLSv1_1, "TLSv1.2": ssl.TLSVersion.TLSv1_2}[terms.newest]
        # SECLEVEL=0: the certificate is to be refused by the client, not by our own library
        context.set_ciphers(f"{terms.ciphers}:@SECLEVEL=0")
    except (ValueError, ssl.SSLError) as error:
        remedy = "this machine's OpenSSL was built without it: leave the row out"
        raise UsageError(f"TLS cannot be spoken on these terms: {error}", remedy=remedy, where=str(terms)) from error
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0  # as PostgreSQL: nothing follows the handshake
    if terms.alpn:
        context.set_alpn_protocols(["postgresql"])
    try:
        context.load_cert_chain(identity.chain_file, identity.key_file)
    except (OSError, ssl.SSLError) as error:
        remedy = "use an identity whose key belongs to its certificate"
        raise UsageError(f"{identity.name!r} cannot be served: {error}", remedy=remedy, where=str(identity.chain_file)) from error
    return context


def client_context() -> ssl.SSLContext:
    """To PostgreSQL: our own server, on the loopback, whatever it serves at the moment."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


async def read_packet(stream: Stream, already: bytes = b"") -> tuple[bytes, bytes]:
    """One untyped packet, and what came after it. A packet of b'' means the end, or the first bytes of something else."""
    data = already
    while True:
        if data and data[0]:
            return b"", data
        if len(data) >= 4:
            length = packet_length(data)
            if not length:
                return b"", data
            if len(data) >= length:
                return data[:length], data[length:]
        more = await stream.read()
        if not more:
            return b"", b""
        data += more


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _ignore(*_: object) -> None:
    pass
