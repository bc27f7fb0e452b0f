"""`chaos-gate run --plan`: what a run would break, whom that reaches and for how long, before anything is. Nothing is injected.

A Toxiproxy that others run is looked at (two GETs), so that the plan speaks of what is there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from chaos.cases import due, select
from chaos.config import load
from chaos.environments.remote import RemoteEnvironment, refusal
from chaos.evidence import words
from chaos.experiment import remote
from chaos.experiment.core import HOLD
from chaos.faults import schedule
from chaos.faults.network import NETWORK, SLOW
from chaos.session import ONCE, REPEATS, config_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chaos.cases import Case
    from chaos.config import Config

OWN = "only what this run starts: a PostgreSQL, a Toxiproxy and instances of the target of its own"


def write(directory: Path, cases: Iterable[Case], *, seed: int, profile: str) -> list[tuple[str, int]]:
    """schedule.json: what this run is going to do, in order, before it does any of it; overlapping faults step by step.

    With the seed it is all that is drawn, so that nobody can say afterwards that a run stopped where it looked best. Returns each
    experiment, with how often it will be run.
    """
    chosen = list(cases)
    planned = [(case.id, 1 if case.family in ONCE or case.reason else REPEATS[profile]) for case in chosen]
    drawn = [
        {"experiment": case.id, "times": times}
        | ({"schedule": schedule.spelt(schedule.of(case.what, seed))} if case.family == "schedule" else {})
        for case, (_, times) in zip(chosen, planned, strict=True)
    ]
    (directory / "schedule.json").write_text(
        json.dumps({"seed": seed, "profile": profile, "experiments": drawn}, indent=1) + "\n", encoding="utf-8"
    )
    return planned


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One experiment: `seconds` that something is broken (least, most), `times` it is repeated, `reaches` whom, `refused` why not."""

    check: str
    breaks: str
    reaches: str
    seconds: tuple[float, float]
    times: int
    refused: str = ""


def steps(config: Config, only: tuple[str, ...], profile: str, attached: RemoteEnvironment | None = None) -> list[Step]:
    """Everything that a run with these options would do, in order, and what it would not do, with why."""
    return [
        Step(
            check=case.id,
            breaks=case.title if case.injects else "nothing",
            reaches=_reaches(case, attached) if case.injects and not case.absent(config) else "requests to the target",
            seconds=_seconds(case, config),
            times=1 if case.family in ONCE else REPEATS[profile],
            refused=case.absent(config),
        )
        for case in select(only)
        if due(case, only, profile)
    ]


def _reaches(case: Case, attached: RemoteEnvironment | None) -> str:
    if attached is None:
        return OWN
    row = next(row for row in (*NETWORK, SLOW) if row.id == (case.what or case.family))
    cut = case.scope == "new" or row.arm or row.disable
    return (
        f"everybody who reaches {attached.upstream} through proxy {attached.proxy!r} at {attached.toxiproxy_url}, "
        f"the target and all others{': all their connections are closed' if cut else ''}"
    )


def _seconds(case: Case, config: Config) -> tuple[float, float]:
    """How long something is broken. The longest is a target that hangs: until its deadline has passed (see `experiment.core`)."""
    if not case.injects:
        return 0.0, 0.0
    database = config.target.database
    deadline = database.fail_fast + max(2.0, database.fail_fast * 0.5) + 1.0
    most = {"wire": max(deadline, database.recovery + 2.0), "start": 2 * config.target.startup_timeout}
    return HOLD, most.get(case.ability, deadline)


def show(given: str | None, only: tuple[str, ...], profile: str, *, as_json: bool) -> int:
    """Print it; 0."""
    config = load(config_path(given))
    attached = None
    if config.target.url is not None and not refusal(config):
        attached = RemoteEnvironment(config.environment)
        attached.start()
    plan = steps(config, only, profile, attached)
    sys.stdout.write(json.dumps([asdict(step) for step in plan], indent=2) + "\n" if as_json else _text(config, plan, attached))
    return 0


def _text(config: Config, plan: list[Step], attached: RemoteEnvironment | None) -> str:
    does = [step for step in plan if not step.refused]
    breaking = [step for step in does if step.seconds[1]]
    where = config.target.url or "started by the run"
    lines = [f"plan for {config.target.name} ({where}): nothing is injected now", ""]
    if attached is not None:
        others = f", which holds {', '.join(attached.toxics)}: kept" if attached.toxics else ""
        lines += [f"proxy      {attached.proxy} at {attached.toxiproxy_url} -> {attached.upstream}{others}"]
        if breaking:
            lines += [f"at first   {remote.TITLE}, for at most {words.duration(remote.longest(config))}"]
    lines += [f"stops at   {_abort(config)}", ""]
    for step in does:
        least, most = step.seconds
        lasts = f"{words.duration(least)} to {words.duration(most)}" if most else "nothing is broken"
        lines += [
            f"  {step.check}{f' x {step.times}' if step.times > 1 else ''}: {step.breaks}" if most else f"  {step.check}: {lasts}"
        ]
        if most:
            lines += [f"      lasts {lasts}, reaches {step.reaches}"]
    reasons = dict.fromkeys(step.refused for step in plan if step.refused)
    for why in reasons:
        names = ", ".join(step.check for step in plan if step.refused == why)
        lines += ["", f"not run: {why}", f"      {names}"]
    least, most = (sum(step.seconds[end] * step.times for step in breaking) for end in (0, 1))
    total = f"broken for {words.duration(least)} to {words.duration(most)} in all" if breaking else "nothing would be broken"
    lines += ["", f"{words.plural(len(breaking), 'fault')}, {total}; each is written to the ledger first, and healed at its end"]
    return "\n".join(lines) + "\n"


def _abort(config: Config) -> str:
    abort = config.environment.abort
    if abort is None:
        return "no condition ([environment] abort), and Ctrl-C"
    told = [
        f"more than {abort.error_rate:.0%} of the requests of {abort.over:g} s failed" if abort.error_rate else "",
        f"a median request above {abort.latency:g} s over {abort.over:g} s" if abort.latency else "",
        f"{abort.file} exists" if abort.file else "",
        f"{abort.url} says so" if abort.url else "",
    ]
    return ", or ".join([*filter(None, told), "Ctrl-C"])
