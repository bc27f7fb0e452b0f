"""Is the candidate within 5 % of the baseline? One finding for rel.delta, from intervals of both under one load (experiment.delta)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from chaos.checks.longrun.delta import BASELINE, CANDIDATE, Arm, judged

if TYPE_CHECKING:
    from chaos.checks.limits import Limits
    from chaos.model import Finding, History, Interval


def check(history: History, limits: Limits) -> Finding:
    """'delta'. A block of the bootstrap is one stretch of time, in which both were asked."""
    del limits
    return judged(_arm(history, BASELINE), _arm(history, CANDIDATE), recorded=False, paired=True)


def _arm(history: History, release: str) -> Arm:
    stretches: dict[float, list[Interval]] = defaultdict(list)
    for one in history.intervals:
        if one.release == release:
            stretches[one.started].append(one)
    arm = Arm()
    for _, together in sorted(stretches.items()):
        arm.add(together)
    return arm
