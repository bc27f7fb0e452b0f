"""Does the target come through an outage of its database: answered meanwhile, alive meanwhile, serving again in time?

One finding an experiment, for res.backoff, res.network or res.pool. Four things are looked at, each a sentence in the finding:
answered (every request got some answer within `fail_fast`), alive (the liveness path kept answering 2xx: it touches no database),
recovered (success holds from at most `recovery` seconds after the fault had gone), running (the process did not exit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.model import Finding, History, Kind, Operation, Outcome, Window

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

WORKING = (Kind.READ, Kind.WRITE)
EXPECTED = (
    "every request is answered within fail_fast = {fail_fast:g} s, liveness holds, and success holds from recovery = {recovery:g} s "
    "after the fault has gone (chaos.toml [target.database])"
)


@dataclass(frozen=True, slots=True)
class Recovery:
    """`seconds` from the heal to the first success that held; None when it never came. `failures` counts the misses on the way."""

    seconds: float | None
    failures: int


def recovery(operations: tuple[Operation, ...], healed: float) -> Recovery:
    """From the moment the fault had gone to the first moment from which success holds, over requests sent after that moment."""
    after = sorted((one for one in operations if one.kind in WORKING and one.started >= healed), key=lambda one: one.started)
    missed = [one for one in after if not one.ok]
    last = max((one.started for one in missed), default=healed)
    held = [one for one in after if one.ok and one.started >= last]
    # Both kinds of work have to hold, where both were asked for.
    firsts = [min((one.finished for one in held if one.kind is kind), default=None) for kind in {one.kind for one in after}]
    if not firsts or None in firsts:
        return Recovery(None, len(missed))
    return Recovery(max(first for first in firsts if first is not None) - healed, len(missed))


def late(operations: tuple[Operation, ...], window: Window, limits: Limits) -> list[Operation]:
    """Requests sent in or after the window that were not answered within fail_fast (plus slack)."""
    return [
        one
        for one in operations
        if one.started >= window.injected - 0.5
        and one.seconds > limits.fail_fast + limits.slack
        and one.finished >= window.injected
    ]


def describe(one: Operation) -> str:
    """An observation, for people."""
    answer = f"answered {one.status}" if one.status is not None else f"no answer ({one.error})"
    return f"{one.method} {one.path} ({one.sample}): {answer} after {one.seconds:.2f} s"


def check(history: History, limits: Limits) -> Finding:
    """The finding for the experiment's own gate."""
    gate, window = history.facts["gate"], history.windows[0]
    expected = EXPECTED.format(fail_fast=limits.fail_fast, recovery=limits.recovery)
    during = [one for one in history.operations if one.kind in WORKING and window.injected <= one.started < window.healed]
    came_back = recovery(history.operations, window.healed)
    slow = late(history.operations, window, limits)
    dead = [
        one
        for one in history.operations
        if one.kind is Kind.LIVE and one.started >= window.injected and not one.ok and one not in slow and not history.exited
    ]
    problems: list[str] = []
    if history.exited:
        problems.append(f"the target ended ({history.exited}) while its database was out of reach")
    if slow:
        worst = max(one.seconds for one in slow)
        problems.append(f"{len(slow)} requests were not answered within {limits.fail_fast:g} s (slowest: {worst:.1f} s)")
    if dead:
        problems.append(f"the liveness path answered {dead[0].status or dead[0].error}: it depends on the database")
    if came_back.seconds is None:
        problems.append(
            f"not serving again {limits.recovery:g} s after the fault had gone ({came_back.failures} requests failed)"
        )
    elif came_back.seconds > limits.recovery + limits.slack:
        problems.append(f"serving again only {came_back.seconds:.1f} s after the fault had gone")
    seen = f"{len(during)} requests during the fault, {sum(not one.ok for one in during)} of them failed"
    if came_back.seconds is not None:
        seen += f"; serving again {came_back.seconds:.2f} s after it had gone"
    outcome = Outcome.FAIL if problems else Outcome.PASS
    if not problems and not during:
        outcome, problems = Outcome.INCONCLUSIVE, ["no request was sent during the fault"]
    return Finding(
        check=history.experiment,
        gate=gate,
        outcome=outcome,
        detail="; ".join([*problems, seen]),
        n=1,
        bad=int(bool(problems)),
        measured=came_back.seconds,
        expected=expected,
        examples=tuple(describe(one) for one in (slow + dead)[:3]) + tuple(history.logs[-3:] if history.exited else ()),
    )
