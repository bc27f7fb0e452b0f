"""A service that is only a model: 72 hours of it in a minute or two, through the same recorder as a real one's.

It shows what the judging of a soak makes of a healthy service, and of six that are not, each wrong in one way. Its name in the
evidence begins with 'model:', so that nobody takes it for a service. Everything is drawn from the seed and the number of the minute,
so a soak that was killed and resumed holds the same minutes as one that was not, but for the gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.errors import UsageError
from chaos.histogram import Histogram
from chaos.model import Effect, Finding, Gauge, Interval, Kind, Outcome, Window
from chaos.soak.minutes import Minute
from chaos.soak.plan import HOUR, MINUTE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from chaos.checks.limits import Limits
    from chaos.gates import Gate
    from chaos.soak.plan import Plan

MIX = (
    ("read[0]", Kind.READ, 0.55),
    ("read[1]", Kind.READ, 0.35),
    ("write[0]", Kind.WRITE, 0.08),
    ("invalid[0]", Kind.INVALID, 0.02),
)
RATE = 200.0  # requests a second, unless told otherwise
MEDIAN, SPREAD = 0.009, 0.45  # s, and sigma of its logarithm: P95 19 ms, P99 26 ms
FAILING = 2e-6  # share of a healthy service's requests
FAULT = 12.0  # s that a modelled fault lasts
LEAKS = {"memory": 6e6, "connections": 0.9, "latency": 0.0006}  # a leak's growth an hour: bytes, sessions, s
BAD = 0.03  # share of the requests of a bad hour that fail
GAP = 5  # minutes


@dataclass(frozen=True, slots=True)
class Model:
    """One plant. `why` is what has to be found: the gate, or nothing at all."""

    title: str
    why: str = ""


MODELS: Mapping[str, Model] = {
    "healthy": Model("nothing is wrong with it"),
    "bad-hour": Model("one hour in which 3 % of its requests fail", "red hour"),
    "gap": Model("five minutes in which nobody looked", "grey hour"),
    "leak-memory": Model("6 MB an hour more, for ever", "memory"),
    "leak-connections": Model("sessions that are never closed", "sessions"),
    "leak-latency": Model("it becomes slower by 0.6 ms an hour", "latency"),
}


def known(name: str) -> str:
    """`name` when there is such a model, else a UsageError with 'did you mean'."""
    if name in MODELS:
        return name
    raise UsageError(f"unknown model {name!r}", remedy=f"name one of {', '.join(MODELS)}", where="--model")


class Modelled:
    """The modelled service under a plan. `minute(k)` is what the k-th minute brings; None in the gap."""

    def __init__(self, plan: Plan, limits: Limits) -> None:
        import numpy as np  # noqa: PLC0415  (0.1 s, and a real soak needs none)

        self._numpy = np
        self._plan = plan
        self._seconds = sorted(set(limits.seconds.values()))
        self._middle = int(plan.seconds / HOUR / 2)  # the hour in which something is wrong, where that is one hour

    def minute(self, number: int) -> Minute | None:
        """Everything that is recorded of it."""
        plan, started = self._plan, self._plan.started + number * MINUTE
        hour, place = divmod(number, 60)
        if plan.model == "gap" and hour == self._middle and 20 <= place < 20 + GAP:
            return None
        dice = self._numpy.random.default_rng([plan.seed, number])
        windows = self._windows(started)
        return Minute(
            number=number,
            started=started,
            finished=min(started + MINUTE, plan.end),
            intervals=tuple(self._intervals(dice, number, started, windows)),
            gauges=tuple(self._gauges(dice, number, started)),
            windows=windows,
        )

    def _windows(self, started: float) -> tuple[Window, ...]:
        """Faults of the plan that begin in this minute; each is over with it."""
        begin = started - self._plan.started
        return tuple(
            Window(
                fault=one.case,
                scope="modelled",
                injected=started + min(one.at - begin, MINUTE - FAULT),
                healed=started + min(one.at - begin, MINUTE - FAULT) + FAULT,
                effect=Effect(took=True, seen="modelled", count=1),
            )
            for one in self._plan.faults
            if begin <= one.at < begin + MINUTE
        )

    def _intervals(self, dice: np.random.Generator, number: int, started: float, windows: tuple[Window, ...]) -> list[Interval]:
        numpy = self._numpy
        broken = sum(one.healed - one.injected for one in windows)
        found = []
        for stratum, seconds, failing in (("steady", MINUTE - broken, self._failing(number)), ("fault", broken, 0.2)):
            if seconds <= 0:
                continue
            for sample, kind, share in MIX:
                planned = int(dice.poisson(self._plan.rate * share * seconds))
                bad = int(dice.binomial(planned, failing))
                took = dice.lognormal(math.log(self._median(number)), SPREAD, planned)
                late = numpy.ceil(dice.exponential(0.0004, planned) * 2e4) / 2e4  # in steps of 50 us
                found.append(
                    Interval(
                        started=started,
                        seconds=MINUTE if stratum == "steady" else seconds,
                        sample=sample,
                        kind=kind,
                        stratum=stratum,
                        planned=planned,
                        sent=planned,
                        good=planned - bad,
                        statuses={"200": planned - bad} | ({"503": bad} if bad else {}),
                        over={f"{limit:g}": int((took > limit).sum()) for limit in self._seconds},
                        latency=self._histogram(took),
                        lag=self._histogram(late),
                    )
                )
        return found

    def _failing(self, number: int) -> float:
        return BAD if self._plan.model == "bad-hour" and number // 60 == self._middle else FAILING

    def _median(self, number: int) -> float:
        """Seconds; with a day's own cycle."""
        hours = number / 60
        grown = LEAKS["latency"] * hours if self._plan.model == "leak-latency" else 0.0
        return MEDIAN * (1 + 0.1 * math.sin(2 * math.pi * hours / 24)) + grown

    def _histogram(self, seconds: np.ndarray) -> str:
        """As text. Values are first brought to the histogram's own resolution, so that each is recorded once, with its count."""
        numpy = self._numpy
        micro = numpy.maximum(1, numpy.rint(seconds * 1e6)).astype(numpy.int64)
        fine = numpy.maximum(0, numpy.floor(numpy.log2(micro)).astype(numpy.int64) - 7)
        values, counts = numpy.unique((micro >> fine) << fine, return_counts=True)
        filled = Histogram()
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            filled.record(value / 1e6, count)
        return filled.text()

    def _gauges(self, dice: np.random.Generator, number: int, started: float) -> list[Gauge]:
        hours, model = number / 60, self._plan.model
        daily = math.sin(2 * math.pi * hours / 24)
        grown = {name: LEAKS[name] * hours if model == f"leak-{name}" else 0.0 for name in ("memory", "connections")}
        values = {
            "target.memory": 180e6 + 4e6 * daily + dice.normal(0, 1.5e6) + grown["memory"],
            "target.open_files": 40 + int(dice.integers(0, 6)) + int(grown["connections"]),
            "target.threads": 12,
            "database.sessions": 8 + int(dice.integers(0, 3)) + int(grown["connections"]),
            "handshakes.made": int(dice.poisson(3)),
            "handshakes.failed": 0,
            "certificate.days": 90 - hours / 24,
            "writes.checked": 6,
            "writes.lost": 0,
            "writes.doubled": 0,
            "runner.memory": _resident(),
        }
        return [Gauge(at=started + MINUTE, name=name, value=float(value)) for name, value in values.items()]


def _resident() -> float:
    import psutil  # noqa: PLC0415

    return float(psutil.Process().memory_info().rss)


ENOUGH = 3_000  # observations of a modelled round: more than any rate needs


def functional(gates: Mapping[str, Gate], model: str) -> tuple[Finding, ...]:
    """What a round of the functional suite finds at the model: a pass of every gate that the soak itself does not settle."""
    return tuple(
        Finding(
            check=f"commit-cut.{gate.id}" if gate.hits else f"modelled.{gate.id}",
            gate=gate.id,
            outcome=Outcome.PASS,
            detail=f"modelled, as everything of 'model: {model}' is",
            experiment="round 0: modelled",
            n=ENOUGH if gate.rule != "demonstrated" else 1,
            measured=5.0 if gate.rule == "duration" else None,
            expected=f"{gate.title}: {gate.threshold}",
        )
        for gate in gates.values()
        if gate.proof in {"quick", "nightly", "review"} or gate.id == "rel.delta"
    )
