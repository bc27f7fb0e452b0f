"""Who gave an answer: the edge, the HTTP server under the application, or the application itself.

An error that the HTTP server gives before the application sees the request cannot be mended in the application, so it is told
apart: `learn` asks for garbage that no application ever sees (a bad request line, a bad header, a version that does not exist)
and remembers the shape of what comes back, beside the shape of errors that only the application can give (an unknown path, an
unknown host). An answer is the server's when it has a shape of the first kind and none of the second: in doubt it is the
application's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.model import Layer
from chaos.traffic.raw import RawAnswer, exchange_many

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

EDGE_MARK = "x-chaos-edge"
STEM = 12  # characters in which two messages of the same program agree: '### bad requ', 'invalid http'
_CHANGING = frozenset({"date", "content-length", "connection", "transfer-encoding", "keep-alive"})
_TAG = re.compile(r"<[^>]*>")
_NAMED = re.compile(r"<(?:head|title|style|script|meta|link|!doctype)\b.*?(?:</(?:head|title|style|script)>|>)", re.DOTALL)

# Each breaks the syntax of RFC 9112 in a way of its own: a server that tolerates one does not tolerate all.
GARBAGE = (
    "GARBAGE\r\n\r\n",
    "GET {path}\x01 HTTP/1.1 x\r\nHost: {host}\r\n\r\n",
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nno colon in this line\r\nConnection: close\r\n\r\n",
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nb@d name(: x\r\nConnection: close\r\n\r\n",
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Null: a\x00b\r\nConnection: close\r\n\r\n",
    "GET {path} HTTP/9.9\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\nConnection: close\r\n\r\n",
)
# An application answers 405 to a method that it lacks; 501 is what a server says that knows a list of methods (RFC 9110, 15.6.2).
UNHEARD_OF = "CHAOS {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n"
ORDINARY = (
    "GET /chaos-gate-unknown-path HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n",
    "GET {path} HTTP/1.1\r\nHost: chaos-gate-unknown.example\r\n{headers}Connection: close\r\n\r\n",
)
# Either of the two may answer these. A server that could not make sense of a request ends the connection (RFC 9112, 9.6: it no
# longer knows where the next one begins); an application that refuses one has no reason to.
HOSTILE = tuple(
    f"GET {{path}} HTTP/1.1\r\n{lines}{{headers}}\r\n"
    for lines in (
        "",
        "Host:\r\n",
        "Host: {host}\r\nHost: {host}\r\n",
        "Host: {host} x\r\n",
        "Host: x@{host}\r\n",
        'Host: {host}:"><x\r\n',
        "Host: {host}\xe9\r\n",
        "Host: {host}\r\n x\r\n",
        "Host : {host}\r\n",
        " Host: {host}\r\n",
        "Host: {host}\x00x\r\n",
    )
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What two answers of the same program have in common: header names, media type, and how the text begins.

    `names` leaves out what changes from answer to answer; `text` is the body without tags, digits as '#', in lower case.
    """

    names: frozenset[str]
    media_type: str
    text: str

    def like(self, other: Shape) -> bool:
        """Same names and media type, and texts that agree in their first STEM characters (both empty: they agree)."""
        return self.kin(other) and self.text[:STEM] == other.text[:STEM]

    def kin(self, other: Shape) -> bool:
        """Same names and media type."""
        return (self.names, self.media_type) == (other.names, other.media_type)


def shape(answer: RawAnswer) -> Shape:
    """The shape of an answer."""
    body = answer.body[:4096].decode("utf-8", "replace").lower()
    plain = " ".join(_TAG.sub(" ", _NAMED.sub(" ", body)).split())
    return Shape(frozenset(name for name, _ in answer.headers) - _CHANGING, answer.media_type, re.sub(r"\d", "#", plain)[:200])


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Shapes of the HTTP server's own errors, and of the application's. With neither, every answer is the application's."""

    server: tuple[Shape, ...] = ()
    application: tuple[Shape, ...] = ()

    def layer(self, answer: RawAnswer) -> Layer:
        """Who gave this answer. NOBODY when none came; an answer below 400 is the application's, or the edge's.

        A method that a server does not know at all is answered 501 (RFC 9110, 15.6.2), in other words than garbage is.
        """
        if answer.status is None:
            return Layer.NOBODY
        if _marked(answer):
            return Layer.EDGE
        if answer.status < 400:
            return Layer.APPLICATION
        found = shape(answer)
        ours = any(found.like(one) for one in self.application)
        alike = Shape.kin if answer.status == 501 else Shape.like
        return Layer.SERVER if not ours and any(alike(found, one) for one in self.server) else Layer.APPLICATION


def learn(
    address: tuple[str, int],
    *,
    host: str,
    path: str = "/",
    headers: Iterable[tuple[str, str]] = (),
    timeout: float = 5.0,
    context: ssl.SSLContext | None = None,
) -> Learned:
    """Ask `address` for garbage, and for what only the application refuses. `timeout`: seconds for each of two dozen requests.

    For hosts that either may refuse: the server did when the connection ended with the answer although nobody asked for that, the
    application's own refusals leave it open, and the answer's header names and media type are those of the server's other errors
    and of none of the application's.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)

    def ask(*templates: str) -> tuple[RawAnswer, ...]:
        filled = [one.replace("{host}", host).replace("{path}", path).replace("{headers}", lines) for one in templates]
        requests = [one.encode("latin-1", "replace") for one in filled]
        return exchange_many(address, requests, timeout=timeout, context=context, server_name=host)

    # A 5xx to garbage (but 505, and 501) is an application that it reached after all, and crashed.
    server = _errors((ask(one)[0] for one in GARBAGE), (400, 501, 505))
    server += _errors(ask(UNHEARD_OF), (501,))
    application = _errors((ask(one)[0] for one in ORDINARY), ())
    good = ORDINARY[1].replace("chaos-gate-unknown.example", "{host}")
    if ask(ORDINARY[1].replace("Connection: close\r\n", ""), good)[1].status is not None:
        pairs = {(one.names, one.media_type) for one in server} - {(one.names, one.media_type) for one in application}
        ended = (first for first, then in (ask(one, good) for one in HOSTILE) if then.status is None)
        server += tuple(one for one in _errors(ended, (400,)) if (one.names, one.media_type) in pairs)
    return Learned(server=tuple(dict.fromkeys(server)), application=application)


def _errors(answers: Iterable[RawAnswer], only: tuple[int, ...]) -> tuple[Shape, ...]:
    """The shapes of those that are errors (with a status in `only`, where given) and not the edge's, each once."""
    errors = [one for one in answers if one.status is not None and one.status >= 400 and not _marked(one)]
    return tuple(dict.fromkeys(shape(one) for one in errors if not only or one.status in only))


def _marked(answer: RawAnswer) -> bool:
    return any(name == EDGE_MARK for name, _ in answer.headers)
