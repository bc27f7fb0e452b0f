"""What a pool makes of dead connections, and of queries that fail: the drain of stale ones, and whether errors leak connections."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Literal

from chaos.errors import CleanupFailed
from chaos.experiment.core import note_exit
from chaos.faults.database import OURS, Locks, admin
from chaos.faults.probe import PROBE_NAME
from chaos.model import Effect, History, Kind, Window, now
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.faults.database import Server
    from chaos.rig import Rig

IDLE = 0.4  # s without a request: connections are back in the pool, and those that died are noticed by who looks
IN_A_ROW = 3  # good answers: it serves again
MOST = 10  # sizes that are tried, evenly spread over more
UNHEARD = 20.0  # s
BETWEEN = 0.05  # s between two requests
ROUNDS, AT_ONCE = 4, 6  # rounds of errors, queries in each
REST = 0.6  # s after which sessions are counted
SAVED = "SELECT state, count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> ALL (%s) GROUP BY state"


# -- the drain of stale connections -------------------------------------------------------------------------------------------------


def stale(rig: Rig, case: Case, recording: Recording) -> History:
    """While nobody asks, k of the target's connections die; then it is asked, one request at a time, until it serves again."""
    how: Literal["rst", "hole"] = "hole" if case.what == "hole" else "rst"
    standing = _standing(rig)
    if not standing:
        recording.facts["absent"] = "it keeps no connection while nobody asks: none can be stale"
        return recording.history()
    sizes = range(1, standing + 1) if case.nightly else (standing,)
    step = -(-len(sizes) // MOST)
    drains = []
    for size in (*sizes[:-1:step], sizes[-1]):
        if (recording.windows and rig.steady()) or rig.target.exited():
            break
        time.sleep(IDLE)
        drains.append(_drained(rig, recording, how, size))
    recording.facts |= {"drains": json.dumps(drains), "how": how}
    note_exit(rig, recording)
    return recording.history()


def _standing(rig: Rig) -> int:
    """The target's connections that stand while nobody asks."""
    time.sleep(IDLE)
    return sum(one.established and not one.closed for one in rig.path.connections(0.0))


def _drained(rig: Rig, recording: Recording, how: Literal["rst", "hole"], size: int) -> dict[str, float]:
    sample = rig.driver.samples[Kind.READ][0]
    database = rig.config.target.database
    injected = now()
    died = rig.path.wire.kill(how, size)
    time.sleep(BETWEEN if how == "rst" else IDLE)
    asked = now()
    longest = database.recovery + 1.0
    if (
        how == "hole"
    ):  # each may cost a request its time, and some drivers wait a quarter of a minute for a close that nobody hears
        longest += died * database.fail_fast + UNHEARD
    good = failed = 0
    slowest = 0.0
    again = -1.0
    while good < IN_A_ROW and now() < asked + longest and not rig.target.exited():
        done = rig.driver.once(sample)
        slowest = max(slowest, done.seconds)
        if done.ok and not good:
            again = done.finished - asked
        failed += not done.ok
        good = good + 1 if done.ok else 0
        time.sleep(BETWEEN)
    if how == "hole":
        rig.path.sever()
    healed = now()
    rig.broken.append((injected, healed))
    seen = f"{died} idle connections " + ("reset" if how == "rst" else "turned into black holes") + ", counted on the wire"
    effect = Effect(took=died > 0, seen=seen, count=died)
    recording.windows.append(Window(fault=f"stale.{how}", scope=str(died), injected=injected, healed=healed, effect=effect))
    at_once = sum(injected <= one.opened < injected + 0.1 for one in rig.path.connections(injected))
    told = {"died": died, "failed": failed, "slowest": slowest, "again": again if good else -1.0, "longest": longest}
    return {**told, "at_once": at_once}


# -- errors that leak ---------------------------------------------------------------------------------------------------------------


def leak(rig: Rig, case: Case, recording: Recording) -> History:
    """Rounds of queries that fail, by a cancel from the server's side; after each it must serve, with as many sessions as before."""
    server = rig.environment.postgres
    rounds = []
    cancelled = 0
    for _ in range(ROUNDS):
        injected = now()
        count, locked = _failing(rig, server)
        healed = now()
        rig.broken.append((injected, healed))
        effect = Effect(took=count > 0, seen=f"{count} queries cancelled at {locked} locked tables", count=count)
        recording.windows.append(Window(fault=case.id, scope="", injected=injected, healed=healed, effect=effect))
        cancelled += count
        sick = rig.steady() if not rig.target.exited() else ""
        time.sleep(REST)
        rounds.append({"sessions": _sessions(server), "sick": sick, "cancelled": count})
        if sick or rig.target.exited():
            break
    recording.facts["rounds"] = json.dumps(rounds)
    note_exit(rig, recording)
    if not cancelled and not recording.exited:
        recording.facts["absent"] = "all tables were locked, and none of its queries came to wait: there is none to fail"
    return recording.history()


def _failing(rig: Rig, server: Server) -> tuple[int, int]:
    """Some requests at once, whose queries are cancelled until all of them are answered: queries cancelled, tables locked."""
    locks = Locks(server, _nothing, time.sleep)
    sample = rig.driver.samples[Kind.READ][0]
    count = 0
    try:
        locks.inject()
        with admin(server) as session:
            asking = [rig.driver.ask(sample, name="failing") for _ in range(AT_ONCE)]

            def over() -> bool:
                nonlocal count
                rows = session.execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = %s AND wait_event_type = 'Lock'",
                    (server.app_user,),
                ).fetchall()
                count += len(rows)
                return all(one.done() for one in asking)

            if not wait_for(over, rig.driver.deadline + 5.0, every=0.05):
                raise CleanupFailed("requests do not end", remedy="run again", where="the suite's own traffic")
    finally:
        locks.heal()
    return count, locks.locked


def _nothing() -> None:
    """No more requests than those at once."""


def _sessions(server: Server) -> dict[str, int]:
    """The target's sessions by state, as PostgreSQL has them."""
    with admin(server) as session:
        rows = session.execute(SAVED, (server.app_user, [*OURS, PROBE_NAME])).fetchall()
    return {str(state): int(str(count)) for state, count in rows}
