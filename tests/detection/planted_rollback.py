"""A small service with a table, and everything around its roll-back: migrations of a next release, and a team's tooling. MODE is wrong.

planted_rollback.py serve PORT | setup | migrate WHAT | deploy VERSION | rollback
"""

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

MODE = os.environ.get("MODE", "")
URL = os.environ.get("DATABASE_URL", "") + "&connect_timeout=2"
RELEASE = Path(os.environ.get("RELEASE_FILE", "release"))

SETUP = """
CREATE TABLE IF NOT EXISTS notes (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL, size integer DEFAULT 1);
INSERT INTO notes (title) SELECT 'first' WHERE NOT EXISTS (SELECT FROM notes);
"""
MIGRATIONS = {
    "expand": "ALTER TABLE notes ADD COLUMN IF NOT EXISTS language text DEFAULT 'en'",
    "rename": "ALTER TABLE notes RENAME COLUMN title TO heading",
    "retype": "ALTER TABLE notes ALTER COLUMN size TYPE text",
    "delete": "DELETE FROM notes WHERE title <> 'first'",
}


class Held:
    """One connection for ever: what is wrong with `holds`."""

    def __init__(self):
        self.session = psycopg.connect(URL, autocommit=True)

    def run(self, query, values):
        return self.session.cursor(row_factory=dict_row).execute(query, values)


class Pooled:
    """As it should be: checked before use, with time limits."""

    def __init__(self):
        self.pool = ConnectionPool(
            URL, min_size=1, max_size=4, timeout=0.4, reconnect_timeout=2, check=ConnectionPool.check_connection, open=True
        )

    def run(self, query, values):
        with self.pool.connection() as session:
            cursor = session.cursor(row_factory=dict_row).execute(query, values)
            return list(cursor)


class Handler(BaseHTTPRequestHandler):
    database = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        parts = urlsplit(self.path)
        if parts.path == "/healthz":
            self.answer(200, {})
        elif parts.path == "/notes":
            self.ask("SELECT * FROM notes WHERE title = %s", [parse_qs(parts.query)["title"][0]])
        else:
            self.ask("SELECT id, title, size FROM notes WHERE id = 1", [])

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.ask("INSERT INTO notes (title) VALUES (%s) RETURNING id, title", [told["title"]], 201)

    def ask(self, query, values, status=200):
        try:
            self.answer(status, list(self.database.run(query, values)))
        except (psycopg.Error, PoolTimeout) as error:
            code = 503 if isinstance(error, psycopg.OperationalError) else 500
            self.answer(code, {"title": type(error).__name__, "status": code}, "application/problem+json")

    def answer(self, status, body, media="application/json"):
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("X-Release", RELEASE.read_text(encoding="ascii") if RELEASE.exists() else "1.0")
        self.end_headers()
        self.wfile.write(raw)


def execute(statements):
    with psycopg.connect(URL) as session:
        session.execute(statements)


def serve(port):
    Handler.database = Held() if MODE == "holds" else Pooled()
    ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()


def roll_back():
    """What the team's own command does; in MODE 'later' it is through before the former release is back."""
    if MODE == "nothing":
        return
    if MODE == "later":
        program = f"import time, pathlib; time.sleep(4); pathlib.Path({str(RELEASE)!r}).write_text('1.0')"
        nowhere = subprocess.DEVNULL
        subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stdout=nowhere, stderr=nowhere)
        return
    time.sleep(0.2)
    RELEASE.write_text("1.0", encoding="ascii")


def main(what, argument=""):
    if what == "serve":
        serve(argument)
    elif what == "setup":
        execute(SETUP)
    elif what == "migrate":
        execute(SETUP + MIGRATIONS[argument])
    elif what == "deploy":
        RELEASE.write_text({"baseline": "1.0", "candidate": "2.0"}[argument], encoding="ascii")
    else:
        roll_back()


if __name__ == "__main__":
    main(*sys.argv[1:])
