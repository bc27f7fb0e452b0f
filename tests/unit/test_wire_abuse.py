"""The wire under abuse: it never crashes, never leaks, never mixes connections up. Plain sockets on both sides; no database needed."""

import asyncio
import os
import random
import socket
import struct
import threading
import time

import pytest

from chaos.certs import Authority
from chaos.faults.wire import Impostor, Refuse, Relay, Stall, Wire
from chaos.faults.wire.protocol import SSL_REQUEST
from chaos.model import Rung

STARTUP = struct.pack("!II", 18, 196608) + b"user\0app\0\0"
STARTS = [
    b"", SSL_REQUEST, SSL_REQUEST[:5], SSL_REQUEST * 3, STARTUP, SSL_REQUEST + b"\x16\x03\x01\x02\x00", b"\x16\x03\x01", b"\0\0\0\7",
]  # fmt: skip


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    return Authority.create(tmp_path_factory.mktemp("certificates")).issue("valid")


class Echo:
    """Sends back what it gets, and closes when the other side has."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = self._listener.getsockname()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener, backlog=1024))
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


@pytest.fixture
def echo():
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def wire(echo):
    wire = Wire(echo.address)
    wire.start()
    yield wire
    wire.stop()
    assert wire.errors == ()


def descriptors():
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - Linux and macOS


def until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def all_closed(wire):
    return all(one.closed for one in wire.connections()) and not wire._scenes


def test_a_thousand_connections_at_once_get_their_own_bytes(wire):
    before = descriptors()

    async def one(n):
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        mine = n.to_bytes(4, "big") * (50 + n % 900)
        writer.write(mine)
        got = await reader.readexactly(len(mine))
        writer.close()
        await writer.wait_closed()
        return got == mine

    async def crowd():
        return await asyncio.wait_for(asyncio.gather(*(one(n) for n in range(1000))), 120)

    assert all(asyncio.run(crowd()))
    until(lambda: all_closed(wire))
    assert len(wire.connections()) == 1000
    assert sorted({one.id for one in wire.connections()}) == list(range(1, 1001))
    until(lambda: descriptors() <= before)


def test_a_slow_reader_holds_up_nobody_and_loses_nothing(wire):
    size = 8 << 20
    with socket.create_connection(("127.0.0.1", wire.port)) as slow:
        sender = threading.Thread(target=slow.sendall, args=(bytes(size),))
        sender.start()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as quick:
                quick.sendall(b"hello")
                assert quick.recv(5) == b"hello"
        got = 0
        while got < size:
            got += len(slow.recv(1 << 16))
        sender.join(10)
        assert got == size
    until(lambda: all_closed(wire))
    assert wire.connections()[0].bytes_up == wire.connections()[0].bytes_down == size


@pytest.mark.parametrize(
    "kind", ["relay", "close", "ask", "relay-inside", "N", "E", "eof", "accept", "after_S", "in_tls", "after_startup"]
)
def test_garbage_in_any_portions(wire, identity, kind):
    before = descriptors()
    wire.behave(
        {
            "relay": Relay(), "close": Impostor(identity, "close"), "ask": Impostor(identity, "ask"),
            "relay-inside": Impostor(identity, "relay"), "N": Refuse(b"N"), "E": Refuse(b"E"), "eof": Refuse("eof"),
            "accept": Stall("accept"), "after_S": Stall("after_S"), "in_tls": Stall("in_tls", identity),
            "after_startup": Stall("after_startup", identity),
        }[kind]
    )  # fmt: skip
    dice = random.Random(7)
    for n in range(60):
        with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as link:
            start = dice.choice(STARTS)
            try:
                for part in (start, dice.randbytes(dice.choice([0, 1, 7, 300, 5000]))):
                    if part:
                        link.sendall(part)
                if n % 3 == 0:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif n % 3 == 1:
                    link.shutdown(socket.SHUT_WR)
                    link.settimeout(0.02)
                    link.recv(1000)
            except OSError:
                pass
    until(lambda: len(wire.connections()) == 60 and all_closed(wire))
    until(lambda: descriptors() <= before)


def test_a_half_message_is_waited_for(wire, identity):
    wire.behave(Impostor(identity))
    with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as link:
        for byte in SSL_REQUEST[:-1]:
            link.sendall(bytes([byte]))
            time.sleep(0.005)
        (one,) = wire.connections()
        assert one.reached is Rung.NOTHING
        link.sendall(SSL_REQUEST[-1:])
        assert link.recv(1) == b"S"
        until(lambda: wire.connections()[0].reached is Rung.SSL_REQUEST)


def test_severing_a_crowd(wire):
    wire.behave(Stall("accept"))
    links = [socket.create_connection(("127.0.0.1", wire.port)) for _ in range(300)]
    until(lambda: len(wire.connections()) == 300)
    assert wire.sever() == 300
    for link in links:
        with link, pytest.raises(ConnectionResetError):
            link.recv(1)


def test_many_threads_at_the_controls(wire):
    stop = threading.Event()
    failed = []

    def turn():
        try:
            while not stop.is_set():
                wire.behave(random.choice([Relay(), Refuse(b"N"), Stall("accept")]))
                wire.sever(random.choice(["rst", "fin"]))
                wire.connections()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
            failed.append(error)

    threads = [threading.Thread(target=turn) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        try:
            with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as link:
                link.sendall(SSL_REQUEST)
                link.recv(10)
        except OSError:  # cut, maybe even before connect() had returned
            pass
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not failed
    wire.sever()
    until(lambda: all_closed(wire))


def test_half_close_passes(wire):
    with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as link:
        link.sendall(b"last words")
        link.shutdown(socket.SHUT_WR)
        got = b""
        while data := link.recv(100):
            got += data
    assert got == b"last words"


def test_an_upstream_that_is_not_there_is_an_rst(echo):
    del echo
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        wire = Wire(nobody.getsockname())
        wire.start()
        try:
            with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as link, pytest.raises(ConnectionResetError):
                link.recv(1)
            until(lambda: all_closed(wire))
            assert wire.connections()[0].ended_by == "server"
        finally:
            wire.stop()


def test_speed_is_not_absurd(wire):
    """10 MB/s is far below what it does (about 200 on a quiet machine); below that a fault would be in the wire itself."""
    size = 32 << 20
    with socket.create_connection(("127.0.0.1", wire.port), timeout=30) as link:
        sender = threading.Thread(target=link.sendall, args=(bytes(size),))
        started = time.monotonic()
        sender.start()
        got = 0
        while got < size:
            got += len(link.recv(1 << 20))
        sender.join(10)
    assert size / (time.monotonic() - started) > 10e6
