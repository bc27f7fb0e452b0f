"""A soak of any length as its store holds it, made from a seed: a history a minute, faults, gauges. What pages are tested with."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from chaos.evidence.store import SEGMENTS, Segment, Store, merge
from chaos.histogram import Histogram
from chaos.model import Effect, Gauge, History, Interval, Kind, Window
from tests.unit.evidence_sample import START

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINUTE, HOUR = 60.0, 3600.0
SAMPLES = (("read[0]", Kind.READ, 400), ("read[1]", Kind.READ, 200), ("write[0]", Kind.WRITE, 150), ("seo", Kind.HOST, 60),
           ("unknown-host", Kind.HOST, 30), ("invalid[0]", Kind.INVALID, 60))  # fmt: skip


def _latency(rng: random.Random, pool: list[str], count: int) -> str:
    """One of a few texts that are alike: making a histogram a minute would cost more than what is tested."""
    if len(pool) < 40:
        one = Histogram()
        for _ in range(min(count, 120)):
            one.record(rng.lognormvariate(math.log(0.011), 0.5))
        pool.append(one.text())
    return rng.choice(pool)


def interval(rng: random.Random, pool: list[str], at: float, asked: tuple[str, Kind, int], *, broken: bool) -> Interval:
    sample, kind, n = asked
    bad = sum(rng.random() < (0.3 if broken else 0.0002) for _ in range(n))
    good = "200" if kind in {Kind.READ, Kind.WRITE} or sample == "seo" else "400"
    return Interval(
        started=at,
        seconds=MINUTE,
        sample=sample,
        kind=kind,
        stratum="fault" if broken else "steady",
        planned=n,
        sent=n,
        good=n - bad,
        statuses={good: n - bad} | ({"503": bad} if bad else {}),
        over={"0.12": bad, "0.3": 0},
        latency=_latency(rng, pool, n),
    )


def minutes(hours: float, *, seed: int = 5) -> Iterator[History]:
    """A history a minute; a fault of a minute every half hour; memory that grows, and sessions that do not."""
    rng, pool = random.Random(seed), list[str]()
    for number in range(round(hours * 60)):
        at = START + number * MINUTE
        broken = number % 30 == 20
        intervals = tuple(interval(rng, pool, at, one, broken=broken) for one in SAMPLES)
        gauges = (
            Gauge(at=at, name="target.memory", value=2.0e8 + 9e3 * number + 2e6 * rng.random()),
            Gauge(at=at, name="database.sessions", value=float(8 + number % 3 + (5 if broken else 0))),
            Gauge(at=at, name="handshakes.failed", value=float(12 if broken else 0)),
            Gauge(at=at, name="retries", value=float(30 * rng.random() if broken else 0)),
        )
        window = Window(
            fault="network.reset",
            scope="pooled",
            injected=at + 5,
            healed=at + 50,
            effect=Effect(took=True, seen="6 of 6 probes failed", count=6),
        )
        yield History(
            experiment=f"minute.{number}",
            started=at,
            finished=at + MINUTE,
            windows=(window,) if broken else (),
            intervals=intervals,
            gauges=gauges,
            facts={"title": "connections reset", "family": "soak"},
        )


def store(directory: Path, *, hours: float) -> Store:
    with Segment(directory / SEGMENTS / "soak.sqlite") as segment:
        for history in minutes(hours):
            segment.append(history)
    return merge(directory)
