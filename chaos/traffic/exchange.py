"""One HTTP/1.1 exchange on a connection of its own, parsed by h11: a fifth of what a full client costs.

What a load generator costs itself is what it cannot measure of others: a general client takes 5 ms of processor time a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

READ = 65_536
KEPT = 1 << 20  # bytes of a body that are read; the rest is left unread


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A request that is ready to be sent: `url` with scheme and authority, header values as text (latin-1 at most)."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`headers` with lower-case names; of repeated ones the last."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """The body as UTF-8, whatever it says it is."""
        return self.body.decode("utf-8", "replace")


@cache
def unverified() -> ssl.SSLContext:
    """HTTPS in front of the target is not what is judged: its database is. So nothing is verified here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def exchange(request: Outgoing, *, kept: int = KEPT, head: Callable[[int], None] | None = None) -> Answer:
    """Send, and read the whole answer, at most `kept` bytes (and what came with them) of its body. `head` is told the status first.

    Raises OSError or h11.RemoteProtocolError; bounding the time is the caller's business.
    """
    parts = urlsplit(request.url)
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=unverified() if secure else None
    )
    try:
        protocol = h11.Connection(h11.CLIENT)
        out = _outgoing(protocol, request, parts.path or "/", parts.query)
        with contextlib.suppress(ConnectionError):  # a server may answer, and close, before it has read everything
            writer.write(out)
            await writer.drain()
        return await _answer(protocol, reader, kept, head)
    finally:
        writer.transport.abort()  # the answer is whole, or nobody wants it any more: no lingering close


def serialised(request: Outgoing) -> bytes:
    """The request as it goes over the wire, for whoever sends the same one many times; h11.LocalProtocolError when it is none."""
    parts = urlsplit(request.url)
    return _outgoing(h11.Connection(h11.CLIENT), request, parts.path or "/", parts.query)


def classify(error: BaseException) -> str:
    """One word for why no answer came."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionError):
        return "reset"
    if isinstance(error, h11.RemoteProtocolError):
        return "closed"
    return type(error).__name__


def _outgoing(protocol: h11.Connection, request: Outgoing, path: str, query: str) -> bytes:
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in request.headers.items()]
    if request.body or request.method in {"POST", "PUT", "PATCH"}:
        headers.append((b"Content-Length", str(len(request.body)).encode()))
    target = f"{path}?{query}" if query else path
    out = protocol.send(h11.Request(method=request.method, target=target.encode("ascii", "replace"), headers=headers)) or b""
    out += (protocol.send(h11.Data(data=request.body)) or b"") if request.body else b""
    return out + (protocol.send(h11.EndOfMessage()) or b"")


async def _answer(
    protocol: h11.Connection, reader: asyncio.StreamReader, kept: int, told: Callable[[int], None] | None
) -> Answer:
    head: h11.Response | None = None
    body = bytearray()
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(READ))
        elif isinstance(event, h11.Response):
            head = event
            if told is not None:
                told(head.status_code)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed) or len(body) > kept:
            break
    if head is None:
        raise h11.RemoteProtocolError("closed without an answer")
    return Answer(
        status=head.status_code,
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        body=bytes(body),
    )
