"""TLS records, seen from outside: types and lengths (RFC 8446 5.1), and the two hellos, which are in the clear (4.1.2, 4.1.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
_CLIENT_HELLO, _SERVER_HELLO = 1, 2
_TLS13 = b"\x03\x04"
_MAX_RECORD = 16_384 + 2048  # RFC 5246 6.2.3, the more generous of the two
_MAX_HELLO = 65_536

# RFC 8446 6.2 and RFC 5246 7.2
_ALERTS = {
    0: "close notify", 10: "unexpected message", 20: "bad record mac", 40: "handshake failure", 42: "bad certificate",
    43: "unsupported certificate", 44: "certificate revoked", 45: "certificate expired", 46: "certificate unknown",
    47: "illegal parameter", 48: "unknown ca", 49: "access denied", 50: "decode error", 51: "decrypt error", 70: "protocol version",
    71: "insufficient security", 80: "internal error", 86: "inappropriate fallback", 90: "user canceled", 109: "missing extension",
    110: "unsupported extension", 112: "unrecognized name", 113: "bad certificate status response", 115: "unknown psk identity",
    116: "certificate required", 120: "no application protocol",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hello:
    """What is of interest in a ClientHello or a ServerHello."""

    client: bool
    sni: str = ""
    alpn: tuple[str, ...] = ()
    tls13: bool = False


class RecordScanner:
    """Splits one direction of a TLS connection into records as the bytes come, in any portions.

    `on_record(type, length)` is called for each header; `on_hello` and `on_alert` for what is in the clear. `broken` becomes True,
    and nothing more is looked at, when it is no TLS.
    """

    def __init__(
        self, *, on_record: Callable[[int, int], None], on_hello: Callable[[Hello], None], on_alert: Callable[[str], None]
    ) -> None:
        self.broken = False
        self._on_record, self._on_hello, self._on_alert = on_record, on_hello, on_alert
        self._header = bytearray()
        self._left = 0  # bytes of the record's body that are still to come
        self._type = 0
        self._kept = bytearray()  # of a handshake message, or an alert
        self._greeted = False

    def feed(self, data: bytes) -> None:
        """The next portion."""
        at, size = 0, len(data)
        while at < size and not self.broken:
            if not self._left:
                take = min(5 - len(self._header), size - at)
                self._header += data[at : at + take]
                at += take
                if len(self._header) == 5:
                    self._open_record()
                continue
            take = min(self._left, size - at)
            if self._type in {HANDSHAKE, ALERT} and not (self._greeted and self._type == HANDSHAKE):
                self._kept += data[at : at + take]
            at += take
            self._left -= take
            self._look()

    def _open_record(self) -> None:
        kind, major = self._header[0], self._header[1]
        length = int.from_bytes(self._header[3:5], "big")
        self._header.clear()
        if major != 3 or not CHANGE_CIPHER_SPEC <= kind <= APPLICATION_DATA or not 0 < length <= _MAX_RECORD:
            self.broken = True
            return
        if kind != self._type:
            self._kept.clear()
        self._type, self._left = kind, length
        self._on_record(kind, length)

    def _look(self) -> None:
        if self._type == ALERT and not self._left:
            if len(self._kept) == 2:  # an encrypted one is longer
                self._on_alert(_ALERTS.get(self._kept[1], f"alert {self._kept[1]}"))
            self._kept.clear()
        elif self._type == HANDSHAKE and not self._greeted and len(self._kept) >= 4:
            length = int.from_bytes(self._kept[1:4], "big")
            if self._kept[0] not in {_CLIENT_HELLO, _SERVER_HELLO} or length > _MAX_HELLO:
                self._greeted = True
            elif len(self._kept) >= 4 + length:
                self._greeted = True
                self._on_hello(parse_hello(bytes(self._kept[: 4 + length])))
            if self._greeted:
                self._kept.clear()


def parse_hello(message: bytes) -> Hello:
    """A handshake message, with its header. What cannot be read is left out."""
    client = message[0] == _CLIENT_HELLO
    try:
        return _parse_hello(message, client=client)
    except (IndexError, ValueError):
        return Hello(client)


def _parse_hello(message: bytes, *, client: bool) -> Hello:
    at = 4 + 2 + 32
    at += 1 + message[at]  # session id
    if client:
        at += 2 + int.from_bytes(message[at : at + 2], "big")  # cipher suites
        at += 1 + message[at]  # compression methods
    else:
        at += 3
    end = min(len(message), at + 2 + int.from_bytes(message[at : at + 2], "big"))
    at += 2
    sni, tls13 = "", False
    alpn: tuple[str, ...] = ()
    while at + 4 <= end:
        kind, size = int.from_bytes(message[at : at + 2], "big"), int.from_bytes(message[at + 2 : at + 4], "big")
        body = message[at + 4 : at + 4 + size]
        at += 4 + size
        if kind == 0 and client:  # RFC 6066 3
            sni = body[5 : 5 + int.from_bytes(body[3:5], "big")].decode("ascii", "backslashreplace")[:255]
        elif kind == 16:  # RFC 7301 3.1
            alpn = _strings(body[2:])
        elif kind == 43:  # RFC 8446 4.2.1
            tls13 = _TLS13 in ({body[i : i + 2] for i in range(1, len(body), 2)} if client else {body[:2]})
    return Hello(client, sni, alpn, tls13)


def _strings(data: bytes) -> tuple[str, ...]:
    found: list[str] = []
    at = 0
    while at < len(data) and len(found) < 16:
        found.append(data[at + 1 : at + 1 + data[at]].decode("ascii", "backslashreplace"))
        at += 1 + data[at]
    return tuple(found)
