"""How many requests one core sends: see README.md.

python -m benchmarks.load_accuracy.throughput [--rate 1600] [--seconds 15]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.load_accuracy.compare import frozen, preferred
from chaos.config import Target
from chaos.histogram import merged
from chaos.processes import Reaper
from chaos.traffic.load import Load, LoadPlan, Mix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WANTED = 1_500
OTHERS = 600  # requests with each of the other clients


def ours(rate: float, seconds: float, *, kept: bool) -> float:
    """Requests a second that a whole core would send, by the processor time that they took."""
    with frozen(service=0, freeze=0) as (port, _), Reaper("throughput") as reaper, tempfile.TemporaryDirectory() as name:
        target = Target.model_validate({"name": "x", "url": f"http://127.0.0.1:{port}", "live": "/", "read": [{"path": "/"}]})
        plan = LoadPlan(target=target, base_url=f"http://127.0.0.1:{port}", rate=rate, every=5.0, mix=Mix(invalid=0), kept=kept)
        load = Load(plan, reaper=reaper, directory=Path(name))
        load.start()
        process = psutil.Process(load.pid)
        held = process.memory_info().rss
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(seconds)
        took, lasted = sum(process.cpu_times()[:2]) - before, time.monotonic() - began
        held, now = held >> 20, process.memory_info().rss >> 20
        load.stop()
        intervals, _ = load.take()
    good, planned = sum(one.good for one in intervals), sum(one.planned for one in intervals)
    lag, latency = merged(one.lag for one in intervals), merged(one.latency for one in intervals)
    covered = sum(one.covered * one.seconds for one in intervals) / sum(one.seconds for one in intervals)
    left = Counter({why: count for one in intervals if one.dropped for why, count in one.statuses.items()}) + Counter(load.counts)
    done = planned / sum(one.seconds for one in intervals)
    print(
        f"ours, {'kept connections' if kept else 'a connection each'}: {done:.0f}/s, {good} of {planned} good, left out {dict(left)}; "
        f"{took / lasted:.0%} of a core; "
        f"send lag P50 {lag.quantile(0.5) * 1000:.2f}, P99 {lag.quantile(0.99) * 1000:.2f} ms; "
        f"latency P50 {latency.quantile(0.5) * 1000:.2f} ms; covered {covered:.1%}; {held} MiB at first, {now} in the end"
    )
    return done * lasted / took


def other(name: str, port: int, make: Callable[[str], Callable[[], Awaitable[object]]]) -> None:
    """What a request on a connection of its own costs with another client, ten at a time."""

    async def go() -> float:
        ask = make(f"http://127.0.0.1:{port}/")

        async def some() -> None:
            for _ in range(OTHERS // 10):
                await ask()

        began = time.process_time()
        await asyncio.gather(*(some() for _ in range(10)))
        return time.process_time() - began

    cost = asyncio.run(go()) / OTHERS
    print(
        f"{name}: {cost * 1e6:.0f} us of processor time a request, at most {1 / cost:.0f}/s from one core, without any record of them"
    )


def _httpx(url: str) -> Callable[[], Awaitable[object]]:
    import httpx  # noqa: PLC0415

    client = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), verify=False)  # noqa: S501  (it is plain HTTP)
    return lambda: client.get(url)


def _aiohttp(url: str) -> Callable[[], Awaitable[object]]:
    import aiohttp  # noqa: PLC0415

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))

    async def ask() -> bytes:
        async with session.get(url) as answer:
            return await answer.read()

    return ask


def main() -> int:
    """Exit code 1 when a core does not send 1,500 a second."""
    parser = argparse.ArgumentParser(description="what one core sends")
    parser.add_argument("--rate", type=float, default=1_600)
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    print(f"run {preferred()}")
    most = [ours(options.rate, options.seconds, kept=kept) for kept in (False, True)]
    print(f"one core: {most[0]:.0f}/s on connections of their own, {most[1]:.0f}/s on kept ones (wanted: {WANTED})")
    with frozen(service=0, freeze=0) as (port, _):
        other("httpx", port, _httpx)
        other("aiohttp", port, _aiohttp)
    return int(most[0] < WANTED)


if __name__ == "__main__":
    sys.exit(main())
