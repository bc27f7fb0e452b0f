"""HTTP/1.x as bytes over a socket: what is sent is exactly what the caller wrote, what comes back is read tolerantly.

A client library would repair (or refuse to send) most of the requests that host validation has to be asked: two Host lines, no
Host, a tab, a NUL. Reading follows RFC 9112: interim 1xx answers are passed over (RFC 9110 section 15.2), the body ends by the
rules of section 6.3 (none, chunked, Content-Length, close), a bare LF ends a line too (section 2.2). Nothing waits longer than
`timeout` in all, however slowly the other side drips, and no more than `BODY_LIMIT` bytes of a body are read.

No function raises for what the other side does: that is what `RawAnswer.error` is for.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.model import now

if TYPE_CHECKING:
    from collections.abc import Sequence

BODY_LIMIT = 64 * 1024
HEAD_LIMIT = 64 * 1024
_BLOCK = 16 * 1024
# A server that sends head and body apart, without TCP_NODELAY, waits for our ACK in between: 40 ms on Linux unless sent at once.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_STATUS_LINE = re.compile(rb"HTTP/\d+(?:\.\d+)? +(\d{3})(?: ([^\r\n]*))?\r?$")
_CHUNK_SIZE = re.compile(rb"\s*([0-9a-fA-F]{1,15})\s*(?:;.*)?$", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What came back. Times are seconds as `chaos.model.now()` gives them.

    `status` is None when no status line and head could be read; `error` then says why: 'refused', 'unreachable', 'timeout',
    'reset', 'closed' (not one byte came), 'malformed' (bytes came that are no HTTP/1.x answer; `body` holds them), 'tls'. With a
    status, `error` is '' for a whole answer and 'truncated', 'timeout', 'reset' or 'malformed' for one whose body did not end as
    announced. Header names are lower case, in the order received. `body` is cut at 64 KiB without that being an error.
    """

    status: int | None = None
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    error: str = ""
    started: float = 0.0
    finished: float = 0.0

    def header(self, name: str) -> str:
        """The first value of a header, '' when there is none. `name` in lower case."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def media_type(self) -> str:
        """Type and subtype in lower case, without parameters; '' without a Content-Type."""
        return self.header("content-type").partition(";")[0].strip().lower()


class _EndedError(Exception):
    """The stream gave no more: `why` is one of RawAnswer.error's words."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class _FullError(Exception):
    """BODY_LIMIT bytes of a body are there: enough to judge it by, and an endless one ends here."""


class _Stream:
    """Buffered reading from a socket, never beyond a deadline (seconds of `now()`)."""

    __slots__ = ("_deadline", "_socket", "buffer", "received")

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._socket = connected
        self._deadline = deadline
        self.buffer = bytearray()
        self.received = 0

    def until(self, deadline: float) -> None:
        """Another deadline from now on."""
        self._deadline = deadline

    def more(self) -> None:
        """Append one block to the buffer, or raise _EndedError ('closed', 'reset', 'timeout')."""
        left = self._deadline - now()
        if left <= 0:
            raise _EndedError("timeout")
        try:
            self._socket.settimeout(left)
            if _QUICKACK is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            block = self._socket.recv(_BLOCK)
        except (TimeoutError, OSError) as error:
            raise _EndedError(_why(error)) from None
        if not block:
            raise _EndedError("closed")
        self.buffer += block
        self.received += len(block)

    def line(self) -> bytes:
        """The next line without its CRLF or LF; _EndedError('malformed') when it does not end within HEAD_LIMIT."""
        searched = 0
        while (at := self.buffer.find(b"\n", searched)) < 0:
            searched = len(self.buffer)
            if searched > HEAD_LIMIT:
                raise _EndedError("malformed")
            self.more()
        found = bytes(self.buffer[:at])
        del self.buffer[: at + 1]
        return found.removesuffix(b"\r")

    def take(self, count: int, kept: bytearray) -> None:
        """Move `count` bytes to `kept`; _FullError when that reaches BODY_LIMIT before they are all there."""
        while count:
            if not self.buffer:
                self.more()
            block = self.buffer[: min(count, BODY_LIMIT - len(kept))]
            if not block:
                raise _FullError
            del self.buffer[: len(block)]
            kept += block
            count -= len(block)


def exchange(
    address: tuple[str, int], request: bytes, *, timeout: float, context: ssl.SSLContext | None = None, server_name: str = ""
) -> RawAnswer:
    """Send `request` on a fresh connection and read one answer. `timeout`: seconds for all of it, connecting included.

    With `context` the bytes go through TLS, with `server_name` as SNI.
    """
    return exchange_many(address, (request,), timeout=timeout, context=context, server_name=server_name)[0]


def exchange_many(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    timeout: float,
    context: ssl.SSLContext | None = None,
    server_name: str = "",
) -> tuple[RawAnswer, ...]:
    """Send `requests` one after the other on one connection, each after the answer to the one before; one answer a request.

    Once the connection has ended, or an answer was not whole, the rest are not sent: `status=None, error='unsent'`.
    """
    started = now()
    deadline = started + timeout
    try:
        connected = _connect(address, deadline, context, server_name)
    except (OSError, UnicodeError) as error:
        failed = RawAnswer(error=_why(error, connecting=True), started=started, finished=now())
        return (failed,) * len(requests)
    answers: list[RawAnswer] = []
    reusable = True
    with contextlib.closing(connected):
        stream = _Stream(connected, deadline)
        for request in requests:
            if reusable:
                answer, reusable = _one(connected, stream, request, deadline)
                answers.append(answer)
            else:
                answers.append(RawAnswer(error="unsent", started=now(), finished=now()))
    return tuple(answers)


def exchange_at_once(
    address: tuple[str, int],
    request: bytes,
    *,
    timeout: float,
    quiet: float,
    most: int = 4,
    context: ssl.SSLContext | None = None,
    server_name: str = "",
) -> tuple[RawAnswer, ...]:
    """Send bytes that may hold several requests, or none that is whole, in one segment, and read every answer that comes.

    At most `most`. The first is waited for until `timeout` seconds have passed, each further one for `quiet` seconds. The last one is
    the end: an answer without a status says how the connection stood ('closed', 'timeout', ...).
    """
    started = now()
    try:
        connected = _connect(address, started + timeout, context, server_name)
    except (OSError, UnicodeError) as error:
        return (RawAnswer(error=_why(error, connecting=True), started=started, finished=now()),)
    answers: list[RawAnswer] = []
    with contextlib.closing(connected):
        stream = _Stream(connected, started + timeout)
        sent = request
        while len(answers) < most:
            answer, _ = _one(connected, stream, sent, started + timeout)
            answers.append(answer)
            if answer.status is None or answer.error or answer.status == 101:
                break
            sent = b""
            stream.until(now() + quiet)
    return tuple(answers)


def _connect(address: tuple[str, int], deadline: float, context: ssl.SSLContext | None, server_name: str) -> socket.socket:
    connected = socket.create_connection(address, timeout=max(0.001, deadline - now()))
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return connected
        return context.wrap_socket(connected, server_hostname=server_name or None)
    except BaseException:
        connected.close()
        raise


def _one(connected: socket.socket, stream: _Stream, request: bytes, deadline: float) -> tuple[RawAnswer, bool]:
    """One answer, and whether another request may follow it on this connection."""
    started = now()
    received = stream.received - len(stream.buffer)
    sending = ""
    try:
        connected.settimeout(max(0.001, deadline - started))
        connected.sendall(request)
    except (TimeoutError, OSError) as problem:
        sending = _why(problem)  # a server may refuse a request before it has read it: its answer can still be there to be read
    try:
        status, reason, headers = _head(stream)
    except _EndedError as ended:
        why = "malformed" if ended.why == "closed" and stream.received > received else ended.why
        return RawAnswer(error=sending or why, body=bytes(stream.buffer[:BODY_LIMIT]), started=started, finished=now()), False
    body = bytearray()
    error, reusable = "", not sending
    try:
        _body(stream, request, status, dict(reversed(headers)), body)
    except _EndedError as ended:
        error = "truncated" if ended.why == "closed" else ended.why
    except _FullError:
        reusable = False
    answer = RawAnswer(
        status=status, reason=reason, headers=headers, body=bytes(body), error=error, started=started, finished=now()
    )
    return answer, reusable and not error and not _closes(answer)


def _head(stream: _Stream) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """Status, reason and headers of the final answer; interim ones (1xx but 101, which is final) are read and dropped."""
    while True:
        while not stream.buffer:
            stream.more()
        while len(stream.buffer) < 5:
            stream.more()
        if not stream.buffer.startswith(b"HTTP/"):
            _drain(stream)
            raise _EndedError("malformed")
        matched = _STATUS_LINE.match(stream.line())
        if matched is None:
            raise _EndedError("malformed")
        status = int(matched[1])
        headers = _headers(stream)
        if status >= 200 or status == 101:
            return status, (matched[2] or b"").decode("latin-1"), headers


def _drain(stream: _Stream) -> None:
    """Read what is no HTTP answer to its end (or the limit), so that it can be shown."""
    with contextlib.suppress(_EndedError):
        while len(stream.buffer) < BODY_LIMIT:
            stream.more()


def _headers(stream: _Stream) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    size = 0
    while line := stream.line():
        size += len(line)
        if size > HEAD_LIMIT:
            raise _EndedError("malformed")
        text = line.decode("latin-1")
        if text[0] in " \t" and headers:  # obs-fold, RFC 9112 section 5.2: a user agent replaces it with a space
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {text.strip()}")
            continue
        name, _, value = text.partition(":")
        headers.append((name.strip().lower(), value.strip()))
    return tuple(headers)


def _body(stream: _Stream, request: bytes, status: int, headers: dict[str, str], kept: bytearray) -> None:
    """Read the body into `kept` by RFC 9112 section 6.3; raises _EndedError when it ends before it should."""
    if request.startswith(b"HEAD ") or status in {101, 204, 304}:
        return
    if "chunked" in headers.get("transfer-encoding", "").lower():
        _chunks(stream, kept)
        return
    length = headers.get("content-length", "").partition(",")[0].strip()  # '5, 5' is one length, repeated
    if length.isascii() and length.isdigit():
        stream.take(int(length), kept)
    elif length:
        raise _EndedError("malformed")
    else:
        _until_close(stream, kept)


def _chunks(stream: _Stream, kept: bytearray) -> None:
    while True:
        matched = _CHUNK_SIZE.match(stream.line())
        if matched is None:
            raise _EndedError("malformed")
        size = int(matched[1], 16)
        if size == 0:
            while stream.line():  # trailers: nothing in them is of use here
                pass
            return
        stream.take(size, kept)
        if stream.line():
            raise _EndedError("malformed")


def _until_close(stream: _Stream, kept: bytearray) -> None:
    while True:
        try:
            stream.take(max(1, len(stream.buffer)), kept)
        except _EndedError as ended:
            if ended.why == "closed":
                return
            raise


def _closes(answer: RawAnswer) -> bool:
    """Whether the connection ends with this answer."""
    names = {name for name, _ in answer.headers}
    framed = bool(names & {"content-length", "transfer-encoding"}) or answer.status in {204, 304}
    return "close" in answer.header("connection").lower() or answer.status == 101 or not framed


def _why(error: BaseException, *, connecting: bool = False) -> str:
    """One word for what a socket call raised."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
        return "reset"
    return "unreachable" if connecting else "reset"
