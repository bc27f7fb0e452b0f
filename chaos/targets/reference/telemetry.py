"""What the service says about itself: one JSON line an event on stdout, and the metrics.

Nothing private is ever written. Fields of that name are dropped; their values, as the current request sent them, are scrubbed from
every other field, and so is all that looks like an e-mail address or a credential. Query strings and bodies are not logged at all.
"""

from __future__ import annotations

import re
import sys
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from chaos.targets.reference.connecting import failure_class

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from chaos.targets.reference.hosts import Judgement
    from chaos.targets.reference.pool import Link, Pool

PRIVATE = frozenset({"email", "authorization", "cookie", "set-cookie", "x-api-key", "password", "token", "proxy-authorization"})
_LOOKS_PRIVATE = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|\b(?:Bearer|Basic)\s+\S+|\bpostgres(?:ql)?://\S+", re.IGNORECASE)
REDACTED = "[redacted]"
AUDIT_REMEMBERED = 10_000  # hosts; a flood of random ones must not fill the memory
AUDIT_EVERY = 20  # of a refused host's repetitions one in so many is written

private_values: ContextVar[frozenset[str]] = ContextVar("private_values", default=frozenset())


def remember_private(*values: str) -> None:
    """Scrub these values from everything that the current request logs. One or two letters would scrub half the log, so they stay."""
    private_values.set(private_values.get() | {value for value in values if len(value) > 2})


def _scrub(value: Any) -> Any:  # Any: a log line holds whatever JSON holds
    if isinstance(value, str):
        for private in private_values.get():
            value = value.replace(private, REDACTED)
        return _LOOKS_PRIVATE.sub(REDACTED, value)
    if isinstance(value, dict):
        return {key: _scrub(item) for key, item in value.items() if str(key).lower() not in PRIVATE}
    if isinstance(value, list | tuple):
        return [_scrub(item) for item in value]
    return value


def privacy_filter(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the last one before the line is rendered."""
    scrubbed: dict[str, Any] = _scrub(dict(event))
    return scrubbed


def make_log(stream: TextIO | None = None) -> structlog.typing.FilteringBoundLogger:
    """A logger of JSON lines. It is handed around, not global: an import configures nothing."""
    log: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stdout),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            privacy_filter,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    return log


class Metrics:
    """All metrics, in a registry of their own. Durations are seconds, as Prometheus asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "http_requests_total", "Requests by route, method and status", ["route", "method", "status"], registry=registry
        )
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Request duration",
            ["route"],
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.12, 0.3, 0.6, 1.0, 2.5, 5.0),
        )
        self.unknown_hosts = Counter(
            "unknown_host_rejections_total", "Requests refused for their Host", ["reason"], registry=registry
        )
        self.attempts = Counter("database_connection_attempts_total", "Database connections tried", registry=registry)
        self.failures = Counter(
            "database_connection_failures_total", "Database connections that failed", ["class"], registry=registry
        )
        self.lost = Counter("database_connections_lost_total", "Pooled connections dropped", ["reason"], registry=registry)
        self.retries = Counter("database_retries_total", "Repeated units of work", ["outcome"], registry=registry)
        self.pool = Gauge("database_pool_connections", "Pooled connections", ["state"], registry=registry)
        self.pool_size = Gauge("database_pool_size", "Connections the pool may hold", registry=registry)
        self.pool_waiting = Gauge("database_pool_waiting", "Requests waiting for a connection", registry=registry)
        self.certificate_days = Gauge(
            "database_certificate_expiry_days",
            "Days until the first certificate of the database's chain expires",
            registry=registry,
        )
        self.certificate_days.set(float("nan"))  # not known yet: NaN fires no alert, and absent() does not hide it
        self.certificate_checks = Counter(
            "database_certificate_checks_total", "Looks at the database's chain", ["outcome"], registry=registry
        )
        self.seo = Counter("seo_requests_total", "Requests to landing pages", ["status", "crawler"], registry=registry)

    def watch(self, pool: Pool) -> None:
        """Read the pool's state whenever the metrics are read."""
        self.pool_size.set(pool.size)
        for state in ("idle", "busy"):
            self.pool.labels(state).set_function(lambda state=state: pool.counts[state])  # type: ignore[misc]  # a default argument
        self.pool_waiting.set_function(lambda: pool.counts["waiting"])


@dataclass(slots=True)
class Audit:
    """The audit trail of refused hosts: each host's first refusal always, then one in twenty."""

    log: structlog.typing.FilteringBoundLogger
    metrics: Metrics
    _seen: dict[str, int] = field(default_factory=dict)

    def refused(self, host: str, judgement: Judgement, *, enforced: bool, **fields: object) -> None:
        """Count it, and write it down unless it is one of many."""
        self.metrics.unknown_hosts.labels(judgement.reason).inc()
        if len(self._seen) >= AUDIT_REMEMBERED:
            self._seen.clear()
        count = self._seen[host] = self._seen.get(host, 0) + 1
        if count % AUDIT_EVERY == 1:
            action = "refused" if enforced else "served (monitor)"
            self.log.warning("host_refused", audit=True, host=host, reason=judgement.reason, action=action, count=count, **fields)


@dataclass(slots=True)
class PoolTelemetry:
    """The pool's observer: counts, and writes down each change for the worse or the better, but not every failed attempt."""

    log: structlog.typing.FilteringBoundLogger
    metrics: Metrics
    tls_version: str = ""
    tls_cipher: str = ""
    _last: str = ""

    def attempted(self) -> None:
        """A connection is being made."""
        self.metrics.attempts.inc()

    def connected(self, link: Link) -> None:
        """It was made: from now on its TLS is the database's TLS of the request log."""
        self.tls_version, self.tls_cipher = link.tls_version, link.tls_cipher
        if self._last:
            self.log.info("database_reachable", tls_version=link.tls_version, tls_cipher=link.tls_cipher)
        self._last = ""

    def failed(self, error: Exception) -> None:
        """It could not be made. The first failure of a class is written down, and the first after a success."""
        name = failure_class(error)
        self.metrics.failures.labels(name).inc()
        if name != self._last:
            self.log.warning("database_unreachable", error_code=f"database_{name}")
        self._last = name

    def lost(self, reason: str) -> None:
        """A pooled connection was dropped."""
        self.metrics.lost.labels(reason).inc()
