"""Notices: the standard library's HTTP server over psycopg, a connection for each request. STYLE says how it logs and counts.

Each style is one that healthy services have, and none is the bundled service's:
- ecs      nested objects; ids of its own, told in X-Correlation-ID; address with a port; two lines a request; Micrometer's names
- otel     flat members with dots; the caller's trace id; TLS on the lines of connections only; OpenTelemetry's names
- slog     ids that nobody is told; nothing that is null; audit entries sampled; plain text of the HTTP library in between; Go's names
- buffered ecs, in blocks of 8 KiB as C and Python write to a file
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import psycopg

STYLE = os.environ.get("STYLE", "ecs")
DSN = os.environ["DATABASE_URL"]
HOSTS, LANDING, PROBES = {"notices.example.test", "www.notices.example.test"}, ".pages.example.test", {"127.0.0.1", "localhost"}
POOL = 4
slots, lock = threading.Semaphore(POOL), threading.Lock()
counts: dict[str, float] = {}
state = {"used": 0, "last": None, "audited": 0}
TITLES = {400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 415: "Unsupported Media Type", 422: "Unprocessable Content",
          500: "Internal Server Error", 503: "Service Unavailable"}
out = sys.stdout if STYLE == "buffered" else sys.stderr if STYLE == "slog" else open(1, "w", buffering=1, closefd=False)  # noqa: SIM115


class Wrong(Exception):
    """The caller's mistake: status, code."""


class Away(Exception):
    """The database cannot be used now."""


def count(name: str, value: float = 1) -> None:
    with lock:
        counts[name] = counts.get(name, 0) + value


def say(**line: object) -> None:
    with lock:
        out.write(json.dumps({key: value for key, value in line.items() if value not in (None, "", {})}) + "\n")


failures = {"streak": 0, "next": 0.0}


@contextlib.contextmanager
def session():
    """A connection and its TLS; bounded at every step, and not tried again at once after a failure."""
    if time.monotonic() < failures["next"]:
        raise Away
    if not slots.acquire(timeout=1):
        raise Away
    state["used"] += 1
    try:
        try:
            connection = psycopg.connect(DSN, autocommit=True, connect_timeout=2, options="-c statement_timeout=1200 -c lock_timeout=900")
        except psycopg.Error:
            failures["streak"] += 1
            failures["next"] = time.monotonic() + min(1.5, 0.03 * 2 ** min(failures["streak"], 8)) * (0.5 + secrets.randbelow(512) / 1024)
            count({"ecs": "db_connection_failures_total", "buffered": "db_connection_failures_total",
                   "otel": 'db_client_connection_errors_total{error_type="tls"}', "slog": "pgxpool_connect_errors_total"}[STYLE])
            raise
        failures["streak"] = 0
        with connection:
            tls = connection.execute("SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone()
            if STYLE == "otel":
                say(**{"event.name": "db.connect", "tls.protocol.version": tls[0], "tls.cipher": tls[1]})
            yield connection, tls
    except psycopg.Error as error:
        raise Away from error
    finally:
        state["used"] -= 1
        slots.release()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = sys_version = ""

    def log_message(self, *_: object) -> None:
        """Lines are written where everything about a request is known."""

    def answer(self) -> None:
        started, self.tls, code, route = time.monotonic(), None, "", "unmatched"
        parts = urlsplit(self.path)
        trace = self.headers.get("traceparent", "").split("-")
        self.id = trace[1] if STYLE == "otel" and len(trace) == 4 else secrets.token_hex(10)
        host = (self.headers.get_all("Host") or [""])[-1]
        name = host.partition(":")[0].strip().lower()
        if STYLE in ("ecs", "buffered"):
            say(message="begin", http={"request": {"id": self.id, "host": host}})
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, 65536)) if length else b""
        try:
            if not (name in HOSTS or name.endswith(LANDING) or (name in PROBES and parts.path in ("/livez", "/metrics"))):
                self.audit(host)
                raise Wrong(400, "unknown_host")
            route, status, document = self.route(parts, body)
        except Wrong as wrong:
            status, code = wrong.args
            document = None
        except Away:
            status, code, document = 503, "database_away", None
        seconds = time.monotonic() - started
        self.measure(route, status, seconds, name)
        self.line(host, status, code, route, seconds)
        self.reply(status, document, code)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = answer

    def route(self, parts, body: bytes):
        if parts.path == "/livez":
            return "/livez", 200, {"up": True}
        if parts.path == "/metrics":
            return "/metrics", 200, exposition()
        if parts.path == "/":
            with session() as (connection, self.tls):
                return "/", 200, {"count": connection.execute("SELECT count(*) FROM notices").fetchone()[0]}
        if parts.path != "/notices":
            raise Wrong(404, "nothing_here")
        if self.command == "POST":
            if "json" not in self.headers.get("Content-Type", ""):
                raise Wrong(415, "json_only")
            try:
                text = json.loads(body)["text"]
            except (ValueError, KeyError, TypeError):
                raise Wrong(422, "text_needed") from None
            if not isinstance(text, str) or not text.isprintable():
                raise Wrong(422, "text_needed")
            with session() as (connection, self.tls):
                connection.execute("INSERT INTO notices (text) VALUES (%s)", (text,))
            return "/notices", 201, {"text": text}
        if self.command not in ("GET", "HEAD"):
            raise Wrong(405, "not_here")
        asked = parse_qs(parts.query, keep_blank_values=True).get("text", [""])[0]
        if not asked.isprintable() or not asked:
            raise Wrong(400, "text_wanted")
        with session() as (connection, self.tls):
            rows = connection.execute("SELECT text FROM notices WHERE text = %s LIMIT 20", (asked,)).fetchall()
        return "/notices", 200, [row[0] for row in rows]

    def audit(self, host: str) -> None:
        state["audited"] += 1
        count({"ecs": "host_rejections_total", "buffered": "host_rejections_total", "otel": "http_server_host_rejected_total",
               "slog": "unknown_host_requests_total"}[STYLE])
        if STYLE == "slog" and state["audited"] % 20:
            return
        say(audit="host refused", refused=[host], request=self.id)

    def line(self, host: str, status: int, code: str, route: str, seconds: float) -> None:
        ip, port = self.client_address[:2]
        version, cipher = self.tls or (None, None)
        if STYLE in ("ecs", "buffered"):
            say(message="end", http={"request": {"id": self.id, "host": host, "method": self.command}, "response": {"status_code": status}},
                client={"address": f"{ip}:{port}"}, tls={"version": version, "cipher": cipher}, error={"code": code} if code else None, took=seconds)
        elif STYLE == "otel":
            say(**{"trace_id": self.id, "server.address": host, "network.peer.address": f"::ffff:{ip}", "http.response.status_code": status,
                   "error.type": code or None, "http.route": route})
        else:
            say(time=time.time(), level="INFO", msg="request", rid=self.id, host=host, peer=ip, proto={"TLSv1.3": 772, "TLSv1.2": 771}.get(version),
                suite=cipher, status=status, err=code or None)
            if state["audited"] % 3 == 0:
                with lock:
                    out.write("2026/11/27 12:00:00 http: superfluous response.WriteHeader call\n")

    def measure(self, route: str, status: int, seconds: float, name: str) -> None:
        if STYLE in ("ecs", "buffered"):
            count(f'http_server_requests_seconds_count{{uri="{route}",status="{status}",method="{self.command}"}}')
            count(f'http_server_requests_seconds_bucket{{uri="{route}",status="{status}",method="{self.command}",le="+Inf"}}')
        elif STYLE == "otel":
            count(f'http_server_request_duration_seconds_count{{http_route="{route}",http_response_status_code="{status}"}}')
            count(f'http_server_request_duration_seconds_bucket{{http_route="{route}",http_response_status_code="{status}",le="+Inf"}}')
        else:
            count(f'notices_requests_total{{path="{route}",code="{status // 100}xx"}}')
            count(f'http_request_latency_ms{{quantile="0.95"}}', 0)
            count("http_request_latency_ms_count")
        if name.endswith(LANDING) and status < 300:
            count("crawler_requests_total" if STYLE == "slog" else "seo_pages_served_total")

    def reply(self, status: int, document: object, code: str) -> None:
        kind = "application/json"
        if isinstance(document, str):
            kind, text = "text/plain; version=0.0.4", document
        elif status >= 400:
            problem = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": code}
            kind, text = "application/problem+json", json.dumps(problem | ({"traceId": self.id} if STYLE == "otel" else {}))
        else:
            text = json.dumps(document)
        self.send_response(status)
        if STYLE in ("ecs", "buffered"):
            self.send_header("X-Correlation-ID", self.id)
        if status == 503:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())


def exposition() -> str:
    used = {"ecs": "hikaricp_connections_active", "buffered": "hikaricp_connections_active", "slog": "pgxpool_acquired_conns"}.get(STYLE)
    with lock:
        known = dict(counts)
    gauges = {used: state["used"]} if used else {
        'db_client_connection_count{state="used"}': state["used"], 'db_client_connection_count{state="idle"}': POOL - state["used"]}
    lines = []
    for name in sorted({key.partition("{")[0] for key in gauges}):
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{key} {value}" for key, value in gauges.items() if key.partition("{")[0] == name]
    return "\n".join([*lines, *(f"{key} {value}" for key, value in sorted(known.items()))]) + "\n"


class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 256


def main() -> None:
    if sys.argv[1:] == ["migrate"]:
        with psycopg.connect(DSN, autocommit=True) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS notices (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)")
        return
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
