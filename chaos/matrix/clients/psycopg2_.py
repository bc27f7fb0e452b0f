"""psycopg2: the URL is libpq's."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress

import psycopg2
from loop import serve


def once(url: str) -> None:
    """One connection, one query."""
    with closing(psycopg2.connect(url)) as session, session.cursor() as cursor:
        cursor.execute("SELECT 1")


def cancel(url: str) -> None:
    """A query that is cancelled."""
    with closing(psycopg2.connect(url)) as session, session.cursor() as cursor:

        def sleep() -> None:
            with suppress(psycopg2.Error):
                cursor.execute("SELECT pg_sleep(2)")

        asleep = threading.Thread(target=sleep)
        asleep.start()
        time.sleep(0.2)
        session.cancel()
        asleep.join()


_LIBPQ = psycopg2.__libpq_version__
serve(f"{psycopg2.__version__.split()[0]}, libpq {_LIBPQ // 10000}.{_LIBPQ % 10000}", once, {"cancel": cancel})
