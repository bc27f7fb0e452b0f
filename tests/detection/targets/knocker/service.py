"""A small service whose way to its database is chosen by MODE: how it retries, what it does with connections, what is wrong with that.

`each`: a connection for each request. `pool`: psycopg_pool. `keeper`: connections kept by threads, each with a chain of retries of its own.
What follows after a '-' is the defect: none is healthy.
"""

import json
import os
import random
import select
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from psycopg import Error, connect
from psycopg_pool import ConnectionPool, PoolTimeout

FORM, _, DEFECT = os.environ.get("MODE", "each").partition("-")
URL = os.environ["DATABASE_URL"] + "&connect_timeout=2&options=-c%20statement_timeout%3D1000"
TABLE = "CREATE TABLE IF NOT EXISTS one (number int)"
TRIES = {"insists": 5, "nested": 3}.get(DEFECT, 1)


def retried(work, tries, base=0.03):
    """As often as that, with full jitter: what is wrong is only what it is retried for, or around what."""
    for number in range(tries):
        try:
            return work()
        except Error:
            if number == tries - 1:
                raise
            time.sleep(random.uniform(0.025, base * 2**number + 0.03))
    return None


class Each:
    """A connection for each request."""

    def once(self):
        with connect(URL, autocommit=True) as session:
            session.execute("SELECT count(*) FROM one")

    def query(self):
        if DEFECT == "nested":
            retried(lambda: retried(self.once, TRIES), TRIES)
        else:
            retried(self.once, TRIES)


class Pooled:
    """psycopg_pool, with an acquire time-out of a second."""

    def __init__(self):
        timeout = 60 if DEFECT == "waits" else 1
        check = None if DEFECT == "stale" else ConnectionPool.check_connection
        self.pool = ConnectionPool(URL, min_size=4, max_size=4, timeout=timeout, check=check, kwargs={"autocommit": True}, open=True)

    def query(self):
        session = self.pool.getconn()
        try:
            session.execute("SELECT count(*) FROM one")
        except Error:
            if DEFECT != "leaks":
                self.pool.putconn(session)
            raise
        self.pool.putconn(session)


def full(base, cap):
    return lambda failures: random.uniform(0, min(cap, base * 2 ** (failures - 1)))


def doubling(base, cap):
    return lambda failures: min(cap, base * 2 ** (failures - 1))


def lost_at_cap(base, cap):
    return lambda failures: cap if base * 2 ** (failures - 1) >= cap else random.uniform(0, base * 2 ** (failures - 1))


DELAYS = {
    "": full(0.02, 1.6),
    "hot": lambda _failures: 0.02,
    "fixed": lambda _failures: 1.0,
    "no_jitter": doubling(0.02, 1.6),
    "herd": doubling(0.02, 1.6),
    "lost_at_cap": lost_at_cap(0.02, 1.0),
    "no_cap": full(0.02, 1e9),
    "linear": lambda failures: 0.2 * failures * random.uniform(0.7, 1.0),
}


class Kept(threading.Thread):
    """One connection, made again and again by a chain of its own; a request that finds none is refused at once."""

    def __init__(self):
        super().__init__(daemon=True)
        self.session, self.lock, self.failures = None, threading.Lock(), 0
        self.start()

    def run(self):
        while True:
            try:
                session = self.session = connect(URL, autocommit=True)
            except Error:
                self.failures += 1
                time.sleep(DELAYS[DEFECT](self.failures))
                continue
            self.failures = 0
            while self.session is not None:
                with self.lock:
                    if session.closed or select.select([session.fileno()], [], [], 0)[0]:
                        self.session = None
                time.sleep(0.02)
            with suppress(Error):
                session.close()

    def query(self):
        with self.lock:
            if self.session is None:
                raise PoolTimeout
            try:
                self.session.execute("SELECT count(*) FROM one")
            except Error:
                if self.session.closed:
                    self.session = None
                raise


class Keeper:
    def __init__(self):
        self.kept = [Kept() for _ in range(4 if DEFECT == "herd" else 1)]

    def query(self):
        random.choice(self.kept).query()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        try:
            if self.path == "/one" or DEFECT == "liveness":
                WAY.query()
            self.answer(200 if self.path in ("/one", "/healthz") else 404)
        except (Error, PoolTimeout) as error:
            print(type(error).__name__, str(error)[:200].replace("\n", " "), file=sys.stderr, flush=True)
            self.answer(503)

    def answer(self, status):
        body = json.dumps({"type": "about:blank", "title": "answer", "status": status}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    for _ in range(20):
        with suppress(Error), connect(URL, autocommit=True) as first:
            first.execute("SELECT pg_advisory_lock(1)")
            first.execute(TABLE)
            break
        time.sleep(0.1)
    WAY = {"each": Each, "pool": Pooled, "keeper": Keeper}[FORM]()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
