"""Judging a long run: minutes in, hours, budget, trends and findings out. Pure, streaming, the same from disk as while it runs.

    account = Account(limits)
    for history in histories: account.feed(history)        # in order of time; what is no minute of a soak is passed over
    account.findings(), account.hours(), account.streak(), account.budget(), account.anomalies()

docs/long-runs.md has what each gate holds against the hours. Nothing is kept of a minute but counts: a few numbers a minute, a few
dozen an hour, four histograms in all, whatever the rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.checks.longrun.account import Account, Budget
from chaos.checks.longrun.delta import compared, recorded
from chaos.checks.longrun.oddities import Anomaly

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.checks.limits import Limits
    from chaos.model import Finding, History


def judge_run(histories: Iterable[History], limits: Limits) -> tuple[Finding, ...]:
    """What a whole run comes to; () when it holds no minute of a soak."""
    account = Account(limits)
    for history in histories:
        account.feed(history)
    return account.findings()


__all__ = ["Account", "Anomaly", "Budget", "compared", "judge_run", "recorded"]
