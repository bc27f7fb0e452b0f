"""What judges a soak while it goes on: the pure judging of long runs, told what it has to know of the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.longrun import Account

if TYPE_CHECKING:
    from chaos.collector import Collector
    from chaos.soak.plan import Plan


def judging(plan: Plan, collector: Collector) -> Account:
    """Fed with each history as it is recorded."""
    del plan
    return Account(collector.limits)
