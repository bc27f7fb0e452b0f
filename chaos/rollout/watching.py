"""One weight of a roll-out, watched: traffic through a mover, what each release was seen to do, and a decision each second."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.checks.arms import Arm, Latencies, by_second, thinned
from chaos.checks.deciding import Decision, Step, decide
from chaos.checks.recovery import describe
from chaos.model import Gauge, History, Kind, now
from chaos.traffic.load import Load, LoadPlan, Mix
from chaos.traffic.requests import send

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chaos.model import Interval, Operation
    from chaos.rig import Rig
    from chaos.rollout.handshakes import Handshakes
    from chaos.rollout.moving import Mover

LOOK = 1.0  # s between two decisions
MIX = Mix(reads=0.62, writes=0.05, invalid=0.05, unknown=0.10, seo=0.12, provider=0.06)
SETTLED = 3.0  # s of requests after a roll-back that are looked at
LOOKED_UP = 500  # writes of the candidate's in a step, at most
BLOCKS = 60  # stretches that a planned step is kept by
KEPT = 2000  # intervals above which a long step is kept by its stretches
PATIENT = 5.0  # s in which a write may come to be seen
SAID = 600.0  # s between two words about a step that lasts
LEARNED = 5.0  # s of a stretch of the learned baseline, at the least


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`steps` in per cent, the last one 100; `dwell` seconds that each lasts at least, `hold` more that it may; requests a second."""

    steps: tuple[int, ...] = (5, 25, 50, 100)
    dwell: float = 6 * 3600.0
    hold: float = 6 * 3600.0
    rate: float = 100.0
    seed: int = 1

    @property
    def width(self) -> float:
        """Seconds of a stretch that is kept."""
        return max(1.0, self.dwell / BLOCKS)


Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Where the work tells of itself: `record` keeps a history, `say` is one line for people, `state` the file of a roll-back."""

    record: Callable[[History], None]
    say: Say
    state: Path


@dataclass
class Watch:
    """One weight, as it is watched: what was seen, kept in the form in which it is recorded."""

    weight: int
    width: float
    learned: list[tuple[float, float]]
    begun: float = field(default_factory=now)
    intervals: list[Interval] = field(default_factory=list)
    since: float = 0.0  # s after it began until the candidate's first failure
    example: str = ""
    step: Step = field(init=False)

    def __post_init__(self) -> None:
        arms = {name: Arm(reads=Latencies(self.width)) for name in ("baseline", "candidate", "nobody")}
        self.step = Step(weight=self.weight, learned=tuple(self.learned), **arms)

    def take(self, mover: Mover, taken: tuple[Interval, ...], operations: tuple[Operation, ...]) -> None:
        """What the sender has recorded since; what was due before the weight was set belongs to nobody."""
        named = [replace(one, release=mover.name_of(one.release)) for one in taken if one.started >= self.begun]
        for name, arm in (("baseline", self.step.baseline), ("candidate", self.step.candidate), ("", self.step.nobody)):
            before = arm.failed
            for together in by_second(one for one in named if one.release == name):
                arm.take(together)
                if name == "candidate" and arm.failed > before and not self.since:
                    self.since = max(0.1, together[0].started - self.begun)
        self.intervals += named
        wrong = [one for one in operations if not one.ok and one.started >= self.begun]
        if wrong and self.since:
            self.example = describe(wrong[-1])

    def thin(self) -> None:
        """Keep less of what is long past."""
        if self.width > 1.0 and len(self.intervals) > KEPT:
            self.intervals = list(thinned(self.intervals, self.width))

    def learn(self) -> list[tuple[float, float]]:
        """(400s, requests) of the baseline, by stretches of time."""
        counts: dict[int, list[float]] = {}
        for one in self.intervals:
            if one.release == "baseline" and one.kind is not Kind.INVALID:
                cell = counts.setdefault(int(one.started // max(LEARNED, self.width)), [0.0, 0.0])
                cell[0] += one.statuses.get("400", 0)
                cell[1] += one.sent
        return [(events, size) for events, size in counts.values()]

    def history(self, experiment: str, facts: Mapping[str, str]) -> History:
        """As it stands."""
        arms = {"baseline": self.step.baseline, "candidate": self.step.candidate}
        gauges = tuple(
            Gauge(at=now(), name=f"handshakes.{name}{suffix}", value=float(count))
            for name, arm in arms.items()
            for suffix, count in (("", arm.handshakes), (".failed", arm.broken))
        )
        own = {
            "weight": str(self.weight),
            "width": f"{self.width:g}",
            "row": str(self.step.candidate.row),
            "looked_up": str(self.step.candidate.looked_up),
            "lost": str(self.step.candidate.lost),
            "learned": json.dumps(self.learned if self.weight >= 100 else []),
            "since": f"{self.since:.1f}" if self.since else "",
            "example": self.example,
        }
        return History(
            experiment=experiment,
            started=self.begun,
            finished=now(),
            facts={**own, **facts},
            intervals=thinned(self.intervals, self.width),
            gauges=gauges,
        )


class Watching:
    """Traffic through a mover, and decisions about it, weight by weight."""

    def __init__(self, rig: Rig, plan: Plan, mover: Mover, shaken: Mapping[str, Handshakes]) -> None:
        self.rig, self.plan, self.mover, self.shaken = rig, plan, mover, shaken
        self.learned: list[tuple[float, float]] = []
        self.counted: dict[str, tuple[int, int]] = dict.fromkeys(shaken, (0, 0))
        decide(Step(weight=0))  # what it imports takes a second: not the first one of the roll-out
        driver = rig.driver
        self.load = Load(
            LoadPlan(
                target=rig.config.target,
                base_url=mover.url,
                rate=plan.rate,
                values=dict(driver.session.values),
                mix=MIX,
                seed=plan.seed,
                every=1.0,
                release_header=mover.header,
                releases=dict(mover.releases),
            ),
            reaper=rig.reaper,
            directory=rig.run_dir / rig.worker / "load",
        )

    def watch(
        self, weight: int, *, dwell: float, hold: float, until: Callable[[Arm], bool] | None = None, say: Say | None = None
    ) -> tuple[Watch, Decision, dict[str, str]]:
        """Set the weight, and decide each second until it is decided; `until` ends it without. `say` is told of a long one."""
        self.mover.move(weight)
        seen = Watch(weight, self.plan.width, self.learned)
        writes = _Writes(self.rig, self.mover.candidate_url)
        while True:
            time.sleep(LOOK)
            self.load.check()
            self.rig.check_parts()
            seen.take(self.mover, *self.load.take())
            seen.thin()
            self._shake(seen.step)
            writes.turn(seen.step.candidate)
            lasted = now() - seen.begun
            facts = {"due": "yes" if lasted >= dwell else "no", "over": "yes" if lasted >= dwell + hold else "no"}
            decision = decide(seen.step, due=lasted >= dwell, over=lasted >= dwell + hold)
            if decision.action != "hold" or (until and until(seen.step.candidate)):
                self.learned += seen.learn()
                return seen, decision, facts
            if say and lasted // SAID > (lasted - LOOK) // SAID:
                say(f"{weight} %, {lasted / 60:.0f} min: {decision.why}")

    def _shake(self, step: Step) -> None:
        """Handshakes since the last step's end."""
        for name, arm in (("baseline", step.baseline), ("candidate", step.candidate)):
            if name in self.shaken:
                if (refusals := self.shaken[name].refusals) is not None:
                    refusals.read()
                total, failed = self.shaken[name].take()
                arm.handshakes, arm.broken = total - self.counted[name][0], failed - self.counted[name][1]

    def settle(self) -> None:
        """What was counted so far belongs to the step that has ended."""
        self.counted = {name: (one.total, one.failed) for name, one in self.shaken.items()}

    def back(self) -> dict[str, str]:
        """All weight back, and who answers then."""
        began = now()
        self.load.take()
        seconds = self.mover.back()
        set_at = now()
        time.sleep(SETTLED)
        taken, _ = self.load.take()
        after = {"baseline": 0, "candidate": 0}
        for one in taken:
            name = self.mover.name_of(one.release)
            if one.started >= set_at and name in after:
                after[name] += one.sent
        return {
            "back": f"{max(seconds, 0.01):.2f}",
            "back.at": f"{began:.3f}",
            **{f"after.{name}": str(n) for name, n in after.items()},
        }


class _Writes:
    """A write a second to the candidate itself, looked up again at the baseline: both have one database."""

    def __init__(self, rig: Rig, url: str) -> None:
        self.rig, self.url = rig, url
        self.written: list[Operation] = []

    def turn(self, arm: Arm) -> None:
        """Write one; look up those that were acknowledged a second ago. One is lost that is still not there after five."""
        driver = self.rig.driver
        samples = driver.samples[Kind.WRITE]
        if not self.url or not samples or arm.looked_up >= LOOKED_UP:
            return
        due = [one for one in self.written if now() - one.finished >= LOOK]
        self.written = [one for one in self.written if one not in due]
        shown = driver.read_back(due)
        for one in due:
            found = shown[one.unique].occurrences if one.unique in shown else -1
            if found == 0 and now() - one.finished < PATIENT:
                self.written.append(one)  # it may only be late
            elif found >= 0:
                arm.looked_up += 1
                arm.lost += found == 0
        sample = samples[(arm.looked_up + len(self.written)) % len(samples)]
        headers = {key: uuid.uuid4().hex} if (key := getattr(sample.request, "idempotency_header", None)) else {}
        done = driver.call(send(replace(driver.session, base_url=self.url), sample, deadline=driver.deadline, headers=headers))
        if done.ok:
            self.written.append(done)
