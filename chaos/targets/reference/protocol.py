"""HTTP/1.1 on the wire: uvicorn over llhttp (httptools), made strict, and answering what is no HTTP as problem+json.

llhttp and not h11, because it refuses what h11 mends before the application can see it (a header line that begins with a
space, bare line feeds) and passes on what h11 hides (every Host line as it came). What uvicorn leaves out is added here:

- the request target as sent (`scope["extensions"]["http.target"]["raw"]`), since uvicorn keeps only its path;
- trailer fields, which uvicorn appends to the headers of the request that is already being handled, are dropped
  (RFC 9110, 6.5.1);
- a bound for the target and the headers together;
- an Upgrade is not taken up (RFC 9110, 7.8), and its request judged like any other.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from chaos.targets.reference.hosts import Judgement, Surface
from chaos.targets.reference.problems import Refused, render

if TYPE_CHECKING:
    from chaos.targets.reference.envelope import Reporter

MAX_HEAD = 32_768  # bytes of target and headers


class HeadTooLarge(Exception):  # noqa: N818  (it never leaves this file)
    """The target or the headers go on and on."""


class StrictProtocol(HttpToolsProtocol):
    """One connection. `reporter` and `release` are set by `strict_protocol`."""

    reporter: ClassVar[Reporter]
    release: ClassVar[str]
    head = 0
    complete = False

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.head = 0
        self.complete = False

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer when the head is already complete."""
        if not self.complete:
            self._count(len(name) + len(value))
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: uvicorn hands the request to the application."""
        self.complete = True
        self.scope["extensions"] = {"http.target": {"raw": self.url}}
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self.head += size
        if self.head > MAX_HEAD:
            raise HeadTooLarge

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's text; ours says more)
        """What could not be parsed. The connection ends here: nobody knows where the next request would begin."""
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            # An earlier answer is under way: ours would be taken for it. The connection ends after that one.
            self.transport.pause_reading()
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        problem = Refused(400, "bad_request", "This is not a valid HTTP/1.1 request.")
        if self.head > MAX_HEAD:
            problem = Refused(431, "header_too_large", f"Request line and headers have at most {MAX_HEAD} bytes together.")
        identifier = uuid.uuid4().hex
        status, headers, body = render(problem, identifier)
        headers += [(b"x-request-id", identifier.encode()), (b"x-release", self.release.encode("latin-1"))]
        lines = [name + b": " + value + b"\r\n" for name, value in [*self.server_state.default_headers, *headers]]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"connection: close\r\n\r\n", body]))
        self.transport.close()
        self._report(identifier, problem)

    def _report(self, identifier: str, problem: Refused) -> None:
        scope: dict[str, Any] = {  # Any: an ASGI scope
            "type": "http",
            "method": "INVALID",
            "headers": self.headers or [],
            "client": self.client,
            "reference.request_id": identifier,
            "reference.error_code": problem.code,
        }
        if any(name == b"host" for name, _ in scope["headers"]):
            self.reporter.refused(scope, Judgement(surface=Surface.API, reason="bad_request"), enforced=True)
        self.reporter.request(scope, problem.status, 0.0)

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: the request is answered as if it had not asked."""


def strict_protocol(reporter: Reporter, *, release: str) -> type[StrictProtocol]:
    """A protocol class for uvicorn's `http` setting. What it answers itself is reported like every other answer."""
    return type("ReportingProtocol", (StrictProtocol,), {"reporter": reporter, "release": release})
