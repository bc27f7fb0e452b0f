"""pg8000: it takes no URL. sslmode=require is `ssl_context=True`, verify-full a context of Python's."""

from __future__ import annotations

import importlib.metadata
from contextlib import closing
from urllib.parse import urlsplit

import pg8000.dbapi
from loop import context, parts, serve


def once(url: str) -> None:
    """One connection, one query."""
    plain, options = parts(url)
    place = urlsplit(plain)
    more: dict[str, object] = {}
    if "sslmode" in options:
        more["ssl_context"] = context(options) if options["sslmode"] == "verify-full" else True
    if "connect_timeout" in options:
        more["timeout"] = float(options["connect_timeout"])
    session = pg8000.dbapi.connect(
        user=place.username,
        password=place.password,
        host=place.hostname,
        port=place.port,
        database=place.path[1:],
        **more,
    )
    with closing(session):
        session.cursor().execute("SELECT 1")


serve(importlib.metadata.version("pg8000"), once)
