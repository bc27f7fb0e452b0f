"""A target's metrics as a scraper reads them: bounded in time and in size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11

from chaos.config import Request
from chaos.traffic.exchange import classify, exchange

if TYPE_CHECKING:
    from chaos.traffic.requests import Session

DEADLINE = 10.0  # s: what Prometheus waits by default (scrape_timeout)
LIMIT = 16 << 20  # bytes: more is no scrape, but a transfer
ACCEPT = "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """What came back; `error` says in words why that is nothing to read."""

    text: str = ""
    media_type: str = ""
    error: str = ""


async def scrape(session: Session, path: str) -> Scrape:
    """GET it, under the target's own host; where that is refused, under the address. Never raises for what the target did."""
    request = Request(method="GET", path=path)
    first = await _get(session, request, {})
    if not first.error.startswith("answered 4"):
        return first
    netloc = urlsplit(session.build(request, "").url).netloc
    again = await _get(session, request, {"Host": netloc})
    return first if again.error else again


async def _get(session: Session, request: Request, more: dict[str, str]) -> Scrape:
    going = session.build(request, "", {"Accept": ACCEPT, **more})
    try:
        answer = await asyncio.wait_for(exchange(going, kept=LIMIT), DEADLINE)
    except (TimeoutError, h11.ProtocolError, OSError) as error:
        return Scrape(error=f"no answer ({classify(error)}) within {DEADLINE:g} s")
    if answer.status != 200:
        return Scrape(error=f"answered {answer.status}: {' '.join(answer.text.split())[:120]}")
    if len(answer.body) > LIMIT:
        return Scrape(error=f"more than {LIMIT >> 20} MiB, and not read any further")
    return Scrape(text=answer.text, media_type=answer.headers.get("content-type", ""))
