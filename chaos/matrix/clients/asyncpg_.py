"""asyncpg: its URL knows sslmode, sslrootcert, sslcrl and sslnegotiation; the time-out is an argument."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlencode

import asyncpg
from loop import parts, serve


async def _connect(url: str) -> asyncpg.Connection:
    plain, options = parts(url)
    timeout = float(options.pop("connect_timeout", "60"))
    return await asyncpg.connect(f"{plain}?{urlencode(options)}" if options else plain, timeout=timeout)


async def _once(url: str) -> None:
    session = await _connect(url)
    try:
        await session.fetchval("SELECT 1")
    finally:
        await session.close(timeout=1)


async def _cancel(url: str) -> None:
    session = await _connect(url)
    with suppress(TimeoutError):
        await session.execute("SELECT pg_sleep(2)", timeout=0.2)
    await session.close(timeout=3)


serve(asyncpg.__version__, lambda url: asyncio.run(_once(url)), {"cancel": lambda url: asyncio.run(_cancel(url))})
