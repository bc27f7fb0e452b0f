"""The restore drill: a disaster in the data under load, and the database put back to the moment before it.

    base backup -> load -> the point -> load -> disaster -> decided -> WAL secured, stopped, recovered to the point -> served again

Two ledgers say what was acknowledged when: the target's own writes, and commits of ours in a database beside the target's, many a
second, so that what the restore lost or kept is known to some hundredths of a second whatever the target does.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from chaos.environments.local.backup import Backups, Point, words
from chaos.environments.local.postgres import Postgres
from chaos.errors import CleanupFailed, PartFailed
from chaos.experiment.core import await_recovery, broken, look_up_writes, serving
from chaos.experiment.life import ELSEWHERE
from chaos.faults.schema import CHANGES, Change, migrate, tables
from chaos.model import Effect, History, Kind, now
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.faults.schema import Table
    from chaos.rig import Rig

# By which recovery target -> what happens then.
DISASTERS = {"time": "drop", "lsn": "empty", "name": "rename"}
WRITES = 20  # acknowledged ones of the target before the point that there have to be, and a quarter of it after
PATIENCE = 15.0  # s for them
NOTICED = 2.0  # s from the disaster to the decision, at the most


def run(rig: Rig, case: Case, recording: Recording) -> History:
    """Facts: 'point.from', 'point.to', 'decided', 'ready', and those of both ledgers (`chaos.checks.restore`)."""
    postgres = rig.environment.postgres
    if not isinstance(postgres, Postgres):
        recording.facts["absent"] = ELSEWHERE
        return recording.history()
    found = tables(postgres)
    if lacking := postgres.lacks("pg_basebackup") or ("" if found else "the target has no tables of its own in its database"):
        recording.facts["absent"] = lacking
        return recording.history()
    backups, started = Backups(postgres), now()
    try:
        backups.begin()
        rig.broken.append((started, now()))
        if rig.steady():  # what does not come through a restart is for other checks: here the restore is to be seen
            rig.restart()
        if sick := rig.steady():
            return recording.history(control=sick)
        recording.started = now()
        return _drill(rig, recording, Drill(rig, recording, backups, case.what, CHANGES[DISASTERS[case.what]], found))
    finally:
        started = now()
        backups.end()
        rig.broken.append((started, now()))


class Commits(threading.Thread):
    """One commit after the other in the database `postgres`, each noted when it was begun and when it was acknowledged."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(name="commits", daemon=True)
        self.conninfo = conninfo
        self.noted: list[tuple[int, float, float]] = []  # number, begun, acknowledged
        self._over = threading.Event()

    def run(self) -> None:
        """Until the server ends it, or `end` does."""
        try:
            with psycopg.connect(self.conninfo, autocommit=True, application_name="chaos-gate") as session:
                session.execute("DROP TABLE IF EXISTS chaos_gate_commits")
                session.execute("CREATE TABLE chaos_gate_commits (n integer NOT NULL)")
                for n in itertools.count():
                    if self._over.wait(0.01):
                        return
                    begun = now()
                    session.execute("INSERT INTO chaos_gate_commits VALUES (%s)", (n,))
                    self.noted.append((n, begun, now()))
        except psycopg.Error:
            return

    def end(self) -> None:
        """Idempotent."""
        self._over.set()
        self.join(10.0)

    def there(self) -> set[int]:
        """Those that the database holds now; the table goes with that."""
        with psycopg.connect(self.conninfo, autocommit=True, application_name="chaos-gate") as session:
            rows = session.execute("SELECT n FROM chaos_gate_commits").fetchall()
            session.execute("DROP TABLE chaos_gate_commits")
        return {int(row[0]) for row in rows}


@dataclass(slots=True)
class Drill:
    """The disaster, and its healer: the restore."""

    rig: Rig
    recording: Recording
    backups: Backups
    kind: str
    change: Change
    tables: tuple[Table, ...]
    point: Point | None = None
    healed: bool = False
    refused: str = ""
    id: str = field(init=False)
    title: str = field(init=False)
    commits: Commits = field(init=False)

    def __post_init__(self) -> None:
        self.id, self.title = f"restore.{self.change.id}", self.change.title
        self.commits = Commits(self.backups.server.admin_conninfo)

    def inject(self) -> None:
        """All tables at once, in one transaction."""
        self.refused = migrate(self.backups.server, self.change.do, self.tables)

    def confirm(self) -> Effect:
        """Whether it happened; and what the target's requests saw of it until somebody decided."""
        started = now()

        def failed() -> list[bool]:
            return [not one.ok for one in self.rig.driver.recorder.since(started) if one.kind is Kind.READ]

        wait_for(lambda: sum(failed()) >= 5, NOTICED)
        seen = failed()
        told = f"{self.title} ({len(self.tables)}); {sum(seen)} of {len(seen)} reads failed until it was decided to go back"
        return Effect(took=not self.refused, seen=self.refused or told, count=sum(seen))

    def heal(self) -> None:
        """Back to the point; by the former server's own WAL where the archive is not enough, which the facts tell."""
        facts = self.recording.facts
        if self.healed or self.point is None:
            return
        facts["decided"] = f"{now():.3f}"
        facts["unsecured"] = self.backups.secure()
        self.commits.end()
        facts["secured"] = f"{now():.3f}"
        try:
            self.backups.restore(self.point)
        except PartFailed as error:
            facts["failed"] = words(error)
            self._reinstate()
        facts["missing"] = json.dumps(self.backups.missing(self.point))
        facts["ready"] = f"{now():.3f}"
        self.healed = True

    def _reinstate(self) -> None:
        assert self.point is not None
        try:
            self.backups.reinstate(self.point)
        except PartFailed as error:
            raise CleanupFailed(
                f"the database could not be put back at all: {words(error)}",
                tail=error.tail,
                remedy="the environment is thrown away with the run; run again",
                where="PostgreSQL",
            ) from error


def _drill(rig: Rig, recording: Recording, drill: Drill) -> History:
    """Everything under load; what was acknowledged is looked up in the end."""
    driver, facts = rig.driver, recording.facts
    driver.begin_clients(rig.live)
    drill.commits.start()
    try:
        started = now()
        drill.backups.take()
        facts["base"] = f"{now() - started:.2f}"
        _written(rig, now(), WRITES)
        facts["point.from"] = f"{now():.3f}"
        drill.point = drill.backups.point(drill.kind)
        facts["point.to"] = f"{now():.3f}"
        facts["point"] = f"{drill.kind} {drill.point.value}"
        _written(rig, now(), WRITES // 4)
        with broken(rig, recording, drill) as seen:
            drill.inject()
            seen.effect = drill.confirm()
        _supervised(rig, recording)
        await_recovery(rig, recording.windows[-1].healed)
    finally:
        drill.commits.end()
        driver.end_clients()
    _own_ledger(drill)
    if serving(rig, recording.windows[-1].healed):
        look_up_writes(rig, recording.started, retried=0)
    return recording.history()


def _written(rig: Rig, since: float, count: int) -> None:
    """Until the target has acknowledged so many more writes; a second where it takes none."""
    if not rig.driver.samples[Kind.WRITE]:
        time.sleep(1.0)
        return

    def acknowledged() -> int:
        return sum(one.kind is Kind.WRITE and one.ok and one.started >= since for one in rig.driver.recorder.since(since))

    wait_for(lambda: acknowledged() >= count, PATIENCE)


def _supervised(rig: Rig, recording: Recording) -> None:
    """A service may end when its tables are gone: whoever runs it starts it again, and the time for that counts."""
    rig.check_parts()
    if rig.target.exited():
        recording.facts["ended"] = rig.target.exited()
        rig.restart()


def _own_ledger(drill: Drill) -> None:
    """Our own commits by what became of them: facts 'commits.*' (numbers), and 'rpo' in seconds."""
    facts, noted = drill.recording.facts, drill.commits.noted
    start, end = float(facts["point.from"]), float(facts["point.to"])
    there = drill.commits.there()
    before = [one for one in noted if one[2] < start]
    after = [one for one in noted if one[1] > end]
    last = max((acknowledged for n, _, acknowledged in noted if n in there), default=0.0)
    facts["commits.before"] = str(len(before))
    facts["commits.lost"] = str(sum(n not in there for n, _, _ in before))
    facts["commits.after"] = str(len(after))
    facts["commits.beyond"] = str(sum(n in there for n, _, _ in after))
    facts["rpo"] = f"{max(0.0, end - last):.3f}"
