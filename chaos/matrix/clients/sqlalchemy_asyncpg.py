"""SQLAlchemy over asyncpg: the URL's options go to asyncpg.connect() as arguments, which has no sslmode: it is translated here."""

from __future__ import annotations

import asyncio

import asyncpg
import sqlalchemy
from loop import context, parts, serve
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


async def _once(url: str) -> None:
    plain, options = parts(url)
    more: dict[str, object] = {}
    if "sslmode" in options:
        more["ssl"] = context(options) if options["sslmode"] == "verify-full" else options["sslmode"]
    if "connect_timeout" in options:
        more["timeout"] = float(options["connect_timeout"])
    engine = create_async_engine(
        plain.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool, connect_args=more
    )
    async with engine.connect() as session:
        await session.execute(sqlalchemy.text("SELECT 1"))
    await engine.dispose()


serve(f"{sqlalchemy.__version__}, asyncpg {asyncpg.__version__}", lambda url: asyncio.run(_once(url)))
