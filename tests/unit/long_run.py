"""Made-up long runs, minute by minute, as a soak records them: for the tests of what judges them, and for benchmarks.

python -m tests.unit.long_run DIRECTORY [HOURS]      writes a whole evidence store of one
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos import gates
from chaos.checks import Limits
from chaos.evidence.store import SEGMENTS, Segment
from chaos.histogram import Histogram
from chaos.model import Effect, Gauge, History, Interval, Kind, Window

START = 1_795_478_400.0
MINUTE, HOUR = 60.0, 3600.0
GATES = gates.load()
LIMITS = Limits(
    seconds={gate.id: gate.seconds for gate in GATES.values() if gate.seconds},
    rates={gate.id: gate.limit for gate in GATES.values() if gate.rule in {"rate", "budget", "worst_class"}},
)
MIX = (
    ("read[0]", Kind.READ, 360),
    ("read[1]", Kind.READ, 120),
    ("write[0]", Kind.WRITE, 60),
    ("seo", Kind.READ, 36),
    ("unknown-host", Kind.HOST, 36),
    ("invalid[0]", Kind.INVALID, 12),
)


def _text(seed: int, count: int, middle: float, spread: float = 0.3) -> str:
    dice, filled = random.Random(seed), Histogram()
    for _ in range(count):
        filled.record(middle * dice.lognormvariate(0.0, spread))
    return filled.text()


_KEPT: dict[tuple[float, int, int], str] = {}


def latency(middle: float, count: int, turn: int) -> str:
    """Of one of eight different minutes with this median (drawing each anew would be most of a test's time)."""
    key = (round(middle, 5), count, turn % 8)
    if key not in _KEPT:
        _KEPT[key] = _text(key[2], count, key[0])
    return _KEPT[key]


@dataclass(kw_only=True)
class Service:
    """What a made-up service does in each minute; each is a function of the minute's number. Healthy as it stands.

    `every` minutes are one record, as if each had been like the first of them: 72 hours are judged in a second then.
    """

    hours: float = 72.0
    every: int = 10
    failing: Callable[[int], int] = lambda _: 0  # reads that fail
    there: Callable[[int], bool] = lambda _: True  # whether anybody looked
    middle: Callable[[int], float] = lambda _: 0.008  # s
    slow: Callable[[int], int] = lambda _: 2  # reads above the limits of P95 and P99
    lag: Callable[[int], float] = lambda _: 0.0004  # s
    lost: Callable[[int], int] = lambda _: 0
    let_in: Callable[[int], int] = lambda _: 0
    broken: Callable[[int], bool] = lambda number: number % 60 == 30
    memory: Callable[[int], float] = lambda number: 180e6 + 1e6 * ((number * 7919) % 11 - 5)
    sessions: Callable[[int], float] = lambda number: 8 + number % 3
    handshakes: Callable[[int], tuple[int, int]] = lambda _: (3, 0)
    facts: dict[str, str] = field(default_factory=dict)

    def minutes(self) -> Iterator[History]:
        """In order; those in which nobody looked are not there."""
        return (self.minute(number) for number in range(0, round(self.hours * 60), self.every) if self.there(number))

    def minute(self, number: int) -> History:
        """One of them."""
        begin, length = START + number * MINUTE, self.every * MINUTE
        broken = self.broken(number)
        window = Window(
            fault="connections refused",
            scope="database",
            injected=begin + 5,
            healed=begin + 25,
            effect=Effect(took=True, seen="refused", count=3),
        )
        facts = {"family": "soak", "gate": "rel.availability", "plan.started": f"{START:.3f}", "plan.hours": f"{self.hours:g}"}
        return History(
            experiment="soak",
            started=begin,
            finished=begin + length,
            windows=(window,) if broken else (),
            facts=facts | self.facts,
            intervals=tuple(self._intervals(number, begin, broken=broken)),
            gauges=tuple(Gauge(at=begin + length - 1, name=name, value=value) for name, value in self._gauges(number).items()),
        )

    def _intervals(self, number: int, begin: float, *, broken: bool) -> Iterator[Interval]:
        failing, slow = self.failing(number) * self.every, self.slow(number) * self.every
        for sample, kind, each in MIX:
            asked = each * self.every
            bad = failing if sample == "read[0]" else 0
            status = {Kind.HOST: "400", Kind.INVALID: "400", Kind.WRITE: "201"}.get(kind, "200")
            let_in = self.let_in(number) if kind is Kind.HOST else 0
            statuses = {status: asked - bad - let_in} | ({"503": bad} if bad else {}) | ({"200": let_in} if let_in else {})
            yield Interval(
                started=begin,
                seconds=self.every * MINUTE,
                sample=sample,
                kind=kind,
                planned=asked,
                sent=asked,
                good=asked - bad - let_in,
                statuses=statuses,
                over={"0.12": slow, "0.3": slow} if sample == "read[0]" else {"0.12": 0, "0.3": 0},
                latency=latency(self.middle(number), each, number),
                lag=latency(self.lag(number), each, number),
            )
        if broken:
            yield Interval(
                started=begin + 5,
                seconds=20.0,
                sample="read[0]",
                kind=Kind.READ,
                stratum="fault",
                planned=120,
                sent=120,
                good=20,
                statuses={"200": 20, "503": 100},
                latency=latency(0.02, 120, number),
                lag=latency(0.0004, 120, number),
            )

    def _gauges(self, number: int) -> dict[str, float]:
        made, failed = self.handshakes(number)
        return {
            "target.memory": self.memory(number),
            "target.open_files": 40.0 + number % 5,
            "target.threads": 12.0,
            "database.sessions": self.sessions(number),
            "handshakes.made": float(made * self.every),
            "handshakes.failed": float(failed * self.every),
            "certificate.days": 90 - number / 1440,
            "writes.checked": 6.0,
            "writes.lost": float(self.lost(number)),
            "writes.doubled": 0.0,
            "runner.memory": 90e6,
        }


def write(directory: Path, service: Service) -> None:
    """The segment of such a run."""
    with Segment(directory / SEGMENTS / "soak.sqlite") as segment:
        for history in service.minutes():
            segment.append(history)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Service(hours=float(sys.argv[2]) if len(sys.argv) > 2 else 72.0, every=1))
