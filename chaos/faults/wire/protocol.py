"""The PostgreSQL protocol, as much of it as an onlooker needs: https://www.postgresql.org/docs/current/protocol.html (3.0, 3.2)."""

from __future__ import annotations

import base64
import re
import secrets
from enum import Enum
from typing import TYPE_CHECKING

from chaos.model import Rung

if TYPE_CHECKING:
    from chaos.faults.wire.record import Record

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
MAX_PACKET = 10_000  # MAX_STARTUP_PACKET_LENGTH in PostgreSQL's pqcomm.h
MAX_MESSAGE = 1 << 30  # PQ_LARGE_MESSAGE_LIMIT

# AuthenticationRequest codes: protocol-message-formats.html
AUTH_OK, AUTH_CLEARTEXT, AUTH_MD5, AUTH_SASL, AUTH_SASL_CONTINUE, AUTH_SASL_FINAL = 0, 3, 5, 10, 11, 12


class Packet(Enum):
    """The first packets of a connection, which have no type byte."""

    SSL_REQUEST = 80877103
    GSSENC_REQUEST = 80877104
    CANCEL = 80877102
    STARTUP = -1
    GARBAGE = -2


def packet_length(head: bytes | bytearray) -> int:
    """Length of the packet that starts with these four bytes (itself included), 0 when it can be none."""
    length = int.from_bytes(head[:4], "big")
    return length if 8 <= length <= MAX_PACKET else 0


def packet_kind(packet: bytes) -> Packet:
    """Of a whole packet."""
    code = int.from_bytes(packet[4:8], "big")
    if code >> 16 in {2, 3}:
        return Packet.STARTUP
    return next((kind for kind in Packet if kind.value == code), Packet.GARBAGE)


def message(kind: bytes, body: bytes) -> bytes:
    """A typed message."""
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def error_response(code: str, text: str) -> bytes:
    """A FATAL ErrorResponse."""
    fields = (("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", text))
    return message(b"E", b"".join(f"{key}{value}\0".encode() for key, value in fields) + b"\0")


def authentication(code: int, body: bytes = b"") -> bytes:
    """An AuthenticationRequest."""
    return message(b"R", code.to_bytes(4, "big") + body)


def ask_for_scram(*, tls: bool) -> bytes:
    """AuthenticationSASL, with channel binding on offer inside TLS, as PostgreSQL has it."""
    names = [b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"] if tls else [b"SCRAM-SHA-256"]
    return authentication(AUTH_SASL, b"".join(name + b"\0" for name in names) + b"\0")


def without_binding(answer: bytes) -> bytes:
    """The same answer, but an AuthenticationSASL offers no channel binding."""
    if answer[:1] != b"R" or int.from_bytes(answer[5:9], "big") != AUTH_SASL:
        return answer
    return ask_for_scram(tls=False) + answer[1 + int.from_bytes(answer[1:5], "big") :]


def scram_challenge(client_first: bytes, iterations: int = 4096) -> bytes:
    """AuthenticationSASLContinue to a client-first-message (RFC 5802 5.1), or b'' when it is none. The salt is random."""
    found = re.search(rb"(?:^|,)r=([\x21-\x2b\x2d-\x7e]{1,512})", client_first)
    if not found:
        return b""
    ours, salt = base64.b64encode(secrets.token_bytes(18)), base64.b64encode(secrets.token_bytes(16))
    return authentication(AUTH_SASL_CONTINUE, b"r=" + found[1] + ours + b",s=" + salt + b",i=%d" % iterations)


# What clients look at before they call a session theirs: runtime-config-client.html, protocol-flow.html ('Asynchronous Operations').
_PARAMETERS = {
    "server_version": "17.0", "server_encoding": "UTF8", "client_encoding": "UTF8", "standard_conforming_strings": "on",
    "integer_datetimes": "on", "DateStyle": "ISO, MDY", "TimeZone": "UTC", "in_hot_standby": "off",
    "default_transaction_read_only": "off", "is_superuser": "off",
}  # fmt: skip


def let_in() -> bytes:
    """AuthenticationOk and all that follows it, up to ReadyForQuery."""
    told = b"".join(message(b"S", f"{name}\0{value}\0".encode()) for name, value in _PARAMETERS.items())
    return authentication(AUTH_OK) + told + message(b"K", secrets.token_bytes(8)) + message(b"Z", b"I")


class Splitter:
    """Splits a stream of typed messages, in whatever portions it comes; keeps at most `keep` bytes of each body."""

    def __init__(self, keep: int = 8) -> None:
        self.broken = False
        self._keep = keep
        self._head = bytearray()
        self._body = bytearray()
        self._left = -1

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """(type, start of the body) of every message that is complete now."""
        found: list[tuple[bytes, bytes]] = []
        at = 0
        while not self.broken:
            if self._left < 0:
                if at >= len(data):
                    break
                take = min(5 - len(self._head), len(data) - at)
                self._head += data[at : at + take]
                at += take
                if len(self._head) < 5:
                    break
                self._left = int.from_bytes(self._head[1:5], "big") - 4
                self.broken = not 0 <= self._left <= MAX_MESSAGE
                continue
            take = min(self._left, len(data) - at)
            self._body += data[at : at + min(take, self._keep - len(self._body))]
            at += take
            self._left -= take
            if self._left:
                break
            found.append((bytes(self._head[:1]), bytes(self._body)))
            self._head.clear()
            self._body.clear()
            self._left = -1
        return found


class Ladder:
    """Follows the messages of both sides after StartupMessage, where they can be read, and records the rungs.

    What a 'p' message is (a password, a first SASL message, a proof) depends on what the server asked for last. Bodies are not kept.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._up, self._down = Splitter(0), Splitter(4)
        self._asked = -1
        self._let_in = False

    @property
    def done(self) -> bool:
        """Whether there is nothing left to find out."""
        return self._record.reached >= Rung.QUERY and self._record.established

    def up(self, data: bytes) -> None:
        """What the client sent."""
        if self.done:
            return
        for kind, _ in self._up.feed(data):
            if kind == b"p":
                if self._asked == AUTH_SASL_CONTINUE:
                    self._record.reach(Rung.SCRAM_PROOF)
                elif self._asked != AUTH_SASL:  # cleartext, md5, or not asked for at all: a secret in any case
                    self._record.reach(Rung.PASSWORD)
            elif kind in {b"Q", b"P", b"F"}:
                self._record.reach(Rung.QUERY)

    def down(self, data: bytes) -> None:
        """What the server sent."""
        if self.done:
            return
        for kind, body in self._down.feed(data):
            if kind == b"R":
                self._asked = int.from_bytes(body, "big")
                self._let_in = self._let_in or self._asked == AUTH_OK
            elif kind == b"Z" and self._let_in:
                self._record.establish()
            elif kind == b"E" and not self._record.established:
                self._record.step("ErrorResponse")
