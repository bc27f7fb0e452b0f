"""Recovery as a distribution: from the moment a fault had gone to the first moment from which success holds, outage after outage.

Never recovering counts as a miss, and so does too late. How many had none says what share of all outages the target comes through:
59 of 59 prove 95 % at 95 % confidence, five of five only 54.9 % (Clopper and Pearson, 1934; chaos.statistics).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.recovery import EXPECTED, describe, late, recovery
from chaos.model import Finding, Kind, Outcome
from chaos.statistics import upper

if TYPE_CHECKING:
    from chaos.checks.limits import Limits
    from chaos.model import History, Operation, Window


def check(history: History, limits: Limits) -> Finding:
    """The finding: `n` outages, `bad` of them misses, `measured` the slowest recovery in seconds."""
    base = Finding(
        check=history.experiment,
        gate=history.facts["gate"],
        outcome=Outcome.INCONCLUSIVE,
        detail="nothing was broken",
        expected=EXPECTED.format(fail_fast=limits.fail_fast, recovery=limits.recovery),
    )
    # One that did not strike says nothing, and is not counted.
    struck = [window for window in history.windows if window.effect.took]
    if not struck:
        return base
    ends = [*(window.injected for window in history.windows[1:]), float("inf")]
    until = {window.injected: end for window, end in zip(history.windows, ends, strict=True)}
    seconds = [_seconds(history, window, until[window.injected]) for window in struck]
    slow = list({id(one): one for window in struck for one in _late(history, window, until[window.injected], limits)}.values())
    missed = [one for one in seconds if one is None or one > limits.recovery + limits.slack]
    never = sum(one is None for one in seconds)
    bad = max(len(missed), int(bool(slow or history.exited)))
    came = sorted(one for one in seconds if one is not None)
    told = [f"{len(struck) - len(missed)} of {len(struck)} outages recovered from in time"]
    told += [f"{never} never"] if never else []
    told += [f"P50 {_at(came, 0.5):.2f} s, P90 {_at(came, 0.9):.2f} s, slowest {came[-1]:.2f} s"] if came else []
    told += [f"{len(slow)} requests were not answered within {limits.fail_fast:g} s"] if slow else []
    told += [f"the target ended ({history.exited})"] if history.exited else []
    told += [] if bad else [f"so at least {1 - upper(0, len(struck)):.1%} of such outages are (95 %)"]
    return replace(
        base,
        outcome=Outcome.FAIL if bad else Outcome.PASS,
        detail="; ".join(told),
        n=len(struck),
        bad=bad,
        measured=came[-1] if came else None,
        examples=tuple(describe(one) for one in slow[:3]),
    )


def _seconds(history: History, window: Window, until: float) -> float | None:
    """Of what was sent before the next outage began, and answered before it too: what that broke is not this one's."""
    these = tuple(one for one in history.operations if one.finished <= until)
    return recovery(these, window.healed).seconds


def _late(history: History, window: Window, until: float, limits: Limits) -> list[Operation]:
    these = tuple(one for one in history.operations if one.started < until)
    return [one for one in late(these, window, limits) if one.kind is not Kind.PREPARE]


def _at(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
