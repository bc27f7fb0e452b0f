"""The smallest service that the suite can be pointed at: it starts in a quarter of a second. MODE is what it does wrong."""

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from psycopg import Error
from psycopg_pool import ConnectionPool, PoolTimeout

MODE = os.environ.get("MODE", "")


def within(seconds, connection, work):
    """What `work(connection)` returns; a connection on which nobody answers is hung up on, for no driver option sees a black hole."""

    def hang_up():
        with suppress(OSError, Error), socket.socket(fileno=os.dup(connection.fileno())) as link:
            link.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.start()
    try:
        return work(connection)
    finally:
        timer.cancel()


POOL = ConnectionPool(
    os.environ["DATABASE_URL"] + "&connect_timeout=2&tcp_user_timeout=2000",
    min_size=1,
    max_size=4,
    timeout=3,
    reconnect_timeout=2,
    check=lambda connection: within(1.0, connection, ConnectionPool.check_connection),
    open=False,
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if "Transfer-Encoding" in self.headers or "Content-Length" in self.headers:
            if MODE == "length-over-chunks":
                self.rfile.read(int(self.headers["Content-Length"] or 0))
            else:
                self.close_connection = True  # nobody reads it, so no other request may follow it
        try:
            if self.path == "/one":
                with POOL.connection() as connection:
                    within(2.0, connection, lambda link: link.execute("SELECT 1"))
            self.answer(503 if MODE == "never-ready" else 200 if self.path in ("/one", "/healthz") else 404)
        except (Error, PoolTimeout):
            self.answer(503)

    def answer(self, status):
        body = json.dumps({"type": "about:blank", "title": "answer", "status": status}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def die_later(seconds):
    time.sleep(seconds)
    print("out of paper", file=sys.stderr, flush=True)
    os._exit(7)


if __name__ == "__main__":
    port = int(sys.argv[1])
    if MODE == "port-taken":
        blocker = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        port = blocker.server_port
    if MODE.startswith("dies-after-"):
        threading.Thread(target=die_later, args=(float(MODE.rpartition("-")[2]),), daemon=True).start()
    ThreadingHTTPServer.allow_reuse_address = False
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        sys.exit(f"cannot listen: {error}")
    POOL.open()
    print("tiny is up", flush=True)
    server.serve_forever()
