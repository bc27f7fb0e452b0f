"""How several instances of a target knock in a long outage: growth, jitter, cap, and whether all of them come back (res.backoff).

Judged are the pauses between attempts of instances that have a chain of their own, or that hold attempts back when they are asked. One
that connects once for each request multiplies nothing and has no backoff to show: growth, jitter and cap do not apply to it.

What fails by default, and what is only reported ([policy] decides):

- pauses that do not grow at all and are alike, or short: fail. Growth that is not exponential (linear): "backoff.growth".
- no jitter, on the way up or at the top, proven: fails, for it makes a herd of the instances and the requirement names it. Sound pools
  are built like that (HikariCP): [policy] "backoff.jitter" = "report" accepts it.
- a wait longer than `recovery`, in most instances: fails, for an outage that ends at its beginning is followed by all of it.
  [policy] "backoff.cap" = "report" accepts it.

The control group are clients of ours without jitter on the same kind of path. Where they are not found out, nothing is said of jitter.
"""

from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos import retries
from chaos.checks.backoff import ASKED_EVERY, EXPECTED, MOST, Stretch, fixed, held_back, tried, unabated, within_requests
from chaos.model import Connection, Finding, History, Kind, Operation, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.checks.limits import Limits
    from chaos.retries import Growth, Jitter

BURST = 0.05  # s between beginnings of attempts that several chains of one instance make as one
QUIET = 10.0  # s before the load
COMMON = 3  # attempts of each that their common cause makes common
SLOW = 0.5  # s: pauses that do not grow harm nobody when they are as long, and differ


@dataclass(frozen=True, slots=True)
class Client:
    """One instance. `attempts` are those whose pauses count; `pauses` in s; `own` is whether it tried by itself."""

    name: str
    onset: float
    lag: float
    exited: str
    own: bool
    attempts: tuple[Connection, ...]
    loaded: tuple[Connection, ...]  # attempts while it was asked at the end
    load: float  # s of that
    asked: tuple[tuple[Operation, tuple[Connection, ...]], ...]
    pauses: tuple[float, ...]
    several: bool
    stretch: Stretch

    @property
    def chained(self) -> bool:
        """Whether there is a chain of pauses to be judged."""
        return bool(self.attempts) and (self.own or bool(held_back(self.asked)))


def chain(attempts: Sequence[Connection]) -> tuple[tuple[float, ...], bool]:
    """The pauses (s) of one instance; and whether several chains run in it, whose attempts of one moment then count as one."""
    ends = [one.closed or one.opened for one in attempts]
    after = list(zip(attempts[1:], ends, strict=False))
    several = any(later.opened < end for later, end in after)
    if not several:
        return tuple(later.opened - end for later, end in after), False
    bursts: list[list[float]] = []  # first opened, last opened, last closed
    for one, end in zip(attempts, ends, strict=True):
        if bursts and (one.opened < bursts[-1][2] or one.opened - bursts[-1][1] < BURST):
            bursts[-1][1:] = [one.opened, max(bursts[-1][2], end)]
        else:
            bursts.append([one.opened, one.opened, end])
    return tuple(later[0] - first[2] for first, later in itertools.pairwise(bursts)), True


def clients(history: History) -> list[Client]:
    """The instances as they were recorded, without those that could not be brought up."""
    found = []
    for one in json.loads(history.facts.get("replicas", "[]")):
        mine = [each for each in history.connections if each.client == one["name"]]
        end = one["loaded"] if not one["asked"] and one["loaded"] else one["healed"]
        attempts = tried(mine, one["begun"], end)
        loaded = tried(mine, one["loaded"], one["healed"]) if one["loaded"] else ()
        asked = tuple(
            (each, tried(mine, each.started, each.finished))
            for each in history.operations
            if each.client == one["name"]
            and each.kind is Kind.READ
            and one["begun"] <= each.started
            and each.finished <= one["healed"]
        )
        pauses, several = chain(attempts)
        stretch = Stretch(one["begun"], end, attempts, late=ASKED_EVERY if one["asked"] else 0.0)
        found.append(
            Client(
                name=one["name"],
                onset=one["onset"],
                lag=one["lag"],
                exited=one["exited"],
                own=not one["asked"],
                attempts=attempts,
                loaded=loaded,
                load=one["healed"] - one["loaded"] if one["loaded"] else 0.0,
                asked=asked if one["asked"] else (),
                pauses=pauses,
                several=several,
                stretch=stretch,
            )
        )
    return found


def controls(history: History) -> list[tuple[float, ...]]:
    """The pauses of the control group."""
    names = sorted({one.client for one in history.connections if one.client.startswith("control ")})
    every = [tried([one for one in history.connections if one.client == name], 0.0, float("inf")) for name in names]
    return [chain(attempts)[0] for attempts in every]


def check(history: History, limits: Limits) -> list[Finding]:
    """The finding on coming back, then those on growth, jitter and cap."""
    found = clients(history)
    base = Finding(check=history.experiment, gate=history.facts["gate"], outcome=Outcome.PASS, detail="", expected=EXPECTED, n=1)
    if not found:
        why = history.facts.get("why") or "none came up"
        return [replace(base, outcome=Outcome.INCONCLUSIVE, detail=f"no instance of the target could be observed: {why}")]
    return [_back(base, found, history, limits), *_traits(base, found, history, limits)]


# -- coming back ------------------------------------------------------------------------------------------------------------------


def _back(base: Finding, found: list[Client], history: History, limits: Limits) -> Finding:
    limit = limits.recovery + limits.slack
    gone = [one for one in found if one.exited]
    late = [one for one in found if not one.exited and not 0 <= one.lag <= limit]
    problems = [f"{len(gone)} of {len(found)} instances ended ({gone[0].exited})"] if gone else []
    if late:
        never = sum(one.lag < 0 for one in late)
        slowest = max(one.lag for one in late)
        told = f"{never} never did" if never else f"the slowest took {slowest:.1f} s"
        problems.append(f"{len(late)} of {len(found)} instances did not serve again within {limits.recovery:g} s: {told}")
    rules = [_broken(one) for one in found]
    if sum(map(bool, rules)) >= MOST * len(found):
        problems.append(f"in {sum(map(bool, rules))} of {len(found)} instances: {next(filter(None, rules))}")
    lags = [one.lag for one in found if one.lag >= 0]
    seen = [f"{len(lags)} of {len(found)} instances served again" + (f", the slowest after {max(lags):.1f} s" if lags else "")]
    if len(lags) == len(found) and not problems:
        seen[0] += f" (that fewer than {1 - 0.05 ** (1 / len(found)):.0%} do not is shown, with 95 % confidence)"
    return replace(
        base,
        outcome=Outcome.FAIL if problems else Outcome.PASS,
        bad=int(bool(problems)),
        detail="; ".join([*problems, *seen, _attempts(found), *_wanted(history, found)]),
        measured=max(lags, default=None),
        examples=tuple(_line(one) for one in found[:3]),
    )


def _broken(one: Client) -> str:
    """Why this instance does not back off at all; ''."""
    if one.chained:
        return fixed(one.stretch) or unabated(one.stretch)
    return within_requests(one.asked)


def _attempts(found: list[Client]) -> str:
    counts = sorted(len(one.attempts) for one in found)
    span = statistics.median(one.stretch.end - one.stretch.start for one in found)
    times = [[each.opened - one.onset for each in one.attempts[COMMON:]] for one in found]
    text = f"{counts[0]} to {counts[-1]} attempts of each in {span:.0f} s"
    asked = sum(len(one.asked) for one in found)
    if asked:
        text += f", {sum(counts) / asked:.2f} for each request"
    loaded = sum(len(one.loaded) for one in found if one.own)
    if loaded:
        seconds = sum(one.load for one in found if one.own)
        quiet = sum(sum(each.opened >= one.stretch.end - QUIET for each in one.attempts) for one in found if one.own)
        own = sum(one.own for one in found)
        text += f"; {quiet / QUIET / own:.1f} a second of each when left alone, {loaded / seconds:.1f} when asked"
    return f"{text}; herd: at most {retries.herd(times, after=0.0):.0%} of them within 100 ms"


def _wanted(history: History, found: list[Client]) -> list[str]:
    wanted = int(history.facts.get("wanted", len(found)))
    return [f"{len(found)} of {wanted} instances wanted ({history.facts.get('why', '')})"] if len(found) < wanted else []


def _line(one: Client) -> str:
    steps = ", ".join(f"+{each.opened - one.onset:.2f}" for each in one.attempts[:16])
    return f"{one.name}: attempts at {steps} s{' ...' if len(one.attempts) > 16 else ''}"


# -- growth, jitter, cap ------------------------------------------------------------------------------------------------------------


def _traits(base: Finding, found: list[Client], history: History, limits: Limits) -> list[Finding]:
    names = [f"{trait}.{base.check}" for trait in ("growth", "jitter", "cap")]
    chained = [one for one in found if one.chained]
    if len(chained) < MOST * len(found):
        why = (
            "they connect when they are asked, about once for each request: no backoff to show, and nothing multiplied"
            if any(one.attempts for one in found)
            else "they never tried to connect while the database was out of reach"
        )
        absent = replace(base, outcome=Outcome.NOT_APPLICABLE, detail=why, n=0)
        return [replace(absent, check=name) for name in names]
    if len(chained) < retries.FEW:
        open_ = replace(base, outcome=Outcome.INCONCLUSIVE, detail=f"not proven with {len(chained)} instances{_because(history)}")
        return [replace(open_, check=name) for name in names[:2]] + [_cap(replace(base, check=names[2]), chained, limits)]
    pauses = [one.pauses for one in chained]
    group = controls(history)
    noise = retries.noise_floor(group) + (0.0 if chained[0].own else _asking(chained))
    grown = retries.growth(pauses, seed=limits.seed)
    if sum(one.several for one in chained) >= MOST * len(chained):
        spread = retries.periodic([_late(one) for one in chained], noise=noise, seed=limits.seed)
    else:
        spread = retries.jitter(pauses, noise=noise, seed=limits.seed)
    flagged = retries.jitter(group, noise=retries.noise_floor(group), seed=limits.seed)
    return [
        _growth(replace(base, check=names[0]), grown, spread, chained, limits),
        _jitter(replace(base, check=names[1]), spread, flagged, noise, limits),
        _cap(replace(base, check=names[2]), chained, limits),
    ]


def _late(one: Client) -> list[float]:
    """When it attempts in the later half of its outage."""
    half = (one.stretch.start + one.stretch.end) / 2
    return [each.opened for each in one.attempts if each.opened >= half]


def _because(history: History) -> str:
    return f" ({history.facts['why']})" if history.facts.get("why") else ""


def _asking(found: list[Client]) -> float:
    """P90 - P10 (s) of how late an attempt comes that waits for a request: they come at any time between two requests."""
    between = [later.started - before.started for one in found for (before, _), (later, _) in itertools.pairwise(one.asked)]
    return 0.8 * statistics.median(between) if between else 0.0


def _policy(finding: Finding, limits: Limits, *, severity: str, fails: bool) -> Finding:
    """A trait that is not there: a failure, or reported, as the default says and [policy] decides."""
    key = f"backoff.{finding.check.partition('.')[0]}"
    decided = limits.policy.get(key, "reject" if fails else "report")
    if decided == "reject":
        told = f'. [policy] "{key}" = "report" accepts it' if fails else ""
        return replace(finding, outcome=Outcome.FAIL, bad=1, detail=finding.detail + told)
    told = f'. Reported ({severity}): [policy] "{key}" = "reject" makes it a failure'
    return replace(finding, outcome=Outcome.NOT_APPLICABLE, n=0, severity=severity, detail=finding.detail + told)


def _growth(  # noqa: PLR0911  (a sentence for each)
    base: Finding, grown: Growth | None, spread: Jitter | None, found: list[Client], limits: Limits
) -> Finding:
    unknown = replace(base, outcome=Outcome.NOT_APPLICABLE, n=0)
    if grown is None:
        least = min(len(one.pauses) for one in found)
        return replace(unknown, detail=f"{least} pauses only: too few to tell how they grow, and too few to harm")
    total = f"from the first pause to the longest they grow x {grown.rise}, up to {grown.top:.2f} s"
    if grown.flat:
        middle = statistics.median(pause for one in found for pause in one.pauses)
        alike = spread is not None and spread.outcome is Outcome.FAIL
        text = f"the pauses do not grow: x {grown.rise} over {grown.pauses} of them, median {middle:.2f} s"
        if any(one.several for one in found) and not alike:
            return replace(unknown, detail=f"{text}; several chains run at once, of which each may")
        return _policy(replace(base, detail=text), limits, severity="medium", fails=alike or middle < SLOW)
    if grown.each is None:
        return replace(unknown, detail=f"{total}, after {grown.step} pauses: too few to tell exponential from linear")
    told = f"x {grown.each} with each attempt at pause {grown.step}; {total}"
    if grown.outcome is Outcome.PASS:
        return replace(base, detail=f"exponential: {told}")
    if grown.outcome is Outcome.FAIL:
        return _policy(replace(base, detail=f"not exponential: {told}"), limits, severity="low", fails=False)
    return replace(unknown, detail=f"not proven with {len(found)} instances: {told}")


def _jitter(base: Finding, spread: Jitter | None, flagged: Jitter | None, noise: float, limits: Limits) -> Finding:
    if flagged is None or flagged.outcome is not Outcome.FAIL:
        seen = f"their spread is {flagged.top}" if flagged else "too few of their attempts were seen"
        detail = f"clients of ours without jitter were not found out ({seen}): the machine was too busy"
        return replace(base, outcome=Outcome.INCONCLUSIVE, detail=detail)
    if spread is None or (spread.top is None and spread.below is None):
        detail = f"all pauses are too short or too few against the noise of {1000 * noise:.0f} ms"
        return replace(base, outcome=Outcome.NOT_APPLICABLE, n=0, detail=detail)
    parts = [("on the way up", spread.below), ("at the top", spread.top)]
    told = ", ".join(f"{one} {where}" for where, one in parts if one)
    text = f"(P90 - P10) / median is {told}; clients of ours without jitter: {flagged.top}; noise {1000 * noise:.0f} ms"
    if spread.outcome is Outcome.FAIL:
        return _policy(replace(base, detail=f"no jitter: {text}"), limits, severity="high", fails=True)
    return replace(base, outcome=spread.outcome, detail=text if spread.outcome is Outcome.PASS else f"not proven: {text}")


def _cap(base: Finding, found: list[Client], limits: Limits) -> Finding:
    longest = [max(one.pauses, default=0.0) for one in found]
    over = [one for one in longest if one > limits.recovery + limits.slack]
    if len(over) >= MOST * len(found):
        text = (
            f"waits of up to {max(over):.1f} s in {len(over)} of {len(found)} instances, beyond recovery = {limits.recovery:g} s"
        )
        return _policy(replace(base, detail=text), limits, severity="high", fails=True)
    chains = statistics.median(len(one.attempts) for one in found)
    text = f"the longest wait of each is {min(longest):.2f} to {max(longest):.2f} s, within recovery = {limits.recovery:g} s"
    return replace(base, detail=f"{text}; {chains:.0f} attempts of each")
