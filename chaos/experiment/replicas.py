"""Retry forensics: several instances of the target, each on its own listener, in a long outage; and clients of ours without jitter.

A client's source port changes with every attempt, so each instance is told apart by the port that it was given. An instance that tries
by itself is left alone; one that only tries when asked is asked, one request at a time. Each instance's outage begins when it has been
seen healthy, and they end one after the other, so that their lengths are spread and the server's slots suffice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from chaos.errors import TargetFailed
from chaos.experiment.backoff import BETWEEN, STILL
from chaos.faults.wire import Impostor, Relay, Wire
from chaos.model import Connection, Effect, History, Kind, Operation, Rung, Window, now
from chaos.paths import DatabasePath
from chaos.traffic.driver import wait_for
from chaos.traffic.requests import Session, prepare, send

if TYPE_CHECKING:
    from concurrent.futures import Future

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

WANTED = 12  # instances: enough for intervals that decide (benchmarks/retry_estimators.py)
TOGETHER = 2  # started at once: the server has 40 slots, and the machine perhaps two cores
BRING_UP = 90.0  # s for all of them; those that are there by then have to do
MEMORY = 0.5  # share of what is free that they may take
CONTROLS = 8  # clients of ours
TIMES_RECOVERY, SHORTEST, LONGEST = 4.5, 30.0, 60.0  # s of outage: waits longer than `recovery` have to be seen
LOADED = 5.0  # s at its end in which those that try by themselves are asked as well
AGAIN = 3  # answers in a row that are 'serving again'
EVERY = 0.15  # s between two of those requests


@dataclass
class Replica:
    """One instance: where it is, and what happened to it. Times are `now()`; `asked` is whether it tries only when it is asked."""

    name: str
    wire: Wire
    target: CommandTarget
    session: Session
    onset: float = 0.0
    begun: float = 0.0
    loaded: float = 0.0
    healed: float = 0.0
    lag: float = -1.0
    asked: bool = False
    exited: str = ""
    over: bool = False
    operations: list[Operation] = field(default_factory=list)
    life: Future[None] | None = None

    def met(self, since: float) -> int:
        """Attempts since then that met the impostor."""
        return sum(one.reached >= Rung.SSL_REQUEST for one in self.wire.connections(since) if one.behaviour != "relay")

    def told(self) -> dict[str, object]:
        """For the check."""
        keys = ("name", "onset", "begun", "loaded", "healed", "lag", "asked", "exited")
        return {key: getattr(self, key) for key in keys}


def replicas(rig: Rig, case: Case, recording: Recording) -> History:
    """Bring them up and break them, wait, heal one after the other."""
    if rig.environment.reach.listen:
        recording.facts["absent"] = "instances in containers have two listeners between them: the case needs one for each"
        return recording.history()
    herd = _Herd(rig, case)
    try:
        herd.bring_up()
        if herd.running:
            herd.control()
            herd.wait()
            herd.heal()
    finally:
        herd.stop()
    return herd.recorded(recording)


class _Herd:
    def __init__(self, rig: Rig, case: Case) -> None:
        self.rig, self.case = rig, case
        self.impostor = Impostor(rig.identity(case.what), then="close")
        self.running: list[Replica] = []
        self.controls: list[Wire] = []
        self.why = ""
        self.kept: list[Connection] = []
        self.wanted = rig.config.run.replicas or WANTED
        self._ending = contextlib.ExitStack()
        self._began = now()

    # -- up -------------------------------------------------------------------------------------------------------------------

    def bring_up(self) -> None:
        """As many as are wanted, as time and memory allow."""
        end = time.monotonic() + BRING_UP
        before = psutil.virtual_memory().available
        while len(self.running) < self.wanted and time.monotonic() < end:
            batch = [
                self._made(len(self.running) + number + 1) for number in range(min(TOGETHER, self.wanted - len(self.running)))
            ]
            try:
                for one in batch:
                    one.target.start()
                for one in batch:
                    one.target.wait_ready(self.rig.config.target.startup_timeout)
                    self._healthy(one)
            except TargetFailed as error:
                self.why = f"another instance could not be started: {error.what}"
                return
            for one in batch:
                self._break(one)
            self.running += batch
            self.rig.check_parts()
            if not self._room(before):
                self.why = "no more memory than for these"
                return
        self.why = "" if len(self.running) >= self.wanted else f"no more than these came up in {BRING_UP:.0f} s"

    def _room(self, before: int) -> bool:
        """Whether as many more as in one batch fit into the share of memory that was free before."""
        left = psutil.virtual_memory().available
        each = max(0, before - left) / len(self.running)
        return before - left + TOGETHER * each < MEMORY * before

    def _made(self, number: int) -> Replica:
        name = f"replica {number}"
        wire = Wire(("127.0.0.1", self.rig.environment.postgres.port))
        path = DatabasePath(name, wire, wire.start())
        self._ending.callback(wire.stop)
        made = self.rig.second_instance(f"replica-{number}", path=path)
        self._ending.callback(made.stop)
        return Replica(name, wire, made, Session(self.rig.config.target, ""))

    def _healthy(self, one: Replica) -> None:
        driver = self.rig.driver
        one.session = Session(self.rig.config.target, one.target.base_url, dict(one.target.values))
        driver.call(prepare(one.session, self.rig.config.target.prepare, deadline=driver.deadline))
        if not wait_for(lambda: driver.call(self._ask(one)).ok, self.rig.config.target.startup_timeout, every=0.2):
            raise TargetFailed(f"{one.name} is not healthy", remedy="", where=self.rig.config.target.name)

    def _break(self, one: Replica) -> None:
        one.wire.behave(self.impostor)
        one.onset = one.begun = now()
        one.wire.sever()
        one.life = self.rig.driver.begin(self._outage(one))

    def control(self) -> None:
        """Clients of ours, on listeners of the same kind."""
        for _ in range(CONTROLS):
            wire = Wire(("127.0.0.1", self.rig.environment.postgres.port))
            wire.start()
            self._ending.callback(wire.stop)
            wire.behave(self.impostor)
            self.controls.append(wire)
        root = str(Path(__file__).parents[2])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
        command = [sys.executable, "-m", "chaos.faults.knocking", str(self.rig.environment.postgres.ca_file)]
        process = self.rig.reaper.spawn(
            [*command, *(str(wire.port) for wire in self.controls)],
            name="control",
            cwd=Path(root),
            env=env,
            log=self.rig.run_dir / self.rig.worker / "control.log",
        )
        self._ending.callback(process.stop)

    # -- out of reach ---------------------------------------------------------------------------------------------------------

    async def _ask(self, one: Replica) -> Operation:
        driver = self.rig.driver
        sample = driver.samples[Kind.READ][0]
        done = await send(one.session, sample, deadline=driver.deadline, stall=driver.stalls.between, name=one.name)
        one.operations.append(done)
        return done

    async def _outage(self, one: Replica) -> None:
        """Left alone; asked once when nothing is tried; asked again and again when that is all that makes it try."""
        rng = random.Random(f"{self.rig.seed} {one.name}")  # noqa: S311  (reproducible, not secret)
        await asyncio.sleep(STILL)
        if not one.met(one.onset):
            one.begun = now()
            done = await self._ask(one)
            await asyncio.sleep(STILL)
            one.asked = not one.met(done.finished + 0.05)
            one.begun = now() if one.asked else one.begun
        while not one.asked and not one.loaded and not one.over:  # noqa: ASYNC110  (another thread says so)
            await asyncio.sleep(0.05)
        while not one.over:
            await self._ask(one)
            await asyncio.sleep(rng.uniform(*BETWEEN))

    def wait(self) -> None:
        """Until the last one's outage has been long enough, its end under load."""
        recovery = self.rig.config.target.database.recovery
        length = min(LONGEST, max(SHORTEST, TIMES_RECOVERY * recovery))
        self._until(self.running[-1].onset + length - LOADED)
        for one in self.running:
            one.loaded = now()
        self._until(now() + LOADED)

    def _until(self, end: float) -> None:
        while now() < end:
            self.rig.check_parts()
            time.sleep(0.1)

    # -- back -----------------------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """One after the other; each is seen to serve again and then stopped, for the next one's connections."""
        for one in self.running:
            self._end_life(one)
            one.exited = one.target.exited()
            one.wire.behave(Relay())
            one.healed = now()
            one.wire.sever()
            if not one.exited:
                one.lag = self._served(one)
            self._keep(one.name, one.wire)
            one.target.stop()

    def _served(self, one: Replica) -> float:
        """Seconds to the first of AGAIN good answers in a row; -1 when it never came."""
        end = one.healed + self.rig.config.target.database.recovery + 1.5
        good: list[Operation] = []
        while len(good) < AGAIN and (now() < end or good):
            done = self.rig.driver.call(self._ask(one))
            good = [*good, done] if done.ok else []
            time.sleep(EVERY)
        return good[0].finished - one.healed if good else -1.0

    def _end_life(self, one: Replica) -> None:
        one.over = True
        if one.life is not None:
            with contextlib.suppress(TimeoutError):
                one.life.result(self.rig.driver.deadline + 5.0)

    def stop(self) -> None:
        """All of them, whatever happened."""
        for one in self.running:
            self._end_life(one)
        for number, wire in enumerate(self.controls, 1):
            self._keep(f"control {number}", wire)
        self._ending.close()

    def _keep(self, name: str, wire: Wire) -> None:
        self.kept += [replace(one, client=name) for one in wire.connections(0.0)]

    def recorded(self, recording: Recording) -> History:
        """All of it, as a history."""
        recording.facts |= {
            "replicas": json.dumps([one.told() for one in self.running]),
            "wanted": str(self.wanted),
            "why": self.why,
        }
        started = min((one.onset for one in self.running), default=now())
        healed = max((one.healed for one in self.running), default=now())
        self.rig.broken.append((self._began, now()))  # what goes wrong between these instances and PostgreSQL is our doing
        met = [one.met(one.onset) for one in self.running]
        seen = f"{sum(count > 0 for count in met)} of {len(met)} instances met it, in {sum(met)} attempts"
        effect = Effect(took=any(met), seen=seen, count=sum(met))
        recording.windows.append(Window(fault=self.case.id, scope="", injected=started, healed=healed, effect=effect))
        recording.extra = tuple(done for one in self.running for done in one.operations)
        return replace(recording.history(), connections=tuple(sorted(self.kept, key=lambda one: one.opened)))
