"""SQLAlchemy over psycopg: the URL's options go to libpq."""

from __future__ import annotations

import psycopg
import sqlalchemy
from loop import serve
from sqlalchemy.pool import NullPool


def once(url: str) -> None:
    """One connection, one query."""
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
    with engine.connect() as session:
        session.execute(sqlalchemy.text("SELECT 1"))


_LIBPQ = psycopg.pq.version()
serve(f"{sqlalchemy.__version__}, psycopg {psycopg.__version__}, libpq {_LIBPQ // 10000}.{_LIBPQ % 10000}", once)
