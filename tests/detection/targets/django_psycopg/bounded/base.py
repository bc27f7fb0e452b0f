"""Django's PostgreSQL backend with a limit to every wait after connecting: psycopg itself has none for a statement or a COMMIT."""

import time

import psycopg
from django.db.backends.postgresql import base

SECONDS = 1.3


class TooLate(psycopg.OperationalError):
    """The database did not answer in time."""


def limited(steps, seconds):
    """The same steps of psycopg's, until the time is over. `wait` wakes us up ten times a second when nothing comes."""
    end = time.monotonic() + seconds
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if time.monotonic() > end:
                raise TooLate("the database did not answer in time")
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value


class Bounded(psycopg.Connection):
    def wait(self, gen, interval=0.1, **more):
        try:
            return super().wait(limited(gen, SECONDS), interval=0.1, **more)
        except TooLate:
            self.pgconn.finish()  # its state is unknown
            raise


class Driver:
    """The psycopg module, but for what it connects with."""

    connect = staticmethod(Bounded.connect)

    def __getattr__(self, name):
        return getattr(psycopg, name)


class DatabaseWrapper(base.DatabaseWrapper):
    Database = Driver()
