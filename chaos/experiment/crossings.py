"""Network faults crossed with states, directions and lengths; a path that flaps; one replica of two."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.cases.crossings import CROSSED
from chaos.errors import ChaosError
from chaos.experiment.core import Plan, under_fault
from chaos.experiment.faults import arm
from chaos.faults.crossing import BY_ID, Crossing, Flapping, InFlight
from chaos.faults.network import NETWORK, NetworkInjector
from chaos.model import History, Kind, Operation, now
from chaos.traffic.requests import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

SHORT = 0.6  # s
FLAPS = 12
BETWEEN = 0.05  # s between two requests to the other replica


def cross(rig: Rig, case: Case, recording: Recording) -> History:
    """One row of `chaos.cases.crossings`; 'sample' is one of the short ones, by the seed, which the facts name."""
    what = case.what if case.what != "sample" else sample(rig.seed, rig.hides)
    recording.facts["crossing"] = what
    name, state, direction, length = what.split(".")
    path = rig.path
    crossing = Crossing(
        BY_ID[name],
        state,
        direction,
        control=rig.control,
        proxy=path.name,
        conninfo=rig.conninfo,
        port=path.port,
        sever=path.sever,
        flow=lambda: {one.id: (one.bytes_up, one.bytes_down) for one in path.connections(0.0) if not one.closed},
        flight=InFlight(rig.environment.postgres),
    )
    entry = rig.ledger.begin(crossing)
    if sick := arm(rig, crossing, entry):
        return recording.history(control=sick)
    if crossing.armed:
        recording.started = now()
    short, long = length == "short", rig.driver.deadline + 1.0

    def enough() -> bool:
        return short and rig.driver.begun > crossing.began  # a window without a request shows nothing

    plan = Plan(crossing, enough, longest=long, least=SHORT if short else long, entry=entry, idle=state == "idle")
    history = under_fault(rig, recording, plan)
    window = history.windows[0]
    if state == "flight" and not crossing.flight.waiting and not window.effect.took and not recording.exited:
        recording.facts["absent"] = "no query of the target's could be held in flight: its reads and writes use no table"
    return history


def sample(seed: int, hides: Callable[[str], str] = lambda _: "") -> str:
    """The crossing of a quick run: one of those that the environment can show."""
    short = [case.what for case in CROSSED if case.what.endswith(".short") and not hides(case.id)]
    return random.Random(seed).choice(short)  # noqa: S311  (a reproducible choice, not a secret)


def flapping(rig: Rig, case: Case, recording: Recording) -> History:
    """Down and up, again and again, for as long as it takes a dozen times."""
    del case
    rng = random.Random(rig.seed)  # noqa: S311  (a reproducible schedule, not a secret)
    fault = Flapping(rig.control, rig.path.name, rig.path.port, rng)
    return under_fault(rig, recording, Plan(fault, enough=lambda: fault.downs >= FLAPS, longest=FLAPS * 1.0))


def replica(rig: Rig, case: Case, recording: Recording) -> History:
    """A second instance, on a path of its own, is asked all the while; the first one's path becomes a black hole."""
    del case
    other = rig.second_instance("replica")
    try:
        other.start()
        other.wait_ready(rig.config.target.startup_timeout)
    except ChaosError as error:
        other.stop()
        recording.facts["absent"] = f"no second instance of the target comes up beside the first one: {error.what}"
        return recording.history()
    asked: list[Operation] = []
    going = [True]
    asking = rig.driver.begin(_ask(rig, other, asked, going))
    try:
        row = next(fault for fault in NETWORK if fault.id == "blackhole")
        injector = NetworkInjector(row, "pooled", rig.control, rig.path.name, rig.prober, rig.path.sever)
        history = under_fault(rig, recording, Plan(injector, least=rig.driver.deadline, longest=rig.driver.deadline + 1.0))
    finally:
        going.clear()
        asking.result(rig.driver.deadline + 5.0)
        ended = other.exited()
        other.stop()
    window = history.windows[0]
    before = [one for one in asked if one.finished < window.injected]
    during = [one for one in asked if window.injected <= one.started < window.healed]
    bad = [one for one in during if not one.ok]
    recording.facts |= {
        "replica.before": str(sum(one.ok for one in before)),
        "replica.sent": str(len(during)),
        "replica.failed": str(len(bad)),
        "replica.exited": ended,
        "replica.example": f"{bad[0].method} {bad[0].path}: {bad[0].status or bad[0].error}" if bad else "",
    }
    return history


async def _ask(rig: Rig, other: CommandTarget, asked: list[Operation], going: list[bool]) -> None:
    session = replace(rig.driver.session, base_url=other.base_url)
    one = rig.driver.samples[Kind.READ][0]
    while going:
        asked.append(await send(session, one, deadline=rig.driver.deadline, stall=rig.driver.stalls.between))
        await asyncio.sleep(BETWEEN)
