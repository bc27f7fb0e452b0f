"""HTTP/2 as it is sent by nobody's library: any header list, in any order, repaired by nothing (RFC 9113).

Frames, flow control and HPACK are those of the package `h2`, with every check of its own switched off; what is sent is what the
caller wrote. A request is refused in one of three ways: an answer (400), its stream reset (a malformed message is a stream error of
type PROTOCOL_ERROR, RFC 9113, 8.1.1), or the connection ended. The latter two are `RawAnswer.error`: 'stream PROTOCOL_ERROR',
'connection PROTOCOL_ERROR'. 'no h2' is a server that chose another protocol (ALPN, RFC 7301). All else is as in `chaos.traffic.raw`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from chaos.model import now
from chaos.traffic.raw import BODY_LIMIT, RawAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

_BLOCK = 64 * 1024
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Request:
    """Header fields, pseudo-header fields among them, in the order in which they are sent; a body and trailers where there are any."""

    headers: Pairs
    body: bytes = b""
    trailers: Pairs = ()


@dataclass(slots=True)
class _Reading:
    """What has come of one stream so far."""

    status: int | None = None
    headers: Pairs = ()
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    error: str = ""


def context(verify: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """A client's TLS context that offers HTTP/2 alone. Without `verify` it verifies nothing: what is judged with it is not TLS."""
    made = verify or ssl.create_default_context()
    if verify is None:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(["h2"])
    return made


def exchange_many(
    address: tuple[str, int],
    requests: Sequence[Http2Request],
    *,
    timeout: float,
    context: ssl.SSLContext,
    server_name: str = "",
) -> tuple[RawAnswer, ...]:
    """Send `requests` on one connection, each on a stream of its own after the answer to the one before; one answer a request.

    `timeout`: seconds for all of it. Once the connection has ended the rest are not sent: `status=None, error='unsent'`.
    Raises nothing for what the other side does.
    """
    started = now()
    deadline = started + timeout
    answers: list[RawAnswer] = []
    try:
        with contextlib.ExitStack() as ending:
            plain = socket.create_connection(address, timeout=timeout)
            ending.callback(plain.close)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure = context.wrap_socket(plain, server_hostname=server_name or None)
            ending.callback(secure.close)
            if secure.selected_alpn_protocol() != "h2":
                return (RawAnswer(error="no h2", started=started, finished=now()),) * len(requests)
            talk = _Talk(secure, deadline)
            answers.extend(talk.ask(request) for request in requests)
    except (OSError, UnicodeError) as error:
        failed = RawAnswer(error=_why(error), started=started, finished=now())
        return (*answers, *(failed,) * (len(requests) - len(answers)))
    return tuple(answers)


class _Talk:
    """One connection: asks, and reads until that stream has ended or the connection has."""

    def __init__(self, secure: ssl.SSLSocket, deadline: float) -> None:
        self._socket, self._deadline = secure, deadline
        loose = H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
        )
        self._h2 = H2Connection(loose)
        self._h2.initiate_connection()
        self._over = ""

    def ask(self, request: Http2Request) -> RawAnswer:
        started = now()
        if self._over:
            return RawAnswer(error="unsent", started=started, finished=now())
        reading = _Reading()
        try:
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, _bytes(request.headers), end_stream=not (request.body or request.trailers))
            if request.body:
                self._h2.send_data(
                    stream, request.body[: self._h2.local_flow_control_window(stream)], end_stream=not request.trailers
                )
            if request.trailers:
                self._h2.send_headers(stream, _bytes(request.trailers), end_stream=True)
            self._flush()
            while not (reading.ended or reading.error or self._over):
                self._read(stream, reading)
        except OSError as error:
            self._over = reading.error = reading.error or _why(error)
        except ProtocolError as error:  # what came breaks HTTP/2 itself
            self._over = reading.error = f"malformed ({type(error).__name__})"
        return RawAnswer(
            status=reading.status,
            headers=reading.headers,
            body=bytes(reading.body),
            error="" if reading.ended else reading.error or self._over,
            started=started,
            finished=now(),
        )

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._socket.sendall(data)

    def _read(self, stream: int, reading: _Reading) -> None:
        left = self._deadline - now()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        data = self._socket.recv(_BLOCK)
        if not data:
            self._over = "closed"
            return
        for event in self._h2.receive_data(data):
            self._take(event, stream, reading)
        self._flush()

    def _take(self, event: events.Event, stream: int, reading: _Reading) -> None:
        if isinstance(event, events.ConnectionTerminated):
            self._over = f"connection {_code(event.error_code)}"
            return
        if getattr(event, "stream_id", None) != stream:
            return
        if isinstance(event, events.ResponseReceived):
            pairs = tuple((_text(name).lower(), _text(value)) for name, value in event.headers or ())
            said = dict(pairs).get(":status", "")
            reading.status = int(said) if said.isdigit() else None
            reading.headers = tuple((name, value) for name, value in pairs if not name.startswith(":"))
        elif isinstance(event, events.DataReceived):
            reading.body += (event.data or b"")[: max(0, BODY_LIMIT - len(reading.body))]
            if event.flow_controlled_length:
                self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, events.StreamEnded):
            reading.ended = True
        elif isinstance(event, events.StreamReset):
            reading.error = f"stream {_code(event.error_code)}"


def _bytes(pairs: Pairs) -> list[tuple[bytes, bytes]]:
    return [(name.encode("utf-8"), value.encode("utf-8")) for name, value in pairs]


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _code(number: ErrorCodes | int | None) -> str:
    try:
        return ErrorCodes(number or 0).name
    except ValueError:
        return f"error {number}"


def _why(error: BaseException) -> str:
    """One word for what a socket call raised, as in `chaos.traffic.raw`."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "reset" if isinstance(error, ConnectionError) else "unreachable"


__all__ = ["Http2Request", "context", "exchange_many"]
