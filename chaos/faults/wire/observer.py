"""Looks on while bytes pass: what can be known of a relayed connection without taking part in it.

The clear start is parsed exactly. Inside TLS only record types and lengths are visible; in TLS 1.3 even the end of the handshake is
not (its messages look like application data). `established` is therefore defined by lengths, on what only PostgreSQL's answer to a
successful login looks like:

    after the client has sent application-data records beyond its Finished (TLS 1.3: two, TLS 1.2: one; alerts do not count), the
    server sends at least BURST bytes in one turn, that is without the client saying anything in between.

That answer is AuthenticationOk, a dozen of ParameterStatus, BackendKeyData and ReadyForQuery, flushed as one: 457 bytes and more as
measured with PostgreSQL 15 and 17 after SCRAM, some 50 less after other methods. What a refused client gets is shorter: requests to
authenticate are about 100 bytes, and each ends a turn; the longest refusals that could be provoked, with names of 63 bytes, came to
226. The server's certificate flight comes before the client's Finished and is not counted.

A CancelRequest inside TLS is told by its length too: 16 bytes, and neither an answer nor anything else after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults.wire.protocol import SSL_REQUEST, Ladder, Packet, packet_kind, packet_length
from chaos.faults.wire.tls_records import APPLICATION_DATA, Hello, RecordScanner
from chaos.model import Rung

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.faults.wire.record import Record

BURST = 340
_OVERHEAD_13 = 17  # content type and tag: RFC 8446 5.2
_OVERHEAD_12 = 24  # explicit nonce and tag of AES-GCM: RFC 5288 3
_ALERT_SIZE = 2
_CANCEL_SIZE = 16


class Observer:
    """Fed with both directions of one connection, in the order in which the bytes came."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._packets = bytearray()
        self._answers = 0  # one-byte answers that the server still owes
        self._session = TlsSession(record)
        self._ladder = Ladder(record)
        self._look_up: Callable[[bytes], None] = self._start
        self._look_down: Callable[[bytes], None] = self._answer

    def up(self, data: bytes) -> None:
        """What the client sent."""
        self._look_up(data)

    def down(self, data: bytes) -> None:
        """What the server sent."""
        self._look_down(data)

    def _start(self, data: bytes) -> None:
        """SSLRequest, GSSENCRequest and StartupMessage, up to the first byte of TLS or of a typed message."""
        self._packets += data
        while self._packets:
            if self._packets[0] == 0x16:  # a packet's first byte is the top of its length, so 0
                self._look_up, self._look_down = self._session.up, self._session.down
                rest, self._packets = bytes(self._packets), bytearray()
                self._look_up(rest)
                return
            if len(self._packets) < 4:
                return
            length = packet_length(self._packets)
            if not length:
                self._opaque("not the PostgreSQL protocol")
                return
            if len(self._packets) < length:
                return
            packet, rest = bytes(self._packets[:length]), bytes(self._packets[length:])
            self._packets = bytearray(rest)
            if self._first(packet):
                self._look_up, self._look_down = self._ladder.up, self._ladder_down
                self._packets.clear()
                self._look_up(rest)
                return

    def _first(self, packet: bytes) -> bool:
        """Records a packet; True when typed messages follow it."""
        kind = packet_kind(packet)
        note_packet(self._record, kind, packet=packet)
        if kind in {Packet.SSL_REQUEST, Packet.GSSENC_REQUEST}:
            self._answers += 1
        elif kind is Packet.GARBAGE:
            self._opaque("not the PostgreSQL protocol")
        return kind is Packet.STARTUP

    def _answer(self, data: bytes) -> None:
        """The server's answers to the requests for encryption."""
        for byte in data[: self._answers]:
            self._record.step(f"server answered {chr(byte)!r}")
            if byte == ord("E"):
                self._answers = 0
                return
            self._answers -= 1
            if byte == ord("G"):
                self._opaque("encrypted with GSSAPI")
                return

    def _ladder_down(self, data: bytes) -> None:
        """Messages in the clear; before them, answers that were still on their way when StartupMessage came."""
        owed = min(self._answers, len(data))
        if owed:
            self._answer(data[:owed])
        self._ladder.down(data[owed:])

    def _opaque(self, why: str) -> None:
        self._record.step(why)
        self._packets.clear()
        self._look_up = self._look_down = _ignore


class TlsSession:
    """The records of both directions of one TLS session that is not ours."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._client = RecordScanner(on_record=self._on_up, on_hello=self._on_hello, on_alert=self._on_alert)
        self._server = RecordScanner(on_record=self._on_down, on_hello=self._on_hello, on_alert=self._on_server_alert)
        self._overhead = _OVERHEAD_12
        self._finished_counts = 0  # how many of the client's records are its Finished
        self._sent = 0  # application-data records of the client's that are no alerts
        self._turn = 0  # bytes of the server's since the client's last

    def up(self, data: bytes) -> None:
        """What the client sent."""
        if not self._record.tls:
            self._record.tls = True
            self._record.reach(Rung.CLIENT_HELLO)
        if not self._record.established:
            self._client.feed(data)

    def down(self, data: bytes) -> None:
        """What the server sent."""
        if not self._record.established:
            self._server.feed(data)

    def _on_up(self, kind: int, length: int) -> None:
        if kind == APPLICATION_DATA and length - self._overhead > _ALERT_SIZE:
            self._sent += 1
            self._turn = 0
            self._record.cancel = self._sent == self._finished_counts + 1 and length - self._overhead == _CANCEL_SIZE

    def _on_down(self, kind: int, length: int) -> None:
        if kind == APPLICATION_DATA and self._sent > self._finished_counts:
            self._turn += max(0, length - self._overhead)
            self._record.cancel = self._record.cancel and self._turn <= _ALERT_SIZE
            if self._turn >= BURST:
                self._record.establish()

    def _on_hello(self, hello: Hello) -> None:
        if hello.client:
            note_hello(self._record, hello)
        elif hello.tls13:
            self._overhead, self._finished_counts = _OVERHEAD_13, 1

    def _on_alert(self, what: str) -> None:
        note_alert(self._record, what)

    def _on_server_alert(self, what: str) -> None:
        self._record.step(f"server's alert: {what}")


def note_packet(record: Record, kind: Packet, *, tls: bool = False, packet: bytes = b"") -> None:
    """Record one of the untyped packets; `tls` when it came inside TLS. Of a StartupMessage only the names are kept, not the values."""
    if kind is Packet.SSL_REQUEST:
        record.reach(Rung.SSL_REQUEST, f"SSL_REQUEST {SSL_REQUEST.hex(' ')}")
    elif kind is Packet.CANCEL:
        record.cancel = True
        record.step("CancelRequest inside TLS" if tls else "CancelRequest in plaintext")
    elif kind is Packet.STARTUP:
        record.plaintext = record.plaintext or not tls
        record.reach(Rung.STARTUP, f"STARTUP {'inside TLS' if tls else 'in plaintext'}{_names(packet)}")
    elif kind is Packet.GSSENC_REQUEST:
        record.step("GSSENCRequest")


def _names(packet: bytes) -> str:
    """' 00 00 00 2a 00 03 00 00 (user, database; values not kept)'."""
    words = packet[8:].split(b"\0")[:16:2]
    names = [word.decode("ascii", "backslashreplace")[:20] for word in words if word.replace(b"_", b"").isalnum()]
    return f" {packet[:8].hex(' ')} ({', '.join(names)}; values not kept)" if packet else ""


def note_hello(record: Record, hello: Hello) -> None:
    """Record a ClientHello."""
    record.tls = True
    record.reach(Rung.CLIENT_HELLO)
    record.sni = hello.sni
    if hello.alpn:
        record.step(f"ALPN {', '.join(hello.alpn)}")


def note_alert(record: Record, what: str) -> None:
    """Record an alert of the client's; 'close notify' is a goodbye, not a complaint."""
    record.step(f"client's alert: {what}")
    if what != "close notify":
        record.alert = record.alert or what


def _ignore(data: bytes) -> None:
    del data
