"""`chaos-gate soak`: what it is asked for becomes a plan, or an old plan goes on; then the work of it, to the last word."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import campaign as campaigns
from chaos.collector import Request
from chaos.config import load
from chaos.errors import UsageError
from chaos.evidence.store import SEGMENTS, STORE, Store
from chaos.model import now
from chaos.session import config_path
from chaos.soak import plan as planning
from chaos.soak import rounds
from chaos.soak.clock import Clock
from chaos.soak.conduct import Conductor
from chaos.soak.judging import judging
from chaos.soak.keeping import LAST, Keeping
from chaos.soak.minutes import FINISHED, STARTED, Left, finished, left_off
from chaos.soak.modelled import RATE, Modelled, functional, known
from chaos.soak.plan import MINUTE, Plan
from chaos.soak.status import Page
from chaos.soak.view import View

if TYPE_CHECKING:
    from chaos.campaign import Campaign

NAME = "soak"
SHOWN = 60  # minutes of a model between two looks at how it stands


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line. None, '' and False: not given."""

    given: str | None = None
    hours: float = 72.0
    rate: float | None = None
    seed: int | None = None
    evidence: str | None = None
    resume: str | None = None
    compress: bool = False
    model: str = ""
    functional: str | None = None
    baseline: str | None = None
    workers: int = 0
    status: str | None = None
    backend: str = "auto"
    command: str = "chaos-gate soak"


def execute(asked: Asked, *, as_json: bool) -> int:
    """Run, conclude, print; returns the exit code. Raises UsageError before anything is started."""
    plan = going_on(asked) if asked.resume else None
    request = _again(asked, plan) if plan is not None else _new(asked)
    with Page.at(asked.status) as page:
        work = partial(_work, asked=asked, plan=plan, page=page)
        model = plan.model if plan is not None else asked.model
        return campaigns.execute(request, work, name=NAME, as_json=as_json, parts=not model)


def _new(asked: Asked) -> Request:
    """A soak from its beginning, checked as far as that costs nothing."""
    planning.checked(asked.hours, _rate(asked))
    if asked.model:
        known(asked.model)
        if not asked.compress:
            raise UsageError("a model has no real clock", remedy="add --compress", where="--model")
    config = load(config_path(asked.given))
    if asked.workers:
        from chaos.soak.sender import distributed  # noqa: PLC0415

        distributed()
    profile = "soak" if asked.hours >= planning.FULL else "smoke"
    if asked.functional:
        rounds.taken(Path(asked.functional), config, profile=profile)
    if asked.baseline:
        Store(Path(asked.baseline) / STORE).close()
    return Request(
        given=asked.given,
        profile=profile,
        evidence=asked.evidence,
        seed=asked.seed,
        command=asked.command,
        backend=asked.backend,
    )


def _rate(asked: Asked) -> float:
    return asked.rate if asked.rate is not None else RATE if asked.model else planning.RATE


def going_on(asked: Asked) -> Plan:
    """The plan of the soak that `--resume` names. UsageError when there is none, it is finished, or chaos.toml is another one now."""
    directory = Path(str(asked.resume))
    plan = planning.read(directory)
    if finished(directory, NAME):
        raise UsageError(
            "this soak is finished: there is nothing to go on with",
            remedy="`chaos-gate recheck` judges it again; a new soak begins a new directory",
            where=str(directory),
        )
    given = asked.given if asked.given is not None else plan.given
    if planning.digest(given) != plan.config:
        raise UsageError(
            "chaos.toml is not the one that this soak was planned with",
            remedy="put the old one back, or begin a new soak: what changed cannot be told from what broke",
            where=str(config_path(given)),
        )
    return replace(plan, given=given)


def _again(asked: Asked, plan: Plan) -> Request:
    return Request(
        given=plan.given,
        profile=plan.profile,
        evidence=str(asked.resume),
        seed=plan.seed,
        command=asked.command,
        backend=plan.backend,
        resume=True,
    )


def _plan(campaign: Campaign, asked: Asked) -> Plan:
    """Drawn and written down, before anything else happens."""
    plan = planning.draw(
        campaign.config,
        hours=asked.hours,
        rate=_rate(asked),
        seed=campaign.seed,
        given=asked.given,
        compress=asked.compress,
        model=asked.model,
        functional=str(Path(asked.functional).resolve()) if asked.functional else "",
        backend=asked.backend,
        workers=asked.workers,
        baseline=str(Path(asked.baseline).resolve()) if asked.baseline else "",
    )
    plan.write(campaign.directory)
    return plan


def _work(campaign: Campaign, *, asked: Asked, plan: Plan | None, page: Page) -> None:
    """Everything between environment and verdict."""
    begun, collector = time.monotonic(), campaign.collector
    (campaign.directory / SEGMENTS / f"{LAST}.sqlite").unlink(missing_ok=True)
    resumed = plan is not None
    plan = plan or _plan(campaign, asked)
    collector.called = plan.called
    account = judging(plan, collector)
    left = left_off(campaign.directory, NAME, account.feed) if resumed else Left()
    collector.findings += left.findings
    _first(campaign, plan, left)
    if not plan.model:
        collector.parts.update(campaign.rig.versions)  # it is brought up now, before the clock begins
    clock = _clock(campaign, plan, left)
    plan = replace(plan, started=left.started or clock.now())
    view = View(plan=plan, collector=collector, judging=account, screen=campaign.screen)
    keeping = Keeping(campaign, plan, account, view)
    page.shows(view)
    try:
        if not left.started:
            keeping.phase(STARTED, plan.started)
            if plan.baseline:
                keeping.compare(Path(plan.baseline))
        if plan.model:
            _model(keeping, left, clock)
        else:
            Conductor(keeping, clock, done=left.done).run()
        keeping.phase(FINISHED)
    finally:
        if plan.compressed:
            collector.notes.insert(0, _compressed(plan, time.monotonic() - begun))
        keeping.conclude()
        view.refresh(clock.now(), ended=True)


def _first(campaign: Campaign, plan: Plan, left: Left) -> None:
    """The round that comes before the load begins: an earlier run's evidence, a model's, or, where the soak is short, a quick one."""
    planned = plan.rounds[0]
    if planned.taken:
        run = rounds.taken(Path(planned.taken), campaign.config, profile=plan.profile)
        campaign.collector.notes.append(rounds.note(run, planned.taken))
    if rounds.name(planned) in left.done:
        return
    if plan.model:
        found = functional(campaign.collector.gates, plan.model)
    elif planned.taken:
        found = rounds.findings(Path(planned.taken), planned)
    elif planned.profile == "quick":
        begun = time.monotonic()
        found = rounds.findings(rounds.Running.begin(campaign, planned, apart=False).wait(campaign), planned)
        campaign.screen.phase("round 0", f"the {planned.profile} suite: {len(found)} findings", time.monotonic() - begun)
    else:
        return  # a night run takes its time: it goes beside the load
    campaign.add(found)
    left.done |= {rounds.name(planned)}


def _clock(campaign: Campaign, plan: Plan, left: Left) -> Clock:
    """The real one; or a simulated one, whose gap is as long as the real one was."""
    if not plan.compressed:
        return Clock()
    if not left.started:
        return Clock(at=now(), factor=plan.factor)
    segment = campaign.directory / SEGMENTS / f"{NAME}.sqlite"
    away = max(MINUTE, time.time() - segment.stat().st_mtime)
    return Clock(at=left.until + away, factor=plan.factor)


def _model(keeping: Keeping, left: Left, clock: Clock) -> None:
    """Minute after minute, as fast as they can be drawn and kept. One that was under way when a run was killed is in the gap."""
    plan = keeping.plan
    modelled = Modelled(plan, keeping.campaign.collector.limits)
    first = math.ceil((clock.now() - plan.started - 1.0) / MINUTE) if left.started else 0
    for number in range(first, math.ceil(plan.seconds / MINUTE - 1e-6)):
        minute = modelled.minute(number)
        if minute is not None:
            keeping.minute(minute)
        if number % SHOWN == 0:
            keeping.view.tick(plan.started + number * MINUTE)


def _compressed(plan: Plan, seconds: float) -> str:
    whose = ", of a model and no service" if plan.model else ""
    return (
        f"compressed: {plan.hours:g} simulated hours in {seconds:.0f} s{whose}; proves the logic and finds what is broken, "
        f"is no {plan.hours:g} h of service"
    )
