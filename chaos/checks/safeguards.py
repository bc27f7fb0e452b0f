"""Flag, bypass, warm pools, pinned chain: roll.safeguards. Each is shown in both directions, or it shows nothing."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.checks.limits import Limits

GATE = "roll.safeguards"
FIRST = 2  # requests at once right after a start: the health check may have warmed one connection
STARTS = 3
REFUSED = {"400", "403", "404", "421"}
_EXPECTED = {
    "allowlist": "on, unknown hosts are refused; off, they are served; a good host is served by both",
    "bypass": "the bypass opens SEO hosts and health checks, and nothing else: unknown and attack hosts stay refused",
    "pools": "the first requests after a start are no slower than P95 of the same instance: its pool is filled before it is ready",
    "chain": "with another chain in front of it, `ready` says no and `live` says yes; with the right one it is ready again",
}


def check(history: History, limits: Limits) -> Finding:
    """The one that the history is about."""
    del limits
    what = history.facts["what"]
    judged = {"allowlist": _allowlist, "bypass": _bypass, "pools": _pools, "chain": _chain}[what]
    outcome, detail, examples = judged(history.facts)
    return Finding(
        check=history.experiment,
        gate=GATE,
        outcome=outcome,
        detail=detail,
        expected=_EXPECTED[what],
        n=1,
        bad=int(outcome is Outcome.FAIL),
        examples=examples,
    )


Judged = tuple[Outcome, str, tuple[str, ...]]


def _good(status: str) -> bool:
    return status.startswith("2")


def _allowlist(facts: Mapping[str, str]) -> Judged:
    on, off = json.loads(facts["on"]), json.loads(facts["off"])
    good = {"on": on.pop("good"), "off": off.pop("good")}
    sick = [f"{name}: {status}" for name, status in good.items() if not _good(status)]
    if sick:
        return Outcome.INCONCLUSIVE, f"a good host was not served, so nothing is shown ({', '.join(sick)})", ()
    let_in = [f"Host {host}: {status}, with the flag on" for host, status in on.items() if status not in REFUSED]
    kept_out = [f"Host {host}: {status}, with the flag off" for host, status in off.items() if status in REFUSED]
    told = (
        f"{facts['flag']}: on, {len(on) - len(let_in)} of {len(on)} unknown hosts were refused; "
        f"off, {len(off) - len(kept_out)} of {len(off)} were served"
    )
    return Outcome.FAIL if let_in or kept_out else Outcome.PASS, told, (*let_in[:2], *kept_out[:2])


def _bypass(facts: Mapping[str, str]) -> Judged:
    off, on = json.loads(facts["off"]), json.loads(facts["on"])

    def told(what: str) -> list[str]:
        return [one for one in on if one.startswith(f"{what} ")]

    # What is open without the bypass is no business of the bypass, and judged by sec.unknown_host_400.
    shut = [one for one in told("shut") if off[one] in REFUSED]
    leaked = [one for one in shut if on[one] not in REFUSED]
    lost = [one for one in told("served") if off[one] not in REFUSED and on[one] in REFUSED]
    opened = [one for one in told("open") if off[one] in REFUSED and on[one] not in REFUSED]
    examples = tuple(f"{one}: {off[one]} without the bypass, {on[one]} with it" for one in (*leaked, *lost)[:3])
    detail = (
        f"{facts['flag']}: opened {len(opened)} of {len(told('open'))} that it is for; {len(shut) - len(leaked)} of {len(shut)} "
        f"unknown and attack hosts stayed refused; {len(told('served')) - len(lost)} of {len(told('served'))} listed ones served"
    )
    if leaked or lost:
        return Outcome.FAIL, detail, examples
    if not shut:
        return Outcome.INCONCLUSIVE, f"{detail}; nothing was refused without the bypass, so nothing is shown", ()
    if not opened:
        return Outcome.INCONCLUSIVE, f"{detail}; nothing that was asked for shows that it does anything", ()
    return Outcome.PASS, detail, ()


def _p95(seconds: Sequence[float]) -> float:
    return sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1]


def excess(start: Mapping[str, Any]) -> float:
    """By how much the slowest of the first requests was slower than P95 of the later ones, in seconds."""
    return float(max(start["first"])) - _p95(start["steady"])


def slow_starts(starts: Sequence[Mapping[str, Any]], handshake: float) -> int:
    """In how many starts the first requests were slower by at least half of what a session takes to be made on that path."""
    return sum(excess(one) > handshake / 2 for one in starts)


def _pools(facts: Mapping[str, str]) -> Judged:
    starts, handshake = json.loads(facts["starts"]), float(facts["handshake"])
    slow = slow_starts(starts, handshake)
    told = "; ".join(
        f"first {1000 * max(one['first']):.0f} ms, later P95 {1000 * _p95(one['steady']):.0f} ms, "
        f"{one['opened']} connections opened by the first ones"
        for one in starts
    )
    detail = f"{len(starts)} starts, a session takes {1000 * handshake:.0f} ms more on that path: {told}"
    if any(one["bad"] for one in starts):
        return Outcome.INCONCLUSIVE, f"not all requests were answered well: {detail}", ()
    if slow <= 1:  # one start may have met the machine's mood
        return Outcome.PASS, detail, ()
    fast = json.loads(facts.get("fast", "[]"))
    if slow < len(starts):
        return Outcome.INCONCLUSIVE, f"slow in {slow} of {len(starts)} starts: {detail}", ()
    if not any(excess(one) < handshake / 4 for one in fast):
        return Outcome.INCONCLUSIVE, f"its first requests are slow on a fast path as well, whatever its pool does: {detail}", ()
    return Outcome.FAIL, detail, ()


def _chain(facts: Mapping[str, str]) -> Judged:
    if facts["before"] != "ready":
        return Outcome.INCONCLUSIVE, f"it was not ready with the right chain: {facts['before']}", ()
    lives = json.loads(facts["lives"])
    down = [one for one in lives if not _good(one)]
    problems = []
    if facts["exited"]:
        problems.append(f"it ended ({facts['exited']})")
    if not facts["unready"]:
        problems.append(f"`ready` went on to say yes for {facts['within']} s")
    if down:
        problems.append(f"`live` said {down[0]} in {len(down)} of {len(lives)} answers")
    if not facts["again"] and not problems:
        problems.append(f"it was not ready again {facts['within']} s after the right chain was back")
    told = f"unready after {facts['unready']} s, ready again after {facts['again']} s; live: {len(lives) - len(down)} of {len(lives)}"
    return (Outcome.FAIL, "; ".join(problems), ()) if problems else (Outcome.PASS, told, ())
