"""A database's life under traffic: each row of `chaos.cases.life`, and PgBouncer in front."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.recovery import WORKING
from chaos.environments.local import bouncer as pgbouncer
from chaos.environments.local import room
from chaos.environments.local.postgres import Postgres
from chaos.errors import CleanupFailed
from chaos.experiment.core import Plan, look_up_writes, serving, under_fault
from chaos.experiment.impostors import Masquerade
from chaos.faults.contention import Aborted, Cancelled, LockStorm, Migration
from chaos.faults.database import Restart, admin
from chaos.faults.life import BackendKilled, DiskFull, Failover, LongRecovery, PostmasterKilled, until
from chaos.faults.wire.rows import BY_ID
from chaos.model import Effect, History, Kind, Rung, now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.cases import Case
    from chaos.environments.local import LocalEnvironment
    from chaos.experiment.core import Recording
    from chaos.faults.database import Server
    from chaos.rig import Rig

ELSEWHERE = "PostgreSQL's processes and files are not within reach in this environment: --backend local plays it"
LONGER = 3.0  # s that what flaps by itself (locks, deadlocks, a full disk) lasts


def run(rig: Rig, case: Case, recording: Recording) -> History:
    """The row that the case names."""
    postgres = rig.environment.postgres
    if case.what in _SPECIAL and isinstance(postgres, Postgres):
        return _SPECIAL[case.what](rig, recording, postgres)
    fault = _anywhere(case.what, postgres)
    if fault is None and isinstance(postgres, Postgres):
        fault = _here(rig, case.what, postgres)
    if fault is None:
        recording.facts["absent"] = ELSEWHERE
        return recording.history()
    history = under_fault(rig, recording, Plan(fault, longest=max(LONGER, rig.driver.deadline + 1.0)))
    return _asked(history, recording, fault)


def _anywhere(what: str, server: Server) -> _Fault | None:
    """What is done to a server by sessions alone."""
    makers = {"locks": LockStorm, "cancelled": Cancelled, "migration": Migration}
    return makers[what](server) if what in makers else None


def _here(rig: Rig, what: str, postgres: Postgres) -> _Fault:
    """What needs its processes or files."""
    conflict = ("life.conflict", "writes end in serialization failures (40001)")
    makers: Mapping[str, Callable[[], _Fault]] = {
        "backend": lambda: BackendKilled(postgres, rig.conninfo),
        "postmaster": lambda: PostmasterKilled(postgres, rig.conninfo),
        "recovery": lambda: LongRecovery(postgres, rig.conninfo),
        "deadlock": lambda: Aborted(postgres, "deadlock", rig.path.sever),
        "conflict": lambda: Aborted(postgres, "conflict", rig.path.sever, *conflict),
    }
    return makers[what]()


_Fault = BackendKilled | PostmasterKilled | LongRecovery | LockStorm | Cancelled | Aborted | Migration


def _asked(history: History, recording: Recording, fault: _Fault) -> History:
    """Not applicable where the target's requests meet none of it: it was in force, and all of them were answered well."""
    if isinstance(fault, BackendKilled | PostmasterKilled | LongRecovery):
        return history
    window = history.windows[0]
    during = [one for one in history.operations if one.kind in WORKING and window.injected <= one.started < window.healed]
    if not window.effect.took and during and all(one.ok for one in during):
        recording.facts["absent"] = f"it was in force, and all {len(during)} requests were answered well: they meet none of it"
    return history


# -- fail-over ------------------------------------------------------------------------------------------------------------------


def _failover(rig: Rig, recording: Recording, primary: Postgres, *, demoted: bool = False) -> History:
    """A synchronous standby is made, takes over, and in the end hands the place back to a copy of itself at the old one."""
    if lacking := primary.lacks("pg_basebackup", "pg_ctl"):
        recording.facts["absent"] = lacking
        return recording.history()
    home = rig.path.wire.upstream
    standby = primary.follower("standby")
    try:
        primary.adjust({"synchronous_standby_names": "'*'"})
        if not until(lambda: _synchronous(primary)):
            return recording.history(control="the standby did not begin to stream")

        def move(port: int) -> None:
            rig.path.wire.upstream = (home[0], port)

        name = "life.demoted" if demoted else "life.failover"
        title = (
            "a planned fail-over, the old primary read-only at the same address" if demoted else "fail-over to a promoted standby"
        )
        fault = Failover(
            primary, standby, standby.promote, lambda: primary.follow(standby), move, rig.conninfo, demoted, name, title
        )
        history = under_fault(rig, recording, Plan(fault))
        if not demoted:
            return history
        recording.facts["row"] = "L2"
        return _found_again(rig, recording, history)
    finally:
        _hand_back(rig, primary, standby, home)


def _found_again(rig: Rig, recording: Recording, history: History) -> History:
    """Whoever keeps read-only sessions takes no writes yet; what it acknowledged is looked up all the same, once they are cut."""
    if history.exited or serving(rig, history.windows[-1].healed):
        return history
    cut = now()
    rig.path.sever()
    if not rig.steady():
        look_up_writes(rig, recording.started)
    found = tuple(one for one in recording.history().operations if one.kind is Kind.READ_BACK and one.started >= cut)
    return replace(history, operations=history.operations + found)


def _synchronous(primary: Postgres) -> bool:
    with admin(primary) as session:
        return session.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is not None


def _hand_back(rig: Rig, primary: Postgres, standby: Postgres, home: tuple[str, int]) -> None:
    """The place in the environment is the old primary's: it is made anew from the promoted one, and takes over from it."""
    started = now()
    if rig.path.wire.upstream == home:  # nothing was promoted, or the clean-up failed: the run ends with that
        primary.adjust({})
        standby.discard()
        return
    primary.rebuild(standby)
    standby.stop("fast")  # waits until the other one has got everything
    primary.promote()
    rig.path.wire.upstream = home
    rig.path.sever()
    standby.discard()
    rig.broken.append((started, now()))


# -- no space left --------------------------------------------------------------------------------------------------------------


def _disk(rig: Rig, recording: Recording, postgres: Postgres) -> History:
    """The WAL moves to a small file system of its own, which is filled; then it is back on the usual one."""
    if lacking := room.lacking():
        recording.facts["absent"] = lacking
        return recording.history()
    started = now()
    try:
        disk = postgres.small_disk()
        rig.broken.append((started, now()))
        if sick := rig.steady():
            return recording.history(control=sick)
        recording.started = now()
        fault = DiskFull(postgres, disk, rig.conninfo)
        return under_fault(rig, recording, Plan(fault))
    finally:
        started = now()
        postgres.usual_disk()
        rig.broken.append((started, now()))


_SPECIAL: Mapping[str, Callable[[Rig, Recording, Postgres], History]] = {
    "failover": _failover,
    "demoted": lambda rig, recording, primary: _failover(rig, recording, primary, demoted=True),
    "disk": _disk,
}


# -- PgBouncer ------------------------------------------------------------------------------------------------------------------


def bouncer(rig: Rig, case: Case, recording: Recording) -> History:
    """The target's address leads to PgBouncer, whose own connections go by the twin path; PostgreSQL behind it crashes, or is another.

    A target that does not work through transaction pooling with nothing broken is not asked.
    """
    postgres = rig.environment.postgres
    if not isinstance(postgres, Postgres):
        recording.facts["absent"] = ELSEWHERE
        return recording.history()
    if lacking := pgbouncer.lacking():
        recording.facts["absent"] = lacking
        return recording.history()
    environment: LocalEnvironment = rig.environment  # type: ignore[assignment]  # whose PostgreSQL it is
    between = environment.bouncer(rig.start_path.port)
    home, started = rig.path.wire.upstream, now()
    try:
        between.start()
        rig.path.wire.upstream = (home[0], between.port)
        rig.path.sever()
        if sick := rig.steady():
            recording.facts["absent"] = (
                f"the target does not work through PgBouncer {between.version} in transaction mode: {sick}"
            )
            return recording.history()
        recording.started = now()
        recording.facts["pgbouncer"] = between.version
        if case.what == "restart":
            return under_fault(rig, recording, Plan(Restart(postgres, "immediate", rig.conninfo)))
        row = BY_ID["C1"]
        return under_fault(rig, recording, Plan(_Behind(Masquerade(row, rig.start_path, row.make(rig.identity)))))
    finally:
        rig.path.wire.upstream = home
        rig.path.sever()
        between.stop()
        rig.broken.append((started, now()))


class _Behind:
    """An impostor behind PgBouncer: it has taken effect when PgBouncer met it and refused it, before its StartupMessage."""

    id, title = "bouncer.impostor", "an impostor behind PgBouncer, which its own TLS leg has to refuse"

    def __init__(self, fault: Masquerade) -> None:
        self._fault = fault

    def inject(self) -> None:
        self._fault.inject()

    def confirm(self) -> Effect:
        until(lambda: any(one.closed for one in self._fault.met()), 4.0)
        time.sleep(0.2)
        met = self._fault.met()
        went_on = [one for one in met if one.reached >= Rung.STARTUP or one.plaintext]
        alerts = sorted({one.alert for one in met if one.alert})
        seen = f"PgBouncer met it {len(met)} times and went on {len(went_on)} times (alerts: {', '.join(alerts) or 'none'})"
        return Effect(took=bool(met) and not went_on, seen=seen, count=len(met))

    def heal(self) -> None:
        self._fault.heal()
        if self._fault.path.wire.errors:
            raise CleanupFailed("the wire failed", remedy="run again", where="wire")
