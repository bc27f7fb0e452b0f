"""psycopg 3: the URL is libpq's."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
from loop import serve


def once(url: str) -> None:
    """One connection, one query."""
    with psycopg.connect(url) as session:
        session.execute("SELECT 1")


def _cancel(url: str, how: str) -> None:
    with psycopg.connect(url, autocommit=True) as session:

        def sleep() -> None:
            with suppress(psycopg.Error):
                session.execute("SELECT pg_sleep(2)")

        asleep = threading.Thread(target=sleep)
        asleep.start()
        time.sleep(0.2)
        getattr(session, how)()
        asleep.join()


serve(
    f"{psycopg.__version__}, libpq {psycopg.pq.version() // 10000}.{psycopg.pq.version() % 10000}",
    once,
    {"cancel": lambda url: _cancel(url, "cancel"), "cancel_safe": lambda url: _cancel(url, "cancel_safe")},
)
