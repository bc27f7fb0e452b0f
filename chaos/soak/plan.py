"""The plan of a soak: all that is going to happen, drawn from the seed and written to schedule.json before anything does.

Nobody can say afterwards that faults were left out where they would have hurt, or that a run stopped where it looked best.
`--resume` reads it; nothing ever changes it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from chaos.cases import CASES
from chaos.errors import UsageError
from chaos.evidence.disk import write_text
from chaos.session import config_path

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.cases import Case
    from chaos.config import Config

NAME = "schedule.json"
SOAK = "soak"  # what kind of schedule it is
MINUTE, HOUR = 60.0, 3600.0  # s
FULL = 48.0  # hours from which a soak can end GO (chaos.hours.WANTED); a shorter one is judged as 'smoke'
LONGEST = 24 * 31.0  # hours: a month, in which the budget is counted
APART = 1800.0  # s between two faults of a long soak, on average
FEWEST_SECONDS = 90.0  # a shorter soak has no room for a fault: it would be nothing else
FEW = 6  # faults of a compressed soak with a real target: each takes its real time
DAILY = 24.0  # hours between two rounds of the functional suite
HOUR_LASTS = 2.5  # s of real time that an hour of a compressed soak takes while nothing is broken
RATE = 20.0  # requests a second, unless told otherwise
SUITED = {"network", "certificate", "tls-off", "slots", "restart"}  # families: drops, TLS failures, slots, restarts


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault: the id of its case, and when it begins (s from the start, on the run's clock)."""

    at: float
    case: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of the functional suite. `taken` is the evidence directory of an earlier run that stands for it ('': it is run)."""

    number: int
    at: float
    profile: str
    taken: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What schedule.json holds; `every` is how long a minute's record covers, on the run's clock.

    `started` (seconds since the epoch) is known when the load begins, and is the one thing that is not in the file: the segment has it.
    `factor` is how many seconds of the run's clock one real second is (1.0: the real clock). `model` names a modelled service ('': a
    real one). `config` is the SHA-256 of chaos.toml, `given` where it is (None: the bundled service's).
    """

    seed: int
    hours: float
    rate: float
    target: str
    started: float = 0.0
    given: str | None = None
    config: str = ""
    every: float = MINUTE
    factor: float = 1.0
    model: str = ""
    backend: str = "auto"
    workers: int = 0
    baseline: str = ""
    faults: tuple[Planned, ...] = ()
    rounds: tuple[Round, ...] = ()

    @property
    def seconds(self) -> float:
        """On the run's clock."""
        return self.hours * HOUR

    @property
    def end(self) -> float:
        """Seconds since the epoch, on the run's clock."""
        return self.started + self.seconds

    @property
    def compressed(self) -> bool:
        """Whether its clock is a simulated one."""
        return self.factor != 1.0 or bool(self.model)

    @property
    def profile(self) -> str:
        """'soak' where it is long enough to end GO."""
        return "soak" if self.hours >= FULL else "smoke"

    @property
    def called(self) -> str:
        """The target's name in the evidence: nobody is to take a model for a service, or a simulated clock for days."""
        return f"model: {self.model}" if self.model else f"{self.target} (compressed)" if self.compressed else self.target

    def facts(self) -> dict[str, str]:
        """What every minute's history carries of the plan, so that it can be judged from the evidence alone."""
        return {
            "started": f"{self.started:.3f}",
            "hours": f"{self.hours:g}",
            "rate": f"{self.rate:g}",
            "every": f"{self.every:g}",
            "seed": str(self.seed),
            "target": self.called,
        } | ({"compressed": f"{self.factor:g}" if self.factor != 1.0 else "model"} if self.compressed else {})

    def write(self, directory: Path) -> None:
        """schedule.json. Raises EvidenceUnwritable."""
        kept = {key: value for key, value in asdict(self).items() if key != "started"}
        text = json.dumps({"kind": SOAK, "profile": self.profile, **kept}, indent=1)
        write_text(directory / NAME, text + "\n")


def read(directory: Path) -> Plan:
    """Of the soak whose evidence is in `directory`. UsageError when there is none."""
    path = directory / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        why = "" if data.pop("kind", "") == SOAK else "it is the schedule of another kind of run"
        data.pop("profile", None)
        data["faults"] = tuple(Planned(**one) for one in data["faults"])
        data["rounds"] = tuple(Round(**one) for one in data["rounds"])
        plan = Plan(**data)
    except OSError as error:
        why = str(error.strerror)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = f"this is no plan of a soak: {error}"
    if why:
        raise UsageError(
            f"there is no soak to go on with here ({why})",
            remedy="name the evidence directory of a soak that was interrupted",
            where=str(path),
        )
    return plan


def digest(given: str | None) -> str:
    """SHA-256 of chaos.toml."""
    return hashlib.sha256(config_path(given).read_bytes()).hexdigest()


def checked(hours: float, rate: float) -> None:
    """UsageError when nobody can soak for so long, or at such a rate."""
    if not math.isfinite(hours) or not 0 < hours <= LONGEST:
        raise UsageError(f"{hours:g} is no number of hours", remedy=f"name one above 0, up to {LONGEST:g}", where="--hours")
    if not math.isfinite(rate) or not 0 < rate <= 100_000:
        raise UsageError(f"{rate:g} is no rate", remedy="name requests a second, above 0", where="--rate")


def draw(
    config: Config,
    *,
    hours: float,
    rate: float,
    seed: int,
    given: str | None,
    compress: bool = False,
    model: str = "",
    functional: str = "",
    backend: str = "auto",
    workers: int = 0,
    baseline: str = "",
) -> Plan:
    """A plan for this target, from the seed. UsageError for hours or a rate that make no sense."""
    checked(hours, rate)
    dice = random.Random(seed)  # noqa: S311  (a reproducible schedule, not a secret)
    fast = compress and not model
    seconds = hours * HOUR
    every = MINUTE if not fast else max(MINUTE, HOUR / HOUR_LASTS)  # a record a real second
    return Plan(
        seed=seed,
        hours=hours,
        rate=rate,
        target=config.target.name,
        given=os.path.abspath(given) if given else None,  # noqa: PTH100  (only its words: it may be a link)
        config=digest(given),
        every=every,
        factor=HOUR / HOUR_LASTS if fast and hours * HOUR_LASTS < seconds else 1.0,
        model=model,
        faults=_faults(config, seconds, dice, most=FEW if fast else 10_000),
        rounds=_rounds(hours, functional, daily=not fast and not model),
        backend=backend,
        workers=workers,
        baseline=baseline,
    )


def suited(config: Config) -> list[Case]:
    """Cases that break what a soak breaks, and that apply to this target."""
    return [case for case in CASES if case.family in SUITED and not case.nightly and not case.absent(config)]


def _faults(config: Config, seconds: float, dice: random.Random, *, most: int) -> tuple[Planned, ...]:
    """One in each stretch of `APART` seconds (of a third of a short soak), at a moment drawn from the middle of it.

    Families take turns, so that a day meets all of them; which case of a family comes next is drawn.
    """
    by_family: dict[str, list[str]] = {}
    for case in suited(config):
        by_family.setdefault(case.family, []).append(case.id)
    if not by_family or seconds < FEWEST_SECONDS:
        return ()
    for names in by_family.values():
        dice.shuffle(names)
    order = sorted(by_family)
    dice.shuffle(order)
    count = min(most, max(2, int(seconds / APART)))
    stretch = seconds / count
    found = []
    for turn in range(count):
        names = by_family[order[turn % len(order)]]
        at = stretch * (turn + dice.uniform(0.25, 0.55))
        found.append(Planned(at=round(at, 1), case=names[turn // len(order) % len(names)]))
    return tuple(found)


def _rounds(hours: float, functional: str, *, daily: bool) -> tuple[Round, ...]:
    """The nightly suite at the start and every 24 h; the quick one, once, where the soak is short or compressed."""
    if hours < FULL or not daily:
        return (Round(number=0, at=0.0, profile="quick", taken=functional),)
    times = range(max(1, math.ceil(hours / DAILY)))
    return tuple(
        Round(number=number, at=number * DAILY * HOUR, profile="nightly", taken=functional if number == 0 else "")
        for number in times
    )
