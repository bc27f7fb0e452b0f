"""Each panel is seen to move: the reference service under faults, scraped by a real Prometheus that also runs the exported rules.

By default what needs two phases of a few seconds; all phases with CHAOS_DETECTION=all.
"""

import contextlib
import itertools
import json
import math
import os
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest

from chaos.certs import Entry
from chaos.checks import panels
from chaos.environments.local import prometheus as tools
from chaos.export import prometheus
from chaos.export.dashboards import WINDOW, boards
from chaos.export.policy import Policy
from chaos.export.signals import signals
from chaos.gates import load
from chaos.processes import free_port
from chaos.soak.status import metrics
from chaos.soak.view import Snapshot
from tests.unit.reference_service import lab
from tests.unit.test_reference_outage import terminate

EVERY = os.environ.get("CHAOS_DETECTION") == "all"
POLICY = Policy(target="reference", gates=load(), metrics=signals({}, job="reference"), job="reference")
CRAWLER = {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}
SEO, UNKNOWN = "berlin.landing.example.test", "attacker.example"
LOOKED_AT = "4s"  # in place of Grafana's $__rate_interval
# Panel -> the phase in which it has to show more than in the quiet one; of the certificate less.
MOVED_BY = {
    "4xx by route": "asked",
    "Unknown-host rejections": "asked",
    "Firing alerts": "asked",
    "5xx by route": "tls",
    "Share of 5xx": "tls",
    "TLS handshake errors of the database": "tls",
    "Share of failed TLS handshakes": "tls",
    "Database retries": "cut",
    "SEO crawler pass-through": "tls",
    "P95": "locked",
    "P99": "locked",
    "Pool saturation": "locked",
    "Days until the database's certificate ends": "rotated",
}
PHASES = ("asked", "tls", "locked", "rotated", "cut") if EVERY else ("asked", "tls")
LENGTH = {"quiet": 4.0, "tls": 1.0, "cut": 1.0, "rotated": 7.0, "locked": 5.0}  # s; else 4


APART = 1.5  # s: three scrapes


def until(holds, seconds=30.0, every=0.05):
    """Until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{holds.__name__} does not come true"
        time.sleep(every)


class Server:
    """A Prometheus that scrapes and evaluates every half second."""

    def __init__(self, place, targets):
        self.url = f"http://127.0.0.1:{free_port()}"
        (place / "rules.yml").write_text(prometheus.rules(POLICY), encoding="utf-8")
        jobs = [{"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in targets.items()]
        every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        config = {"global": every, "rule_files": ["rules.yml"], "scrape_configs": jobs}
        (place / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        listen = f"--web.listen-address={self.url[7:]}"
        argv = [
            tools.ensure().prometheus,
            f"--config.file={place / 'prometheus.yml'}",
            f"--storage.tsdb.path={place / 'db'}",
            listen,
        ]
        with (place / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def ask(self, path, **query):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def until(self, query, seconds=30.0):
        """Until it has an answer."""

        def answered():
            with contextlib.suppress(OSError):
                return bool(self.ask("query", query=query)["result"])
            return False

        until(answered, seconds, every=0.2)

    def most(self, query, span, pick=max):
        """The largest value of any series within (start, end), seconds since the epoch; 0 without one, as a panel shows it."""
        found = self.ask("query_range", query=query.replace(WINDOW, LOOKED_AT), start=span[0], end=span[1], step="0.5")["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        return pick([one for one in values if not math.isnan(one)] or [0.0])

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class Traffic:
    """Readers and crawlers that go on meanwhile, each waiting for its answer."""

    def __init__(self, service):
        self._service, self._over, self.failed = service, threading.Event(), {}
        self._threads = [
            threading.Thread(target=self._go, args=one) for one in (("/api/items", {}), ("/", {"host": SEO, "headers": CRAWLER}))
        ]
        for one in self._threads:
            one.start()

    def _go(self, path, how):
        while not self._over.is_set():
            if self._service.ask(path, **how).status >= 500:
                self.failed.setdefault(path, []).append(time.monotonic())
            self._service.ask("/readyz")
            time.sleep(0.05)

    def has_failed(self):
        """Whether both were refused twice, with several scrapes in between: a counter's first value is no rate yet."""
        return len(self.failed) == 2 and all(times[-1] - times[0] > APART for times in self.failed.values())

    def stop(self):
        self._over.set()
        for one in self._threads:
            one.join(20)


@contextlib.contextmanager
def asked(room, service, traffic):
    for number in range(40):
        service.ask("/api/items/not-a-number")
        service.ask("/", host=f"{number}.{UNKNOWN}")
        time.sleep(0.05)
    yield


@contextlib.contextmanager
def tls(room, service, traffic):
    """PostgreSQL shows a certificate that nobody trusts, to everybody who connects anew."""
    postgres, authority = room.environment.postgres, room.environment.authority
    bad, good = authority.issue("self-signed"), authority.issue("valid")
    postgres.use_certificate(bad.chain_file, bad.key_file)
    terminate(room)
    try:
        until(traffic.has_failed)
        yield
    finally:
        postgres.use_certificate(good.chain_file, good.key_file)


@contextlib.contextmanager
def cut(room, service, traffic):
    """Sessions are ended under their readers, again and again: what was under way is tried once more."""
    seen = [(time.monotonic(), service.metric("database_retries_total"))]

    def retried():
        terminate(room)
        if (value := service.metric("database_retries_total")) > seen[-1][1]:
            seen.append((time.monotonic(), value))
        return len(seen) > 2 and seen[-1][0] - seen[1][0] > APART

    until(retried, every=0.2)
    yield


@contextlib.contextmanager
def locked(room, service, traffic):
    """Every reader waits for a table, until its lock time-out: the pool is full, and the slow ones are slow."""
    service.wait()
    with psycopg.connect(room.environment.postgres.admin_conninfo, dbname="app") as session, ThreadPoolExecutor(12) as people:
        session.execute("LOCK TABLE items, pages IN ACCESS EXCLUSIVE MODE")
        end = time.monotonic() + LENGTH["locked"] - 1

        def wait():
            while time.monotonic() < end:
                service.ask("/api/items")

        for _ in range(12):
            people.submit(wait)
        yield
        session.rollback()


@contextlib.contextmanager
def rotated(room, service, traffic):
    """A good certificate that ends soon."""
    postgres, authority = room.environment.postgres, room.environment.authority
    soon = authority.issue(Entry(name="soon", row="x", must="connect", why="it has not ended", days=(-2.0, 20.0)))
    good = authority.issue("valid")
    postgres.use_certificate(soon.chain_file, soon.key_file)
    try:
        yield
    finally:
        postgres.use_certificate(good.chain_file, good.key_file)


def hour(number):
    """How a soak stands, with something more of everything in it each time."""
    return Snapshot(
        elapsed=number,
        planned=72.0,
        streak=number,
        longest=number,
        colours=("green", "red", "grey") * number,
        requests=100 * number,
        failed=number,
        p95=0.01 * number,
        p99=0.02 * number,
        burn=0.01 * number,
        injected=number,
        healed=number,
        gates=tuple((f"gate.{n}", outcome, "", "") for n in range(number) for outcome in ("PASS", "FAIL", "NOT PROVEN")),
    )


@contextlib.contextmanager
def soak_page(port):
    """A soak's /metrics on this port, that goes on by an hour with each time that it is looked at."""

    class Page(BaseHTTPRequestHandler):
        looks = itertools.count(1)

        def do_GET(self):
            body = metrics(hour(next(self.looks))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", port), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join(5)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """(server, phase -> (start, end)), after all phases."""
    place = tmp_path_factory.mktemp("dashboards")
    port = free_port()
    with lab(place) as room, soak_page(port):
        service = room.start(ALLOWED_HOSTS="api.example.test,127.0.0.1")  # Prometheus asks for metrics by the address
        server = Server(place, {"reference": service.port, "soak": port})
        traffic = Traffic(service)
        spans = {}
        try:
            server.until('http_requests_total{job="reference"}')
            for name in ("quiet", *PHASES):
                start = time.time()
                with {"quiet": lambda *_: contextlib.nullcontext()}.get(name, globals().get(name))(room, service, traffic):
                    time.sleep(LENGTH.get(name, 4.0))
                spans[name] = (start, time.time())
            time.sleep(1.0)
            traffic.stop()
            yield server, spans
        finally:
            traffic.stop()
            server.stop()


TARGET = next(board for board in boards(POLICY) if board.title.startswith("Gates"))


def test_no_panel_is_without_a_phase():
    assert {panel.title for panel in TARGET.panels} == set(MOVED_BY)


@pytest.mark.parametrize("panel", [one for one in TARGET.panels if MOVED_BY[one.title] in PHASES], ids=lambda one: one.title)
def test_each_panel_moves(seen, panel):
    server, spans = seen
    for query in panel.queries:
        during = spans[MOVED_BY[panel.title]]
        if panel.falling:
            assert server.most(query.expr, during, min) < server.most(query.expr, spans["quiet"], min)
        elif query.legend.startswith("{{status"):  # how crawlers are answered: another series, not a larger one
            failed = query.expr.replace('crawler="yes"', 'crawler="yes", status=~"5.."')
            assert server.most(failed, during) > server.most(failed, spans["quiet"]) == 0
        else:
            assert server.most(query.expr, during) > server.most(query.expr, spans["quiet"]), query.expr


def test_rules_fire_as_the_faults_do(seen):
    server, _ = seen
    # One outage of four seconds burns too little: its first failures give birth to their counter, and have no rate.
    for wanted in ("UnknownHostsSpike", *(["ErrorBudgetBurnsFast"] if EVERY else [])):
        server.until(f'ALERTS{{alertname="{wanted}",alertstate="firing"}}')
    firing = {one["labels"]["alertname"] for one in server.ask("alerts")["alerts"] if one["state"] == "firing"}
    assert not firing & {"RequestMetricsGone", "LatencyMetricsGone", "PoolMetricsGone", "TargetDown", "SoakStopped"}
    assert not [group for group in server.ask("rules")["groups"] for rule in group["rules"] if rule["health"] == "err"]


def test_what_is_read_of_a_soak_is_what_it_serves():
    served = {one.name for one in panels.read(metrics(hour(1)))}
    board = next(board for board in boards(POLICY) if board.title.startswith("Soak"))
    exprs = [query.expr for panel in board.panels for query in panel.queries]
    exprs += [rule.expr for group in prometheus.groups(POLICY, ["soak"]) for rule in group.rules]
    assert set(re.findall(r"chaos_gate_\w+", " ".join(exprs))) <= served


def test_each_panel_of_a_soak_moves(seen):
    """The text is a soak's own; what it says is made up, hour by hour in half seconds."""
    server, spans = seen
    span = (spans["quiet"][0], spans[PHASES[-1]][1])
    board = next(board for board in boards(POLICY) if board.title.startswith("Soak"))
    for panel in board.panels:
        for query in panel.queries:
            assert server.most(query.expr, span) > server.most(query.expr, span, min), query.expr
