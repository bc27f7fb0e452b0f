"""One client of `benchmarks/library_behaviour.py`: a library as it comes, asked for a query every tenth of a second.

`python benchmarks/library_clients.py NAME URL` writes a line an answer: `ok` or `fail`, when it was asked for, when it was there.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAUSE = 0.1  # s between two queries


def _psycopg_pool(url: str) -> Callable[[], object]:
    from psycopg_pool import ConnectionPool  # noqa: PLC0415  (each client loads its own)

    pool = ConnectionPool(url, open=True)

    def ask() -> object:
        with pool.connection() as session:
            return session.execute("SELECT 1").fetchone()

    return ask


def _sqlalchemy(url: str) -> Callable[[], object]:
    from sqlalchemy import create_engine, text  # noqa: PLC0415  (each client loads its own)

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))

    def ask() -> object:
        with engine.connect() as session:
            return session.execute(text("SELECT 1")).scalar()

    return ask


def _connect(url: str) -> Callable[[], object]:
    import psycopg  # noqa: PLC0415  (each client loads its own)

    def ask() -> object:
        with psycopg.connect(url) as session:
            return session.execute("SELECT 1").fetchone()

    return ask


def _stamina(url: str) -> Callable[[], object]:
    import psycopg  # noqa: PLC0415  (each client loads its own)
    import stamina  # noqa: PLC0415  (each client loads its own)

    return stamina.retry(on=psycopg.Error)(_connect(url))


def _tenacity(url: str) -> Callable[[], object]:
    import tenacity  # noqa: PLC0415  (each client loads its own)

    return tenacity.retry(_connect(url))


def _tenacity_exponential(url: str) -> Callable[[], object]:
    import tenacity  # noqa: PLC0415  (each client loads its own)

    return tenacity.retry(wait=tenacity.wait_exponential(multiplier=0.1, max=2))(_connect(url))


async def _asyncpg(url: str) -> Callable[[], Awaitable[object]]:
    import asyncpg  # noqa: PLC0415  (each client loads its own)

    pool = await asyncpg.create_pool(url)
    return lambda: pool.fetchval("SELECT 1")


CLIENTS = {
    "psycopg_pool": _psycopg_pool,
    "sqlalchemy": _sqlalchemy,
    "stamina": _stamina,
    "tenacity": _tenacity,
    "tenacity_exponential": _tenacity_exponential,
}


def _say(how: str, asked: float) -> None:
    sys.stdout.write(f"{how} {asked!r} {time.time()!r}\n")
    sys.stdout.flush()


async def _awaited(url: str) -> None:
    ask = await _asyncpg(url)
    while True:
        asked = time.time()
        try:
            await ask()
        except Exception:  # noqa: BLE001  (whatever the library lets through is a failed query)
            _say("fail", asked)
        else:
            _say("ok", asked)
        await asyncio.sleep(PAUSE)


def main() -> None:
    """From the command line."""
    name, url = sys.argv[1:]
    if name == "asyncpg":
        asyncio.run(_awaited(url))
    ask = CLIENTS[name](url)
    while True:
        asked = time.time()
        try:
            ask()
        except Exception:  # noqa: BLE001  (the same)
            _say("fail", asked)
        else:
            _say("ok", asked)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
