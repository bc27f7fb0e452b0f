"""A roll-back, rehearsed: a bad release beside the good one behind an edge, and the one command that undoes it.

Nothing here judges; what a rehearsal leaves is a History whose facts `chaos.checks.rollbacks` reads. The database is that of the run,
so what a candidate's migration did to it stays: those drills come last.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from chaos import watchdog
from chaos.checks.shapes import compare
from chaos.errors import ChaosError
from chaos.experiment.asking import ask
from chaos.experiment.contract import Release, ask_all
from chaos.faults.schema import CHANGES, Table, migrate, statements, tables
from chaos.model import Kind, now
from chaos.rollout import releases, undo
from chaos.rollout.drill import MORE, SEEING, command_given, probe, seen, steady_after, wrong_ca
from chaos.rollout.rollback import State
from chaos.traffic.driver import wait_for
from chaos.traffic.requests import Session

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.cases import Case
    from chaos.environments import Edge
    from chaos.experiment import Recording
    from chaos.model import History, Operation
    from chaos.rig import Rig
    from chaos.rollout.releases import Drill
    from chaos.targets import CommandTarget

ROUNDS = 2  # times that all requests are asked before a drill, and after it
WATCH = 0.7  # s for which what was rolled back is watched
ASKED = 2  # reads, and as many writes, that the old release is asked by itself while the new schema is there


@dataclass
class Stage:
    """What the drills of one run share: the bad releases, and what is known of the good one."""

    rig: Rig
    command: Sequence[str]
    made: dict[object, CommandTarget | str] = field(default_factory=dict)
    good: Release = field(init=False)
    tables: tuple[Table, ...] = ()
    migrated: bool = False  # by the candidate's own setup
    unverified: bool = False  # the target's database connections verify nothing
    _fresh: str | None = None

    def __post_init__(self) -> None:
        self.good = Release(self.rig.driver.session, self.rig.config.target)
        if self.rig.injects:
            self.tables = tables(self.rig.environment.postgres)

    @property
    def room(self) -> Path:
        """Where states and logs of the drills are."""
        return self.rig.run_dir / self.rig.worker

    def absent(self, drill: Drill) -> str:
        """Why this drill cannot be had of this target; '' when it can. Starts its bad release."""
        target, change = self.rig.config.target, releases.KINDS[drill.kind].change
        if drill.kind == "candidate" and (target.candidate is None or target.candidate.setup == target.setup):
            return "no [target.candidate] with a `setup` of its own"
        if change in CHANGES and not self.tables:
            return "the target has no tables of its own in its database"
        if drill.stopped and target.image:
            return "the target is an image: its engine starts it again, and no command that a roll-back could know"
        if drill.stopped and (why := self.fresh()):
            return why
        bad = self.bad(drill.kind)
        if not isinstance(bad, str) and self.unverified and change != "rename" and drill.kind != "hosts":
            return "an instance with a wrong CA file serves as well as any: it is no bad release, and sec.verify_full says why"
        return bad if isinstance(bad, str) else ""

    def bad(self, kind: str) -> CommandTarget | str:
        """The bad release, started (it need not come up); or why it cannot be made."""
        make = releases.KINDS[kind].make
        if make not in self.made:
            made = make(self.rig)
            if not isinstance(made, str):
                made.start()
                with suppress(ChaosError):
                    made.wait_ready(3.0)
                    self.unverified |= make is wrong_ca and self._answers(made)
            if make is releases.wrong_hosts and not isinstance(made, str) and self._answers(made):
                made.stop()
                made = f"an instance whose settings do not name {self.rig.config.target.host} serves it all the same"
            self.made[make] = made
        return self.made[make]

    def fresh(self) -> str:
        """Why a fresh instance cannot take over from one that was stopped; '' when it can. It is tried once."""
        if self._fresh is None:
            made = self.rig.second_instance("fresh", path=self.rig.path)
            try:
                made.start()
                made.wait_ready(self.rig.config.target.startup_timeout)
                known = self._answers(made)
                self._fresh = "" if known else "a fresh instance does not know what [[target.prepare]] got from another one"
            except ChaosError as error:
                self._fresh = f"a second instance does not come up beside the first: {error.what}"
            finally:
                made.stop()
        return self._fresh

    def _answers(self, made: CommandTarget) -> bool:
        """Whether it answers every read well, with the values that the good one gave."""
        session = self.session(made.base_url)
        return all(ask(self.rig.driver, session, one, client="drill").operation.ok for one in self.rig.driver.samples[Kind.READ])

    def session(self, base_url: str) -> Session:
        """The driver's, at another address."""
        here = self.rig.driver.session
        return Session(here.target, base_url, dict(here.values), here.extra_headers)

    def end(self) -> None:
        """Stop the bad releases."""
        for one in self.made.values():
            if not isinstance(one, str):
                one.stop()


@dataclass(slots=True)
class Scene:
    """One drill: its ports and edge, and the instance that is started again where the old release was stopped."""

    stage: Stage
    drill: Drill
    ports: dict[str, int]
    edge: Edge
    again: CommandTarget | None

    @property
    def good(self) -> str:
        """Which upstream a roll-back leads to."""
        return "again" if self.again else "good"

    def state(self) -> State:
        """All that the one command has to know."""
        rig, change = self.stage.rig, CHANGES.get(releases.KINDS[self.drill.kind].change)
        start, env = self.again.recipe() if self.again else ((), {})
        plan: tuple[tuple[str, ...], ...] = ()
        if change is not None and change.id == "rename":
            file = self.stage.room / "undo.sql"
            file.write_text(
                ";\n".join(one.as_string(None) for one in statements(change.undo, self.stage.tables)), encoding="utf-8"
            )
            postgres = rig.environment.postgres
            env[undo.CONNINFO] = make_conninfo(postgres.admin_conninfo, dbname=postgres.app_database)
            plan = ((sys.executable, "-m", "chaos.rollout.undo", str(file)),)
        return State(
            url=f"http://127.0.0.1:{self.edge.port}",
            good=self.good,
            admin_url=self.edge.admin_url,
            upstreams=self.ports,
            start=start,
            env=env | ({watchdog.VARIABLE: f"{rig.reaper.mark}/again"} if start else {}),
            cwd=str(rig.config.target.cwd),
            log=str(self.log) if start else "",
            undo=plan,
            **probe(rig),
        )

    @property
    def log(self) -> Path:
        """Of the instance that is started again."""
        return self.stage.room / "again.log"


def run(rig: Rig, case: Case, recording: Recording, *, stage: Stage, drill: Drill) -> History:
    """One rehearsal; facts as `chaos.rollout.drill` has them, and 'code.only', 'shapes', 'percent', 'stopped', 'schema'."""
    del case
    facts = recording.facts
    if absent := stage.absent(drill):
        facts["absent"] = absent
        return recording.history()
    kind = releases.KINDS[drill.kind]
    facts |= {"release": kind.title, "percent": str(drill.percent), "schema": kind.change}
    stage.good.session = rig.driver.session
    recording.extra = ask_all(rig, stage.good, ROUNDS)
    with ExitStack() as ending:
        scene = _scene(stage, drill, ending)
        place = stage.room / "rollout.json"
        state = scene.state()
        state.write(place)
        rig.driver.session.base_url = state.url
        rig.driver.begin_clients(None)
        ending.callback(rig.driver.end_clients)
        time.sleep(0.5)
        if refused := _put_out(scene, recording, ending):
            if drill.kind == "candidate":
                return recording.history(control=refused)
            facts["absent"] = refused
            return recording.history()
        command_given([*stage.command, "rollback", "--state", str(place)], facts, rig.run_dir)
        steady_after(rig, facts)
        time.sleep(WATCH)
        rig.driver.end_clients()
        if facts.get("steady.after"):
            for sample in rig.driver.samples[Kind.WRITE]:  # the writer may have waited for the bad release all the while
                rig.driver.once(sample)
            rig.driver.read_back(
                [one for one in rig.driver.recorder.since(recording.started) if one.kind is Kind.WRITE and one.ok]
            )
            recording.extra += _contract(stage, facts, scene)
        return recording.history()


def _scene(stage: Stage, drill: Drill, ending: ExitStack) -> Scene:
    """The edge, all requests to the good release; everything is put back by `ending`."""
    rig, bad = stage.rig, stage.bad(drill.kind)
    assert not isinstance(bad, str)
    again = rig.second_instance("again", path=rig.path) if drill.stopped else None
    ports = {"good": rig.target.address[1], "bad": bad.address[1]} | ({"again": again.address[1]} if again else {})
    edge = rig.environment.edge(ports)
    ending.callback(edge.stop)
    made = Scene(stage, drill, ports, edge, again)
    session, direct = rig.driver.session, rig.driver.session.base_url
    ending.callback(_back, made, session, direct)
    return made


def _back(scene: Scene, session: Session, direct: str) -> None:
    """The rig as it was: its own target, asked directly."""
    session.base_url = direct
    if scene.again is not None:
        _end_again(scene)
        scene.stage.rig.renew()


def _end_again(scene: Scene) -> None:
    """The instance that the command has started; it belongs to nobody, as a release that operators start does."""
    file = scene.log.with_name(f"{scene.log.name}.pid")
    with suppress(OSError, ValueError):
        pid = int(file.read_text(encoding="ascii"))
        file.unlink()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(pid, number)
            if wait_for(lambda: not watchdog.start_time(pid), 5.0):
                return


def _put_out(scene: Scene, recording: Recording, ending: ExitStack) -> str:
    """The migration and then the weights, as a roll-out has it, until the bad release has been seen; '' or why it cannot be."""
    rig, drill, facts = scene.stage.rig, scene.drill, recording.facts
    facts["bad.from"] = str(now())
    if refused := _migrate(scene, ending):
        return refused
    scene.edge.set_weights({"good": 100 - drill.percent, "bad": drill.percent})
    for _ in range(MORE):
        rig.driver.add_reader()
    wait_for(lambda: seen(rig, float(facts["bad.from"])), SEEING)
    if facts["schema"]:
        facts["code.only"] = _old_release(scene)
    if drill.stopped:
        rig.target.stop()
        facts["stopped"] = "true"
    facts["bad.to"] = str(now())
    return ""


def _migrate(scene: Scene, ending: ExitStack) -> str:
    """What the release does to the schema; '' or why it could not be done."""
    stage, change = scene.stage, releases.KINDS[scene.drill.kind].change
    if change == "candidate" and not stage.migrated:
        try:
            stage.rig.candidate()
        except ChaosError as error:
            return f"the candidate's setup failed: {error.what}"
        stage.migrated = True
    if change not in CHANGES:
        return ""
    row, server = CHANGES[change], stage.rig.environment.postgres
    these = [one for one in stage.tables if row.triggered or not one.triggered]
    if refused := migrate(server, row.do, these):
        return f"PostgreSQL refuses {row.title} here: {refused}"
    if change == "rename":  # where the roll-back did not undo it, the rest of the run needs it undone
        ending.callback(migrate, server, row.undo, these)
    return ""


def _old_release(scene: Scene) -> str:
    """'3 of 4': how many requests the old release itself failed on the new schema, asked directly, past the edge."""
    rig, direct = scene.stage.rig, scene.stage.session(f"http://127.0.0.1:{scene.ports['good']}")
    samples = [one for kind in (Kind.READ, Kind.WRITE) for one in rig.driver.samples[kind][:ASKED]]
    asked = [ask(rig.driver, direct, one, client="drill").operation for one in samples]
    return f"{sum(not one.ok for one in asked)} of {len(asked)}"


def _contract(stage: Stage, facts: dict[str, str], scene: Scene) -> tuple[Operation, ...]:
    """The answers after the roll-back beside those of before, as shapes; asked more often where they differ."""
    port = scene.ports[scene.good]
    after = Release(stage.session(f"http://127.0.0.1:{port}"), stage.good.target)
    asked = ask_all(stage.rig, after, ROUNDS)
    before = stage.good.recorded().shapes
    if any(one.breaking for key, each in after.recorded().shapes.items() for one in compare(before[key]["all"], each["all"])):
        asked += ask_all(stage.rig, after, 2 * ROUNDS)
    sides = {
        key: {
            "baseline": before[key]["all"],
            "first": before[key]["first"],
            "second": before[key]["second"],
            "candidate": each["all"],
        }
        for key, each in after.recorded().shapes.items()
    }
    facts["shapes"] = json.dumps(sides)
    return asked
