"""The status page of a soak: / for people, /status.json for programs, /metrics for Prometheus. It shows, and takes nothing.

Readable with no script. /live is the same and reloads itself, which nobody is made to bear who reads slowly (WCAG 2.2.1). Served
from a thread of its own, by default only to this machine.
"""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import asdict
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Self

from chaos.errors import UsageError
from chaos.model import Verdict
from chaos.soak.view import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from jinja2 import Template
    from prometheus_client.core import Metric

    from chaos.soak.view import View

RELOAD = 10  # s
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Page:
    """The server, or nothing where no address was given. Within `with`."""

    def __init__(self, server: ThreadingHTTPServer | None) -> None:
        self._server = server
        self._view: View | None = None

    @classmethod
    def at(cls, address: str | None) -> Page:
        """Listen there now, so that a taken port is told before anything is started. UsageError."""
        if address is None:
            return cls(None)
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdecimal() or not 0 <= int(port) <= 65_535:
            raise UsageError(f"{address!r} is no HOST:PORT", remedy="name it as in 127.0.0.1:8080", where="--status")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            server = type("_Server", (_Server,), {"address_family": family})(
                (host.strip("[]") or "127.0.0.1", int(port)), _Handler
            )
        except OSError as error:
            raise UsageError(
                f"the status page cannot be served at {address}: {error.strerror}",
                remedy="name another port, or end what uses it",
                where="--status",
            ) from error
        page = cls(server)
        server.page = page
        threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
        return page

    @property
    def url(self) -> str:
        """Where it is; '' when it is off."""
        if self._server is None:
            return ""
        host, port = str(self._server.server_address[0]), self._server.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def shows(self, view: View) -> None:
        """From now on this soak."""
        self._view = view

    @property
    def snapshot(self) -> Snapshot:
        """As it stands; an empty one before the start."""
        return self._view.snapshot if self._view is not None else Snapshot(now="the environment is brought up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    page: Page


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5.0
    server_version = "chaos-gate"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        snapshot = self.server.page.snapshot
        if path in {"/", "/live"}:
            self._answer(200, "text/html; charset=utf-8", html(snapshot, live=path == "/live"))
        elif path == "/status.json":
            self._answer(200, "application/json", as_json(snapshot))
        elif path == "/metrics":
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics(snapshot))
        else:
            self._answer(404, "text/plain; charset=utf-8", "there are /, /live, /status.json and /metrics\n")

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, media: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": media, "Content-Length": str(len(body)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name)
        """Nobody reads it."""


def as_json(now: Snapshot) -> str:
    """All that the page shows."""
    return json.dumps(asdict(now) | {"hours": now.hours}, indent=1, allow_nan=False) + "\n"


def metrics(now: Snapshot) -> str:
    """Prometheus text format, names chaos_gate_*."""
    from prometheus_client.core import CollectorRegistry  # noqa: PLC0415
    from prometheus_client.exposition import generate_latest  # noqa: PLC0415

    class One:
        def collect(self) -> Iterator[Metric]:
            yield from _families(now)

    registry = CollectorRegistry()
    registry.register(One())
    return generate_latest(registry).decode()


def _families(now: Snapshot) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

    verdict = GaugeMetricFamily("chaos_gate_verdict", "The verdict so far: 1 for the one that holds", labels=["verdict"])
    for one in Verdict:
        verdict.add_metric([one.value], float(one.value == now.verdict))
    yield verdict
    hours = GaugeMetricFamily("chaos_gate_hours", "Hours that are over, by colour", labels=["colour"])
    for colour, count in now.hours.items():
        hours.add_metric([colour], count)
    yield hours
    for name, text, value in (
        ("streak_hours", "Green hours since the last red one", float(now.streak)),
        ("longest_streak_hours", "The longest such stretch", float(now.longest)),
        ("elapsed_hours", "Hours since the start, on the clock of the run", now.elapsed),
        ("planned_hours", "Hours that were planned", now.planned),
        ("error_budget_burn_ratio", "Share of a 30 days' error budget that is spent", now.burn),
        ("fault_in_force", "Whether something is broken on purpose now", float(now.now.startswith("breaking"))),
    ):
        yield GaugeMetricFamily(f"chaos_gate_{name}", text, value=value)
    for name, text, steady, faulted in (
        ("requests", "Requests that were due", now.requests, now.asked_in_faults),
        ("requests_failed", "Of these, answered badly or not at all", now.failed, now.failed_in_faults),
    ):
        family = CounterMetricFamily(f"chaos_gate_{name}", text, labels=["stratum"])
        family.add_metric(["steady"], steady)
        family.add_metric(["fault"], faulted)
        yield family
    latency = GaugeMetricFamily("chaos_gate_read_latency_seconds", "Of steady reads, from the plan", labels=["quantile"])
    for share, quantile in (("0.95", now.p95), ("0.99", now.p99)):
        if quantile is not None:
            latency.add_metric([share], quantile)
    yield latency
    yield CounterMetricFamily("chaos_gate_faults_injected", "Faults that were injected", value=now.injected)
    yield CounterMetricFamily("chaos_gate_faults_healed", "Faults that were healed", value=now.healed)
    gates = GaugeMetricFamily("chaos_gate_gate", "A gate so far: 1 for the outcome that holds", labels=["gate", "outcome"])
    for name, outcome, *_ in now.gates:
        gates.add_metric([name, outcome.lower().replace(" ", "_")], 1.0)
    yield gates


def html(now: Snapshot, *, live: bool = False) -> str:
    """The page, whole: no script, no request to anywhere. `live`: it reloads itself."""
    return _template().render(now=now, live=live, reload=RELOAD)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

    from chaos.evidence import words  # noqa: PLC0415

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"duration": words.duration, "percent": words.percent}
    return environment.from_string(files("chaos.soak").joinpath("status.html.j2").read_text(encoding="utf-8"))
