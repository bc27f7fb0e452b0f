"""Raw exchanges against a socket that answers whatever bytes the test says, in whatever pieces."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from chaos.traffic.raw import BODY_LIMIT, RawAnswer, exchange, exchange_many

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
Script = Callable[[socket.socket], None]


@contextmanager
def server(script: Script) -> Iterator[tuple[str, int]]:
    """Runs `script` on each accepted connection, then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        script(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield ("127.0.0.1", listening.getsockname()[1])
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # ends the wait in accept


def says(*pieces: bytes, wait: float = 0.0) -> Script:
    def script(connection: socket.socket) -> None:
        connection.recv(65536)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(wait)

    return script


def answered(*pieces: bytes, request: bytes = GET, timeout: float = 5.0, wait: float = 0.0) -> RawAnswer:
    with server(says(*pieces, wait=wait)) as address:
        return exchange(address, request, timeout=timeout)


def test_content_length() -> None:
    answer = answered(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-a: 2\r\nContent-Type: Text/Plain; x=y\r\n\r\nhello, and more"
    )
    assert (answer.status, answer.reason, answer.body, answer.error) == (200, "OK", b"hello", "")
    assert answer.headers[1:3] == (("x-a", "1"), ("x-a", "2"))
    assert answer.header("x-a") == "1"
    assert answer.header("nothing") == ""
    assert answer.media_type == "text/plain"
    assert 0 < answer.started <= answer.finished


def test_chunked_in_single_bytes() -> None:
    whole = b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    answer = answered(*(whole[at : at + 1] for at in range(len(whole))), wait=0.0005)
    assert (answer.status, answer.reason, answer.body, answer.error) == (200, "", b"abcde", "")


def test_until_close_and_bare_line_feeds() -> None:
    answer = answered(b"HTTP/1.0 400 Bad Request\nServer: old\n folded\n\n<h1>no", b"</h1>")
    assert (answer.status, answer.body, answer.error) == (400, b"<h1>no</h1>", "")
    assert answer.headers == (("server", "old folded"),)


def test_interim_answers_are_passed_over() -> None:
    answer = answered(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    assert (answer.status, answer.headers, answer.error) == (204, (), "")


def test_switching_protocols_is_final() -> None:
    assert answered(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00").status == 101


def test_head_has_no_body() -> None:
    answer = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", request=b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (answer.status, answer.body, answer.error) == (200, b"", "")


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        (b"", None, "closed"),
        (b"\r\n", None, "malformed"),
        (b"SSH-2.0-OpenSSH_9\r\n", None, "malformed"),
        (b"<html>bad request</html>", None, "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", None, "malformed"),
        (b"HTTP/1.1 twenty OK\r\n\r\n", None, "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", 200, "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", 200, "truncated"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200, "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nab", 200, "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", 200, ""),
    ],
)
def test_what_does_not_end_well(sent: bytes, status: int | None, error: str) -> None:
    answer = answered(sent)
    assert (answer.status, answer.error) == (status, error)


def test_what_is_no_http_is_kept_to_be_shown() -> None:
    assert answered(b"<html>bad", b" request</html>", wait=0.01).body == b"<html>bad request</html>"


def test_a_body_is_bounded() -> None:
    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with server(endless) as address:
        answer = exchange(address, GET, timeout=20)
    assert (answer.status, len(answer.body), answer.error) == (200, BODY_LIMIT, "")


@pytest.mark.parametrize("piece", [b"", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_nothing_waits_beyond_the_timeout(piece: bytes) -> None:
    """Whether it says nothing, drips a header byte by byte, or announces more than it sends."""

    def drip(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(piece)
            time.sleep(0.05)

    with server(drip) as address:
        answer = exchange(address, GET, timeout=0.4)
    assert answer.finished - answer.started < 3
    assert answer.error in {"timeout", "malformed"}


def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = ("127.0.0.1", listening.getsockname()[1])
    assert exchange(address, GET, timeout=2).error == "refused"
    assert exchange(("no-such-host.invalid", 80), GET, timeout=5).error == "unreachable"


def test_reset() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(reset) as address:
        assert exchange(address, GET, timeout=2).error == "reset"


def test_an_answer_before_the_request_was_read_is_still_read() -> None:
    def hasty(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        connection.recv(10)

    with server(hasty) as address:
        assert exchange(address, GET + b"x" * 100, timeout=2).status == 431


def test_several_answers_on_one_connection() -> None:
    def twice(connection: socket.socket) -> None:
        for number in (b"1", b"2"):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + number)
        connection.recv(65536)  # what is unread at the close makes an RST of the FIN

    with server(twice) as address:
        answers = exchange_many(address, [GET, GET, GET], timeout=5)
    assert [(one.status, one.body, one.error) for one in answers] == [(200, b"1", ""), (200, b"2", ""), (None, b"", "closed")]


@pytest.mark.parametrize("more", [b"Connection: close\r\nContent-Length: 1\r\n", b""])
def test_after_the_last_answer_nothing_is_sent(more: bytes) -> None:
    with server(says(b"HTTP/1.1 200 OK\r\n" + more + b"\r\n1")) as address:
        answers = exchange_many(address, [GET, GET], timeout=5)
    assert [(one.status, one.error) for one in answers] == [(200, ""), (None, "unsent")]


def test_through_tls() -> None:
    import ssl

    import trustme

    authority = trustme.CA()
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(inside)
    outside = ssl.create_default_context()

    def secured(connection: socket.socket) -> None:
        with inside.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(65536)
            wrapped.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with server(secured) as address:
        assert exchange(address, GET, timeout=5, context=outside, server_name="localhost").error == "tls"
        authority.configure_trust(outside)
        answer = exchange(address, GET, timeout=5, context=outside, server_name="localhost")
    assert (answer.status, answer.body) == (200, b"ok")
