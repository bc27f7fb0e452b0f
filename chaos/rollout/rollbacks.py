"""`chaos-gate rollback --drill`: the drills in their order, each an experiment, and the distribution of their times as one more."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from chaos import experiment
from chaos.checks.rollbacks import TIMES, took
from chaos.model import History, now
from chaos.rollout import deploying, rehearsal
from chaos.rollout.releases import FAMILY, planned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.rig import Rig
    from chaos.rollout.releases import Drill

TIMES_FAMILY = "rollback-times"


def rehearse(
    rig: Rig,
    drills: Sequence[Drill],
    *,
    times: int,
    command: Sequence[str],
    record: Callable[[History], bool],
    show: Callable[[str, int, int], None],
) -> None:
    """Each in turn, `times` roll-backs at least, those first that do not apply.

    `record` keeps a history and says whether it was good; `show` is told what is being done, and how many of how many were.
    A candidate's migration that the old release does not work on ends it: nobody can undo that here.
    """
    stage = rehearsal.Stage(rig, command)
    seconds: list[float | None] = []
    started = now()
    try:
        absent = tuple(one for one in drills if one.kind != "deploy" and stage.absent(one))
        order = (*absent, *planned(tuple(one for one in drills if one not in absent), times))
        for done, drill in enumerate(order):
            show(drill.case.title, done, len(order))
            runner = partial(rehearsal.run, drill=drill) if drill.kind != "deploy" else deploying.run
            history = experiment.run(rig, drill.case, {FAMILY: partial(runner, stage=stage)})
            rig.check_parts()
            good = record(history)
            if "given" in history.facts:
                seconds.append(took(history.facts))
            if drill.kind == "candidate" and not good:
                break
    finally:
        stage.end()
    if seconds:
        facts = {
            "gate": "res.rollback",
            "family": TIMES_FAMILY,
            "title": "how long roll-backs take",
            "seconds": json.dumps(seconds),
        }
        record(History(experiment=TIMES, started=started, finished=now(), facts=facts))
