"""Around every answer: request id, release, metrics, the line in the log; and the one place where an exception becomes an answer."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from chaos.targets.reference.problems import Problem, Refused, Unavailable
from chaos.targets.reference.telemetry import remember_private

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from chaos.targets.reference.hosts import Judgement
    from chaos.targets.reference.problems import Rendered
    from chaos.targets.reference.telemetry import Audit, Metrics, PoolTelemetry

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_CRAWLERS = re.compile(r"googlebot|bingbot|duckduckbot|yandexbot|applebot", re.IGNORECASE)
_PRIVATE_HEADERS = frozenset({b"authorization", b"cookie", b"x-api-key", b"proxy-authorization"})
_PRIVATE_QUERY = re.compile(rb"(?:^|&)(?:email|token|password)=([^&]+)")
CLIENT_GONE = 499  # nobody reads it; the customary number in logs


def header(scope: Scope, name: bytes) -> str:
    """The last value of a header, '' when it was not sent."""
    return next((value.decode("latin-1") for key, value in reversed(scope["headers"]) if key == name), "")


def request_id(scope: Scope) -> str:
    """The request's id: the caller's own when it is harmless, else a new one; the same for the whole request."""
    if "reference.request_id" not in scope:
        given = header(scope, b"x-request-id")
        scope["reference.request_id"] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    identifier: str = scope["reference.request_id"]
    return identifier


def answer_for(error: Exception) -> Problem:
    """What an exception is to the caller. Everything that nobody foresaw is a 500 that says nothing."""
    match error:
        case Problem():
            return error
        case HTTPException(status_code=404):
            return Refused(404, "not_found", "There is nothing here.")
        case HTTPException(status_code=405):
            return Refused(405, "method_not_allowed", "This cannot be done here.", headers=error.headers)
        case HTTPException():
            return Refused(error.status_code, "refused", "The request was refused.", headers=error.headers)
    return Problem(500, "internal_error", "Something went wrong on our side.")


@dataclass(frozen=True, slots=True)
class ErrorBoundary:
    """ASGI: turns every exception into problem+json. `answer` decides which; `log` is told of what nobody foresaw."""

    app: ASGIApp
    answer: Callable[[Exception], Problem]
    render: Callable[[Problem, str], Rendered]
    log: structlog.typing.FilteringBoundLogger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or answer for the failure."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except ClientDisconnect:
            scope["reference.error_code"] = "client_gone"
            return
        except asyncio.CancelledError:
            # The process ends and this request was not done in time. uvicorn would answer a 500 in plain text.
            problem: Problem = Unavailable("shutting_down", "The service is being stopped.")
        except Exception as error:  # noqa: BLE001  (this is the boundary)
            problem = self.answer(error)
            if problem.status == 500:
                self.log.error(  # noqa: TRY400  (a traceback may hold values)
                    "unforeseen", request_id=request_id(scope), error_code=problem.code, exception=where(error)
                )
        else:
            return
        scope["reference.error_code"] = problem.code
        if not started:
            status, headers, body = self.render(problem, request_id(scope))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def where(error: BaseException) -> str:
    """The class of an exception and the line it came from. Never its text, which may hold values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Writes the request's line and counts it."""

    log: structlog.typing.FilteringBoundLogger
    metrics: Metrics
    pool: PoolTelemetry
    audit: Audit
    routes: dict[object, str]
    trusted_proxies: tuple[str, ...] = ()

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        """One line and one count a request. `tls_*` are the edge's when a trusted edge says so, else the database session's."""
        route = self.routes.get(scope.get("endpoint"), "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        self.metrics.requests.labels(route, method, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        judgement: Judgement | None = scope.get("reference.host")
        if judgement is not None and judgement.surface == "landing" and not judgement.reason:
            crawler = "yes" if _CRAWLERS.search(header(scope, b"user-agent")) else "no"
            self.metrics.seo.labels(str(status), crawler).inc()
        self.log.info(
            "request", **self.fields(scope), method=method, route=route, status=status, duration_ms=round(seconds * 1000, 2)
        )

    def refused(self, scope: Scope, judgement: Judgement, enforced: bool) -> None:
        """The audit line of a refused host."""
        scope.setdefault("reference.error_code", "host_not_allowed" if enforced else "")
        self.audit.refused(enforced=enforced, judgement=judgement, **self.fields(scope))

    def fields(self, scope: Scope) -> dict[str, Any]:  # Any: what a log line holds
        """Who asked, for what, over what."""
        peer = scope["client"][0] if scope.get("client") else ""
        trusted = peer in self.trusted_proxies
        forwarded = header(scope, b"x-forwarded-for").rpartition(",")[2].strip() if trusted else ""
        edge_tls = header(scope, b"x-tls-version") if trusted else ""
        return {
            "host": host_as_sent(scope),
            "request_id": request_id(scope),
            "upstream_ip": forwarded or peer,
            "tls_version": edge_tls or self.pool.tls_version,
            "tls_cipher": header(scope, b"x-tls-cipher") if edge_tls else self.pool.tls_cipher,
            "tls_of": "edge" if edge_tls else "database",
            "error_code": scope.get("reference.error_code", ""),
        }


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


def host_as_sent(scope: Scope) -> str:
    """All Host values, bounded; what is not printable ASCII is escaped."""
    values = [value for name, value in scope["headers"] if name == b"host"]
    return ", ".join(value.decode("ascii", "backslashreplace") for value in values)[:128]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """ASGI: X-Request-Id and X-Release on every answer, and the reporter told of it."""

    app: ASGIApp
    release: str
    reporter: Reporter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and report it, also when the caller has gone."""
        started, status = time.perf_counter(), CLIENT_GONE
        more = [(b"x-request-id", request_id(scope).encode()), (b"x-release", self.release.encode("latin-1"))]
        remember_private(*_private(scope))

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        try:
            await self.app(scope, receive, stamped)
        finally:
            self.reporter.request(scope, status, time.perf_counter() - started)


def _private(scope: Scope) -> list[str]:
    found: list[str] = []
    for name, value in scope["headers"]:
        if name in _PRIVATE_HEADERS:
            text = value.decode("latin-1")
            found += [text, text.rpartition(" ")[2]]
    query: bytes = scope.get("query_string", b"")
    return found + [value.decode("latin-1") for value in _PRIVATE_QUERY.findall(query)]
