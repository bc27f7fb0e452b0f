"""A real soak: load all the time, a minute at a time into the evidence, faults and rounds when the plan says so.

Everything happens in one thread, in the order of the clock. While something is broken the load pauses: a service with four threads and
a pool of one must not be accused of a pile-up that the suite itself makes. What is asked then is what the experiment's own few clients
ask, each waiting for its answer, and that is what the stratum 'fault' holds.
"""

from __future__ import annotations

import math
import random
import time
import traceback
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.cases import BY_ID
from chaos.environments.abort import FEWEST
from chaos.errors import ChaosError
from chaos.experiment.private import known, marked
from chaos.model import Finding, Gauge, Kind, Outcome, now
from chaos.soak import sender as load
from chaos.soak.gauges import Gauges
from chaos.soak.minutes import Minute, number
from chaos.soak.rounds import Running, findings, name
from chaos.soak.tally import intervals

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.model import History, Interval, Operation, Window
    from chaos.soak.clock import Clock
    from chaos.soak.keeping import Keeping
    from chaos.soak.plan import Planned, Round
    from chaos.soak.sender import Sender

LOOK = 0.5  # s between two looks at whether everything still lives
BEFORE = 1.0  # s for which the load pauses before a fault: what is under way is answered by then
GENTLE = 0.25  # share of its rate that the load goes at while a round of the suite has the machine as well
EDGE = 0.05  # s by which the stretch of a fault laps over the load's own, which it stands in for
PRIMED = 16  # windows that are remembered, to be told with the minutes that they overlap


@dataclass
class Conductor:
    """Carries out what is left of a plan."""

    keeping: Keeping
    clock: Clock
    done: frozenset[str] = frozenset()
    sender: Sender = field(init=False)
    gauges: Gauges = field(init=False)
    last: float = field(init=False)  # the end of the last minute that was kept, on the run's clock
    running: Running | None = None
    exits: int = 0  # how often the target ended by itself
    windows: deque[Window] = field(default_factory=lambda: deque(maxlen=PRIMED))
    _extra: list[Interval] = field(default_factory=list)
    _session: object = None

    # -- from the start to the end ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the plan's end. Whatever is raised, the load is stopped, and what it saw is kept."""
        plan, self.last = self.keeping.plan, self.clock.now()
        faults = deque(one for one in plan.faults if self._ahead(one.at, _name(one)))
        rounds = deque(one for one in plan.rounds if name(one) not in self.done)
        self.gauges = Gauges(self.keeping.campaign.rig)
        self.sender = self._sender()
        self.sender.start()
        try:
            while (at := self.clock.now()) < plan.end:
                self._look()
                if rounds and rounds[0].at <= at - plan.started and self.running is None:
                    self._round(rounds.popleft())
                elif faults and self.running is None and faults[0].at <= at - plan.started:
                    self._fault(faults.popleft())
                elif at >= self._next():
                    self._keep()
                soon = [plan.end, self._next(), *(plan.started + queue[0].at for queue in (faults, rounds) if queue)]
                self.clock.pause(min(soon), most=LOOK)
            self._keep()
        finally:
            self._end()

    def _ahead(self, at: float, name: str) -> bool:
        """Whether it is still to come. What was due while nobody was there is not made up for: the plan says when."""
        return name not in self.done and self.keeping.plan.started + at >= self.clock.now()

    def _next(self) -> float:
        plan = self.keeping.plan
        return plan.started + ((self.last - plan.started + 1e-3) // plan.every + 1) * plan.every

    def _sender(self) -> Sender:
        """Load on the target as it is now."""
        campaign = self.keeping.campaign
        self._session = campaign.rig.driver.session
        directory = campaign.run_dir / "load"
        return load.made(load.orders(self.keeping.plan, campaign), campaign, directory)

    def _end(self) -> None:
        """The load, the round that is on, and the last minute, as far as it came."""
        try:
            with suppress(ChaosError):
                self.sender.stop()
            if self.running is not None:
                self._round_over(self.running.stop())
        finally:
            self._keep(last=True)

    def _look(self) -> None:
        """Raises what ends a soak: a part that died, an abort condition, a target that somebody else ended.

        One that ended by itself is started again, as whatever runs it in production would: what it failed to answer meanwhile counts.
        """
        rig = self.keeping.campaign.rig
        rig.check_parts()
        if how := rig.target.exited():
            self.keeping.view.told(f"the target ended by itself ({how}), and was started again")
            self.exits += 1
            rig.restart()
            self._renew()
        self.sender.check()
        self._probe()
        if self.running is not None and self.running.ended():
            self._round_over(self.running.stop())
        self.keeping.view.tick(self.clock.now())

    def _probe(self) -> None:
        """Where an abort condition is about requests: enough of them in its time, which the load's own minutes are too long for."""
        rig = self.keeping.campaign.rig
        conditions = rig.config.environment.abort
        reads = rig.driver.samples[Kind.READ]
        if conditions is None or not reads or (conditions.error_rate is None and conditions.latency is None):
            return
        for _ in range(math.ceil(1.5 * FEWEST * LOOK / conditions.over)):
            rig.driver.ask(random.choice(reads), name="probe")  # noqa: S311  (any will do)

    # -- minutes ------------------------------------------------------------------------------------------------------------------

    def _keep(self, *, last: bool = False) -> None:
        """One more minute: what the load completed, what the gauges show, what was broken. The last one is what is still to be told."""
        clock, plan = self.clock, self.keeping.plan
        seen, some = self.sender.take()
        gauges = () if last else self.gauges.take([one for one in some if one.ok])
        failed = [one for one in some if not one.ok]
        if self.exits:
            gauges += (Gauge(at=now(), name="target.exits", value=float(self.exits)),)
            self.exits = 0
        ends = min(clock.now(), plan.end)
        extra, self._extra = self._extra, []
        self.keeping.minute(
            Minute(
                number=number(plan, self.last),
                started=self.last,
                finished=max(ends, self.last),
                intervals=clock.intervals((*seen, *extra)),
                gauges=clock.gauges(gauges),
                failed=clock.operations(marked((*failed, *self.gauges.seen.examples), known(self.keeping.campaign.rig))),
                windows=clock.windows(self.windows),
            )
        )
        self.last = max(ends, self.last)
        self.gauges.forget()
        if not last:
            self.keeping.view.refresh(ends)

    # -- faults -------------------------------------------------------------------------------------------------------------------

    def _fault(self, planned: Planned) -> None:
        """One case of the catalogue on the target that the load is on, from a little before the fault until it has recovered."""
        keeping, case = self.keeping, BY_ID[planned.case]
        keeping.phase(_name(planned))
        if hidden := keeping.campaign.rig.hides(case.id):
            keeping.found([_finding(case, Outcome.NOT_APPLICABLE, hidden)])
            return
        keeping.view.breaks(case)
        self.clock.real()
        begun = now()
        self.sender.rate(0.0)
        self.sender.mark("fault")
        try:
            time.sleep(BEFORE)
            asked = self._prove(case)
            keeping.campaign.rig.healthy_or_restarted()
            # Who asks now are the experiment's clients: this stretch is theirs, and covers what the load left out.
            self._extra += intervals(asked, begun - EDGE, now() - begun + 2 * EDGE, limits=self._limits())
        finally:
            keeping.view.breaks(None)
            self._renew()
            self.sender.mark("steady")
            self.sender.rate(self._rate())
            self.clock.fast()

    def _renew(self) -> None:
        """Load on the target as it is now, where it was started anew: on other ports perhaps, with another log-in."""
        campaign = self.keeping.campaign
        if campaign.rig.driver.session is not self._session:
            self._session = campaign.rig.driver.session
            self.sender.change(load.orders(self.keeping.plan, campaign))

    def _rate(self) -> float:
        return self.keeping.plan.rate * (GENTLE if self.running is not None else 1.0)

    def _prove(self, case: Case) -> tuple[Operation, ...]:
        """What was asked meanwhile. Its findings count as in every run; a check that crashed is unknown, and no end of a soak."""
        recorded: list[History] = []

        def moved(history: History) -> History:
            recorded.append(history)
            return self.clock.history(history)

        try:
            found = self.keeping.campaign.prove(case, moved)
        except ChaosError:
            raise
        except Exception as error:  # noqa: BLE001
            last = traceback.extract_tb(error.__traceback__)[-1]
            told = f"the check itself crashed: {error!r} ({Path(last.filename).name}:{last.lineno})"
            found = (_finding(case, Outcome.INCONCLUSIVE, told),)
            self.keeping.campaign.add(found)
        self.keeping.view.found(found)
        self.windows += [window for history in recorded for window in history.windows]
        return tuple(one for history in recorded for one in history.operations)

    def _limits(self) -> tuple[float, ...]:
        return tuple(sorted(set(self.keeping.campaign.collector.limits.seconds.values())))

    # -- rounds -------------------------------------------------------------------------------------------------------------------

    def _round(self, planned: Round) -> None:
        """The functional suite, beside the load: on an environment of its own, but on the same target where that is not ours."""
        keeping = self.keeping
        self.running = Running.begin(keeping.campaign, planned, apart=True)
        self.sender.mark("fault")  # it has the machine as well, or the very target: what is slow now may be of our own making
        self.sender.rate(self._rate())
        keeping.view.round = f"round {planned.number} of the functional suite ({planned.profile})"

    def _round_over(self, directory: Path) -> None:
        running, self.running = self.running, None
        self.keeping.view.round = ""
        assert running is not None
        with suppress(ChaosError):
            self.sender.mark("steady")
            self.sender.rate(self._rate())
        self.keeping.found(findings(directory, running.planned))


def _name(planned: Planned) -> str:
    return f"fault {planned.at:.1f} {planned.case}"


def _finding(case: Case, outcome: Outcome, detail: str) -> Finding:
    return Finding(check=case.id, gate=case.gate, outcome=outcome, detail=detail, experiment=case.id)
