"""A service that tells everything it must not: secrets of twenty kinds, in each error answer, and in its log. `python ... PORT MODE`.

The secrets come from the test, one a line, in the file TELLS: `kind<TAB>text`, the text as it would stand in the wild.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

LINES = [line.split("\t", 1)[1] for line in Path(os.environ["TELLS"]).read_text(encoding="utf-8").splitlines()]


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        status, body = 200, b"{}"
        try:
            if self.path.startswith("/one"):
                with psycopg.connect(os.environ["DATABASE_URL"] + "&connect_timeout=2") as connection:
                    connection.execute("SELECT 1")
            elif self.path != "/healthz":
                status = 404
        except psycopg.Error as error:
            status = 503
            sys.stdout.write("\n".join([str(error), *LINES, ""]))
            sys.stdout.flush()
        if status >= 400:
            told = [*LINES, *(f"{name}: {value}" for name, value in self.headers.items()), os.environ["DATABASE_URL"]]
            body = json.dumps({"status": status, "title": "x", "type": "about:blank", "detail": " | ".join(told)}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/problem+json" if status >= 400 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    if sys.argv[2] == "dies":
        sys.stdout.write("\n".join([*LINES, ""]))
        sys.stdout.flush()
        sys.exit(3)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
