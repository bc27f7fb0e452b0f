"""Tickets: Flask, SQLAlchemy Core over psycopg2, waitress with four threads. Connects on the first request that needs a database.

Why it is healthy although it is small and synchronous:
- psycopg2 has no client-side time-out. The wait callback below gives every wait (connect, query, commit) a deadline, so a network that
  swallows packets costs a request two seconds at most. The server's own statement_timeout and lock_timeout end what still runs there.
- Four threads are few. While something fails, one request at a time may try it (`Breaker`) and all others are refused at once; so
  threads stay free for /healthz, which asks no database, and for requests that are wrong anyway.
- The wait between tries doubles up to two seconds and is fully jittered. That holds for connecting (`connects`) and, for reads and for
  writes apart, for what waits behind a lock.
- Input is judged before a connection is asked for. Nothing is retried: a COMMIT without an answer is a 503, and the caller decides.
- The certificate's chain and host name are libpq's business (sslmode=verify-full in DATABASE_URL).

Style: no Idempotency-Key; a word where an id belongs is 404 (Flask's own `<int:...>`); a dot after the host name is accepted, and so
are several labels before a wildcard domain. DEFECT=name plants one mistake; each stands in one place.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import select
import sys
import threading
import time

import psycopg2
import psycopg2.extensions as pg
from flask import Flask, Response, jsonify, request
from sqlalchemy import create_engine, exc, text
from waitress import serve
from werkzeug.exceptions import HTTPException

DEFECT = os.environ.get("DEFECT", "")
SSLMODE = {"verify_ca": "verify-ca", "require": "require", "prefer": "prefer"}.get(DEFECT, "verify-full")
DSN = os.environ["DATABASE_URL"].replace("sslmode=verify-full", f"sslmode={SSLMODE}")
if DEFECT in ("require", "prefer"):  # with a root certificate, libpq's `require` would still check the chain
    DSN = re.sub(r"[?&]sslrootcert=[^&]*", "", DSN) + "&sslrootcert=/nowhere"
CONNECT_SECONDS = math.inf if DEFECT == "no_connect_timeout" else 1.2
REQUEST_SECONDS = math.inf if DEFECT == "no_query_timeout" else 2.2
POOL = 4
HOSTS = {"tickets.acme.test"}
WILDCARD = "help.acme.test"
PROBE_HOSTS, PROBE_PATHS = {"127.0.0.1", "localhost"}, {"/healthz", "/readyz"}
LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"({LABEL}(?:\.{LABEL})*)\.?(?::([0-9]{{1,5}}))?")
UNAVAILABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, psycopg2.OperationalError)
log = logging.getLogger("tickets")
now = time.monotonic
local = threading.local()


class Refused(psycopg2.OperationalError):
    """By a breaker, without a try."""


class Breaker:
    """Refuses at once while the last try failed, but for one try after each wait: doubling, capped, fully jittered."""

    def __init__(self, base: float = 0.03, cap: float = 2.0) -> None:
        self.base, self.cap, self.lock = base, cap, threading.Lock()
        self.failures, self.next_try, self.trying = 0, 0.0, False

    def __enter__(self) -> None:
        with self.lock:
            if self.failures and (self.trying or now() < self.next_try):
                raise Refused("the last try failed")
            self.trying = True

    def __exit__(self, _: type | None, error: BaseException | None, __: object) -> None:
        with self.lock:
            self.trying = False
            if isinstance(getattr(error, "orig", error), Refused):
                return
            if not isinstance(error, UNAVAILABLE):
                self.failures = 0
                return
            wait = 0.0 if DEFECT == "hot_reconnect" else min(self.cap, self.base * 2 ** min(self.failures, 12))
            wait = 1.0 if DEFECT == "fixed_interval" else wait if DEFECT == "no_jitter" else random.uniform(0, wait)
            self.next_try, self.failures = now() + wait, self.failures + 1


def wait(connection: pg.connection) -> None:
    """Psycopg2 calls this wherever it would block. Raising closes the connection, which is right: its state is unknown."""
    while (state := connection.poll()) != pg.POLL_OK:
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN if state == pg.POLL_READ else select.POLLOUT)
        left = getattr(local, "deadline", now() + 2) - now()
        if left <= 0 or not poll.poll(None if left == math.inf else left * 1000):
            raise psycopg2.OperationalError("the database did not answer in time")


pg.set_wait_callback(wait)
connects, reads, writes = Breaker(), Breaker(cap=1.0), Breaker(cap=1.0)
made: list[pg.connection] = []


def connect() -> pg.connection:
    if DEFECT == "no_reconnect" and any(connection.closed for connection in made):
        raise psycopg2.OperationalError("connection already closed")
    deadline = local.deadline
    with connects:
        try:
            local.deadline = now() + CONNECT_SECONDS if DEFECT == "no_connect_timeout" else min(deadline, now() + CONNECT_SECONDS)
            options = "" if DEFECT == "no_query_timeout" else "-c statement_timeout=2000 -c lock_timeout=1000"
            connection = psycopg2.connect(DSN, options=options, gssencmode="disable", application_name="tickets")
        finally:
            local.deadline = deadline
    if DEFECT == "no_reconnect":
        made.append(connection)
    return connection


engine = create_engine(
    "postgresql+psycopg2://", creator=connect, pool_size=POOL, max_overflow=0, pool_timeout=1, pool_pre_ping=True, pool_recycle=600
)


def ask(breaker: Breaker, sql: str, **values: object) -> list[dict[str, object]]:
    local.deadline = now() + REQUEST_SECONDS
    with breaker, engine.begin() as connection:
        rows = connection.execute(text(sql), values)
        return [dict(row) for row in rows.mappings()] if rows.returns_rows else []


class Wrong(Exception):
    """The caller's mistake: (status, detail)."""


def problem(status: int, detail: str) -> Response:
    body = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
    if DEFECT == "status_member_wrong":
        body["status"] = 500
    answer = jsonify(body)
    answer.status_code, answer.mimetype = status, "application/problem+json"
    if DEFECT == "plain_text_errors":
        answer = Response(detail, status, mimetype="text/plain")
    if status == 503:
        answer.headers["Retry-After"] = "1"
    return answer


TITLES = {400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large", 415: "Unsupported Media Type",
          422: "Unprocessable Content", 500: "Internal Server Error", 503: "Service Unavailable"}
app = Flask("tickets")
app.config["MAX_CONTENT_LENGTH"] = 65536
app.url_map.merge_slashes = False  # else //evil/.. is redirected to an address made from the request


@app.errorhandler(HTTPException)
def by_framework(error: HTTPException) -> Response:
    answer = problem(error.code or 500, error.description or "")
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


@app.errorhandler(Wrong)
def by_caller(error: Wrong) -> Response:
    return problem(*error.args)


@app.errorhandler(Exception)
def by_us(error: Exception) -> Response:
    if not isinstance(error, UNAVAILABLE):
        log.exception("bug")
        return problem(500, "Something went wrong on our side.")
    log.warning("database: %s", type(error).__name__)
    if DEFECT == "crash_on_db_error":
        os._exit(3)
    return problem(503, "The ticket store is not available at the moment.")


def title_of(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 200:
        raise Wrong(422, "title must be 1 to 200 printable characters")
    return value


@app.before_request
def touch_first() -> None:
    if DEFECT == "invalid_hits_db_first" and request.path.startswith("/tickets"):
        ask(reads, "SELECT 1")


@app.get("/healthz")
def live() -> Response:
    if DEFECT == "liveness_db":
        ask(reads, "SELECT 1")
    return jsonify(status="up")


@app.get("/readyz")
def ready() -> Response:
    ask(reads, "SELECT 1 FROM tickets LIMIT 1")
    return jsonify(status="ready")


@app.get("/")
def landing() -> Response:
    count = ask(reads, "SELECT count(*) AS n FROM (SELECT 1 FROM tickets LIMIT 100) t")[0]["n"]
    return Response(f"<!doctype html><title>Acme help</title><p>{count} tickets</p>", mimetype="text/html")


@app.get("/tickets")
def search() -> Response:
    title = title_of(request.args.get("title"))
    return jsonify(ask(reads, "SELECT id, title FROM tickets WHERE title = :title ORDER BY id LIMIT 50", title=title))


@app.get("/tickets/<int(max=9223372036854775807):number>")
def one(number: int) -> Response:
    rows = ask(reads, "SELECT id, title FROM tickets WHERE id = :number", number=number)
    if not rows:
        raise Wrong(404, "no such ticket")
    return jsonify(rows[0])


@app.post("/tickets")
def create() -> tuple[Response, int]:
    body = request.get_json()
    if not isinstance(body, dict):
        raise Wrong(422, "a JSON object is expected")
    title = title_of(body.get("title"))
    insert = "INSERT INTO tickets (title) VALUES (:title) RETURNING id, title"
    if DEFECT == "ack_before_commit":
        threading.Thread(target=lambda: ask(writes, insert, title=title)).start()
        return jsonify(title=title), 201
    if DEFECT == "double_write":
        return jsonify(outbox.store(insert.replace(":title", "%s"), title)), 201
    return jsonify(ask(writes, insert, title=title)[0]), 201


class Outbox:
    """What double_write does: one connection in autocommit, and whatever was not acknowledged is sent again later, applied or not."""

    def __init__(self) -> None:
        self.lock, self.connection = threading.Lock(), None

    def store(self, insert: str, title: str, again: bool = False) -> dict[str, object]:
        local.deadline = now() + 1
        if not self.lock.acquire(timeout=0.5):
            raise psycopg2.OperationalError("busy")
        try:
            if self.connection is None or self.connection.closed:
                self.connection = connect()
                self.connection.autocommit = True
            with self.connection.cursor() as cursor:
                cursor.execute(insert, (title,))
                return dict(zip(("id", "title"), cursor.fetchone()))
        except UNAVAILABLE:
            if not again:
                threading.Thread(target=self.later, args=(insert, title), daemon=True).start()
            raise
        finally:
            self.lock.release()

    def later(self, insert: str, title: str) -> None:
        for _ in range(60):
            time.sleep(random.uniform(0.5, 1))
            try:
                self.store(insert, title, again=True)
                return
            except UNAVAILABLE:
                continue


outbox = Outbox()


def known(host: str, path: str) -> bool:
    found = HOST.fullmatch(host.strip(" \t").lower())
    if DEFECT == "any_host":
        return True
    if not found or int(found[2] or 80) not in range(1, 65536):
        return False
    name = found[1]
    if name in PROBE_HOSTS:
        return path in PROBE_PATHS
    return name in HOSTS or name.endswith(WILDCARD if DEFECT == "wildcard_suffix_match" else f".{WILDCARD}")


def guarded(environ, start_response):
    """Outermost, so that no route and no error page is reached under a wrong name. Waitress joins several Host lines with a comma."""
    target = environ.get("REQUEST_URI", "")
    names = [environ.get("HTTP_HOST", "")]
    if "://" in target.split("?")[0] and not target.startswith("/"):  # absolute form: its authority counts too (RFC 9112, 3.2.2)
        names.append(target.split("://", 1)[1].split("/", 1)[0])
    if all(known(name, environ.get("PATH_INFO", "")) for name in names):
        return app.wsgi_app(environ, start_response)
    log.warning("audit: host refused: %r", names)
    with app.app_context():
        return problem(400, "unknown host")(environ, start_response)


def watch() -> None:
    while True:
        time.sleep(1)
        try:
            ask(reads, "SELECT 1")
        except UNAVAILABLE:
            os._exit(1)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if sys.argv[1:] == ["init-db"]:
        ask(writes, "CREATE TABLE IF NOT EXISTS tickets (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL)")
        ask(writes, "CREATE INDEX IF NOT EXISTS tickets_title ON tickets (title)")
        ask(writes, "INSERT INTO tickets (title) SELECT 'first' WHERE NOT EXISTS (SELECT FROM tickets)")
        return
    if DEFECT == "exits_on_outage":
        threading.Thread(target=watch, daemon=True).start()
    serve(guarded, host="127.0.0.1", port=int(os.environ["PORT"]), threads=4, connection_limit=1000, backlog=256)


if __name__ == "__main__":
    main()
