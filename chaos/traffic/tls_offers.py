"""What a TLS server takes from a client that offers less than it should: hellos of our own, record by record.

The library that this Python is built on may not be able to offer TLS 1.0, or an export cipher, at all; a ClientHello (RFC 5246,
7.4.1.2) is a few bytes, and the server's choice is in the clear. Nothing is negotiated to the end: the choice is the finding.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.model import Kind, Layer, Operation, now
from chaos.traffic.pentest import record
from chaos.traffic.raw import exchange

if TYPE_CHECKING:
    from chaos.traffic.pentest import Place, Resource

TLS10, TLS11, TLS12 = b"\x03\x01", b"\x03\x02", b"\x03\x03"
VERSIONS = {b"\x03\x00": "SSL 3.0", TLS10: "TLS 1.0", TLS11: "TLS 1.1", TLS12: "TLS 1.2"}
# RFC 5246 A.5, RFC 8422, RFC 5288, RFC 7905: what any server of the last twenty years has one of.
SOUND = (0xC02F, 0xC02B, 0xC030, 0xC02C, 0xCCA8, 0xCCA9, 0x009C, 0x009D, 0xC013, 0xC009, 0xC014, 0xC00A, 0x002F, 0x0035)
# no encryption; no certificate; 40 and 56 bits (RFC 2246 A.5, RFC 4492 6, RFC 5246 A.5)
BARE = (
    0x0001,
    0x0002,
    0x003B,
    0xC006,
    0xC010,
    0x0034,
    0x003A,
    0xC018,
    0xC019,
    0x006C,
    0x00A6,
    0x0003,
    0x0006,
    0x0008,
    0x0014,
    0x0009,
)
RC4 = (0x0004, 0x0005, 0xC011, 0xC007)
TRIPLE_DES = (0x000A, 0xC012, 0xC008, 0x0016)
_RENEGOTIATION = 0xFF01
_HANDSHAKE, _ALERT = 22, 21
_LIMIT = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What came back. `answer` is 'hello' (then the rest holds), 'alert', 'closed', 'not TLS', or why nothing came."""

    answer: str
    version: str = ""
    cipher: int = 0
    compression: int = 0
    extensions: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.answer != "hello":
            return self.answer
        return f"{self.version}, cipher 0x{self.cipher:04X}" + (f", compression {self.compression}" if self.compression else "")


def client_hello(version: bytes, ciphers: tuple[int, ...], *, name: str = "", compression: bytes = b"\x00") -> bytes:
    """One record with a ClientHello in it. `version` is the highest that is offered."""
    suites = b"".join(one.to_bytes(2, "big") for one in (*ciphers, 0x00FF))  # RFC 5746, 3.3
    extensions = _extension(10, _sized(b"\x00\x1d\x00\x17\x00\x18")) + _extension(11, b"\x01\x00")
    if version == TLS12:
        extensions += _extension(13, _sized(b"".join(bytes(one) for one in _SIGNATURES)))
    if name and not _is_address(name):
        encoded = name.encode("idna")
        extensions = _extension(0, _sized(b"\x00" + _sized(encoded))) + extensions
    message = version + os.urandom(32) + b"\x00" + _sized(suites)
    message += bytes([len(compression)]) + compression + _sized(extensions)
    handshake = b"\x01" + len(message).to_bytes(3, "big") + message
    return bytes([_HANDSHAKE]) + TLS10 + _sized(handshake)


_SIGNATURES = ((4, 3), (5, 3), (6, 3), (8, 4), (8, 5), (8, 6), (4, 1), (5, 1), (6, 1), (8, 7), (2, 3), (2, 1))


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _extension(number: int, data: bytes) -> bytes:
    return number.to_bytes(2, "big") + _sized(data)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def offer(
    address: tuple[str, int],
    version: bytes,
    ciphers: tuple[int, ...],
    *,
    name: str = "",
    compression: bytes = b"\x00",
    timeout: float = 3.0,
) -> Choice:
    """Send one hello, and read what the server chooses. Raises nothing for what the other side does."""
    received = bytearray()
    deadline = now() + timeout
    try:
        with contextlib.closing(socket.create_connection(address, timeout=timeout)) as connected:
            connected.sendall(client_hello(version, ciphers, name=name, compression=compression))
            while (choice := parse(bytes(received))) is None:
                connected.settimeout(max(0.001, deadline - now()))
                block = connected.recv(4096)
                if not block or len(received) > _LIMIT:
                    return Choice(answer="closed")
                received += block
            return choice
    except TimeoutError:
        return Choice(answer="timeout")
    except OSError:
        return Choice(answer="closed")


def parse(data: bytes) -> Choice | None:
    """The server's first message; None while it is not whole."""
    if len(data) < 5:
        return None
    if data[1] != 3 or data[0] not in {_ALERT, _HANDSHAKE}:
        return Choice(answer="not TLS")
    if data[0] == _ALERT:
        return Choice(answer="alert")
    message = bytearray()
    at = 0
    while at + 5 <= len(data) and data[at] == _HANDSHAKE:
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
    length = int.from_bytes(message[1:4], "big")
    if len(message) < 4 or len(message) < 4 + length:
        return None
    return _server_hello(bytes(message[4 : 4 + length])) if message[0] == 2 else Choice(answer="not TLS")


def _server_hello(message: bytes) -> Choice:
    version = VERSIONS.get(message[:2], message[:2].hex())
    at = 2 + 32
    if len(message) < at + 1 or len(message) < at + 4 + message[at]:
        return Choice(answer="not TLS")
    at += 1 + message[at]
    cipher = int.from_bytes(message[at : at + 2], "big")
    compression = message[at + 2]
    at += 5
    found: list[int] = []
    while at + 4 <= len(message):
        found.append(int.from_bytes(message[at : at + 2], "big"))
        at += 4 + int.from_bytes(message[at + 2 : at + 4], "big")
    return Choice(answer="hello", version=version, cipher=cipher, compression=compression, extensions=tuple(found))


def downgrades(place: Place, resource: Resource) -> list[Operation]:
    """Every row about TLS at a place that speaks it. `occurrences` is 1 where what was offered was taken; `error` says what came.

    The first operation is the control: a sound offer of TLS 1.2. A server that takes nothing below 1.3 answers it by an alert, which
    is as well; one that does not answer at all shows nothing.
    """
    name = place.server_name
    control = offer(place.address, TLS12, SOUND, name=name)

    def told(row: str, choice: Choice, *, taken: bool) -> Operation:
        at = now()
        return Operation(
            kind=Kind.ATTACK,
            method="TLS",
            path=name or place.address[0],
            sample="tls",
            started=at,
            finished=at,
            error=str(choice),
            expected=row,
            occurrences=int(taken),
            ok=control.answer in {"hello", "alert"},
            layer=Layer.SERVER,
            row=row,
            client=place.name,
        )

    def asked(version: bytes, ciphers: tuple[int, ...], compression: bytes = b"\x00") -> Choice:
        return offer(place.address, version, ciphers, name=name, compression=compression)

    found = [told("tls", control, taken=False)]
    for row, version in (("PT01", TLS10), ("PT02", TLS11)):
        choice = asked(version, SOUND)
        found.append(told(row, choice, taken=choice.answer == "hello" and choice.version == VERSIONS[version]))
    for row, ciphers in (("PT03", BARE), ("PT04", RC4), ("PT05", TRIPLE_DES)):
        choices = [asked(version, ciphers) for version in (TLS12, TLS10)]
        taken = [one for one in choices if one.answer == "hello" and one.cipher in ciphers]
        found.append(told(row, (taken or choices)[0], taken=bool(taken)))
    squeezed = asked(TLS12, SOUND, b"\x01\x00")
    found.append(told("PT06", squeezed, taken=squeezed.answer == "hello" and squeezed.compression != 0))
    if control.answer == "hello":
        found.append(told("PT07", control, taken=_RENEGOTIATION not in control.extensions))
    answer = exchange(place.address, resource.request("GET", resource.path, good=True), timeout=place.timeout)
    served = answer.status is not None and 200 <= answer.status < 300
    plain = Choice(answer=f"answered {answer.status}" if answer.status else answer.error)
    found.append(told("PT08", plain, taken=served))
    secure = place.ask(resource.request("GET", resource.path, good=True))
    if secure.status is not None:
        strict = secure.header("strict-transport-security")
        found.append(told("PT10", Choice(answer=strict or "no Strict-Transport-Security"), taken=not strict))
    return found


def cleartext(address: tuple[str, int], resource: Resource, *, place: str, timeout: float = 3.0) -> list[Operation]:
    """PT09: what the port for HTTP in the clear says, where there is one. Nothing where nobody listens."""
    request = resource.request("GET", resource.path, good=True)
    answer = exchange(address, request, timeout=timeout)
    if answer.status is None:
        return []
    done = record("PT09", resource, request, answer, place=place)
    served = 200 <= answer.status < 300
    return [
        replace(
            done, method="TLS", occurrences=int(served), error=f"answered {answer.status} {answer.header('location')}".strip()
        )
    ]
