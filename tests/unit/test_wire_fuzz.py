"""The impostor survives what clients send it, in every role: arbitrary bytes, half messages, crowds, slow readers; plain sockets, no database."""

import asyncio
import os
import socket
import ssl
import struct
import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaos.certs import Authority
from chaos.faults.wire import Refuse, Stall, Wire
from chaos.faults.wire.protocol import SSL_REQUEST
from chaos.faults.wire.rows import ROWS
from chaos.model import Rung

STARTUP = struct.pack("!II", 18, 196608) + b"user\0app\0\0"
SASL = b"SCRAM-SHA-256\0" + struct.pack("!I", 21) + b"n,,n=,r=abcdefghijklm"
WORDS = [
    SSL_REQUEST, STARTUP, SSL_REQUEST[:5], STARTUP[:9], struct.pack("!II", 8, 80877104), struct.pack("!IIII", 16, 80877102, 1, 2),
    b"p" + struct.pack("!I", len(SASL) + 4) + SASL, b"p\0\0\0\x0bsecret\0", b"p\xff\xff\xff\xff", b"p\0\0\0\3", b"X\0\0\0\4",
    b"Q\0\0\0\x0dSELECT 1\0", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x15\x03\x03\x00\x02\x02\x28", b"\0\0\0\0", b"\x7f" * 9,
]  # fmt: skip
sendings = st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=300)), min_size=1, max_size=8)
NAME = 24  # letters of each name: one ClientHello serves all
QUIET = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def wire():
    """In front of a port on which nobody listens: what relays gets an RST, which is one more thing to survive."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        wire = Wire(nobody.getsockname())
        wire.start()
        yield wire
        wire.sever()
        until(lambda: all_closed(wire))
        wire.stop()
        assert wire.errors == ()


def until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def all_closed(wire):
    return all(one.closed for one in wire.connections()) and not wire._scenes


def descriptors():
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - Linux and macOS


def trusting():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


ROLES = {row.id: row for row in ROWS if not row.client and row.entry == "valid"} | {
    row.id: row for row in ROWS if row.id in {"C1", "C27.names"}
}


@pytest.mark.parametrize("role", ROLES)
def test_any_bytes_in_the_clear(wire, authority, role):
    wire.behave(ROLES[role].make(authority.issue))
    before = descriptors()

    @QUIET
    @given(sendings)
    def play(parts):
        with suppress(OSError), socket.create_connection(("127.0.0.1", wire.port), timeout=10) as link:
            for part in parts:
                link.sendall(part)
            link.shutdown(socket.SHUT_WR)
            link.settimeout(0.01)
            while link.recv(4096):
                pass

    play()
    wire.sever()
    until(lambda: all_closed(wire))
    until(lambda: descriptors() <= before)
    assert "secret" not in repr(wire.connections())


@pytest.mark.parametrize("role", ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "P5", "P8.startup", "C1", "valid"])
def test_any_bytes_inside_tls(wire, authority, role):
    """Once TLS stands the client may say anything, in any portions, and go in any way."""
    wire.behave(ROLES[role].make(authority.issue))
    context = trusting()

    @QUIET
    @given(sendings, st.booleans())
    def play(parts, polite):
        with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as link:
            link.sendall(SSL_REQUEST)
            try:
                assert link.recv(1) == b"S"
                if role == "P5":
                    assert len(link.recv(9)) == 9
                with context.wrap_socket(link, server_hostname="localhost") as secure:
                    for part in (STARTUP, *parts):
                        secure.sendall(part)
                    secure.settimeout(0.01)
                    secure.recv(4096)
                    if polite:
                        secure.unwrap()
            except OSError:
                pass

    play()
    wire.sever()
    until(lambda: all_closed(wire))
    assert "secret" not in repr(wire.connections())


def test_ten_thousand_connections(wire):
    """In batches of 250. Each sends a name of its own in its ClientHello, and must find it, and only it, in its own record."""
    wire.behave(Stall("after_S"))
    total, batch = 10_000, 250
    before = descriptors()

    async def one(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        writer.write(SSL_REQUEST if number % 2 else SSL_REQUEST[:3])
        if number % 2:
            assert await reader.readexactly(1) == b"S"
            if number % 10 == 1:
                writer.write(hello(f"n{number}.example.test"))
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def crowd():
        for start in range(0, total, batch):
            await asyncio.wait_for(asyncio.gather(*(one(number) for number in range(start, start + batch))), 60)

    asyncio.run(crowd())
    until(lambda: len(wire.connections()) == total and all_closed(wire))
    met = wire.connections()
    assert sorted(one.id for one in met) == list(range(1, total + 1))
    names = sorted(one.sni for one in met if one.sni)
    assert names == sorted(f"n{number}.example.test".ljust(NAME, "x") for number in range(1, total, 10))
    assert sum(one.reached is Rung.NOTHING for one in met) == total // 2
    assert sum(one.reached is Rung.SSL_REQUEST for one in met) == total // 2 - total // 10
    assert sum(one.reached is Rung.CLIENT_HELLO for one in met) == total // 10
    until(lambda: descriptors() <= before)


def hello(name, cache={}):  # noqa: B006  (a real one is made once, and its name replaced by another of the same length)
    wide = name.ljust(NAME, "x")
    if not cache:
        out = ssl.MemoryBIO()
        end = trusting().wrap_bio(ssl.MemoryBIO(), out, server_hostname="y" * NAME)
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
        cache["bytes"] = out.read()
    return cache["bytes"].replace(b"y" * NAME, wide.encode())


@pytest.mark.parametrize("role", ["A1", "P2", "P9.http", "C27.names"])
def test_a_client_that_never_reads_holds_up_nobody(wire, authority, role):
    wire.behave(ROLES[role].make(authority.issue))
    deaf = []
    for _ in range(20):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        link.connect(("127.0.0.1", wire.port))
        link.sendall(SSL_REQUEST)
        deaf.append(link)
    wire.behave(Refuse(b"N"))
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as quick:
        quick.sendall(SSL_REQUEST)
        assert quick.recv(1) == b"N"
    assert time.monotonic() - started < 2
    for link in deaf:
        link.close()
