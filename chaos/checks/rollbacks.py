"""Roll-backs, rehearsed again and again: each one by itself (time, data, contract), and all of them as a distribution.

What is judged is what the one command left: that it ended well, that the good release serves since then, that it did not say so before
it was true. Acknowledged writes are for res.durability, the answers' shapes for rel.api_contract.
"""

from __future__ import annotations

import json
import math
import statistics
from typing import TYPE_CHECKING

from chaos.checks import writes
from chaos.checks.recovery import describe
from chaos.checks.rollback import SEEN_ABOVE
from chaos.checks.shapes import compare, control
from chaos.model import Finding, History, Kind, Operation, Outcome
from chaos.statistics import ALPHA, lower, upper

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.checks.limits import Limits

EARLY = 1.0  # s after the command has ended in which the last failures may be
LIMIT = 600.0  # s
TIMES = "rollback.times"  # the experiment that holds the distribution
EXPECTED = "one command restores the good release within 10 min, and it serves when the command says so"


def check(history: History, limits: Limits) -> list[Finding]:
    """Of one rehearsal. Answers of a release that is not back yet say nothing of its contract."""
    back = _rolled_back(history)
    found = [back, writes.check(history, limits), _contract(history) if back.outcome is not Outcome.FAIL else None]
    return [one for one in found if one is not None]


def _rolled_back(history: History) -> Finding:
    facts = history.facts
    steady, restored = _steady(facts), took(facts)
    meanwhile = _meanwhile(history)
    failed = [one for one in meanwhile if not one.ok]
    problems = _problems(facts, steady, _not_writing(history))
    outcome = Outcome.FAIL if problems else Outcome.PASS
    visible = facts.get("seen") or lower(len(failed), len(meanwhile)) > SEEN_ABOVE
    if not problems and not visible:
        outcome = Outcome.INCONCLUSIVE
        problems = [f"the bad release was not seen: {len(failed)} of {len(meanwhile)} requests failed"]
    told = [
        f"release with {facts.get('release', '')} at {facts.get('percent', '100')} %",
        "the old one stopped" if facts.get("stopped") else "",
        facts.get("seen") or f"{len(failed)} of {len(meanwhile)} requests failed",
        f"the old release itself, asked on the new schema: {facts['code.only']} requests failed"
        if facts.get("code.only")
        else "",
        f"restored {restored:.1f} s after the command was given" if restored is not None else "",
    ]
    return Finding(
        check=history.experiment,
        gate="res.rollback",
        outcome=outcome,
        detail="; ".join([*problems, *filter(None, told)]),
        n=1,
        bad=int(outcome is Outcome.FAIL),
        measured=restored,
        expected=EXPECTED,
        examples=tuple(describe(one) for one in (_not_writing(history) or _after(history) or failed)[:2]),
    )


def _steady(facts: Mapping[str, str]) -> float | None:
    """Seconds from the command to the first request since which all were answered well."""
    return float(facts["steady.after"]) if facts.get("steady.after") else None


def took(facts: Mapping[str, str]) -> float | None:
    """Seconds until the good release served, and the command had said so; None when one of both never came.

    From a canary step most requests are answered well all the while: the last bad one alone would flatter.
    """
    steady = _steady(facts)
    if steady is None or facts.get("exit") != "0":
        return None
    return max(steady, float(facts["ended"]) - float(facts["given"]))


def _meanwhile(history: History) -> list[Operation]:
    start, end = (float(history.facts.get(key, "0")) for key in ("bad.from", "bad.to"))
    return [one for one in history.operations if one.kind is Kind.READ and start <= one.started < end]


def _after(history: History) -> list[Operation]:
    ended = float(history.facts.get("ended", "inf"))
    return [one for one in history.operations if one.kind is Kind.READ and not one.ok and one.started >= ended]


def _not_writing(history: History) -> list[Operation]:
    """The last write of each kind, where it failed although the command had ended well before."""
    ended = float(history.facts.get("ended", "inf"))
    last = {one.sample: one for one in history.operations if one.kind is Kind.WRITE and one.started >= ended}
    return [one for one in last.values() if not one.ok]


def _problems(facts: dict[str, str], steady: float | None, unwritten: list[Operation]) -> list[str]:
    found: list[str] = []
    if facts.get("exit") != "0":
        found.append(f"the roll-back command ended with {facts.get('exit')}: {facts.get('output', '')[-200:]}")
    if wrong := facts.get("version.after"):
        found.append(f"answers still come from release {wrong!r}")
    if steady is None or unwritten:
        found.append("the good release did not serve again" if steady is None else f"writes fail: {describe(unwritten[0])}")
        failed = facts.get("code.only", "0 of 0").partition(" of ")[0]
        if facts.get("schema") and int(failed):
            found.append("rolling the code back is not enough: the old release does not work on the schema that the new one left")
    elif steady > LIMIT:
        found.append(f"steady only after {steady:.0f} s")
    elif facts.get("exit") == "0" and (late := steady - (float(facts["ended"]) - float(facts["given"]))) > EARLY:
        found.append(f"the command said that it was done {late:.1f} s before it was")
    return found


def _contract(history: History) -> Finding | None:
    """The answers of after the roll-back against those of before the release."""
    sides = json.loads(history.facts.get("shapes", "{}"))
    if not sides:
        return None
    broken: list[str] = []
    for request, one in sides.items():
        noisy = control(one["first"], one["second"])
        broken += [
            f"{request}: {each.text}"
            for each in compare(one["baseline"], one["candidate"])
            if each.breaking and not each.within(noisy)
        ]
    return Finding(
        check=f"answers.{history.experiment}",
        gate="rel.api_contract",
        outcome=Outcome.FAIL if broken else Outcome.PASS,
        detail="; ".join(broken[:4]) or f"{len(sides)} requests have answers of the same shape as before the release",
        n=len(sides),
        bad=len(broken),
        expected="after a roll-back the same request has the same status, media type, headers and members as before the release",
        examples=tuple(broken[:8]),
    )


# -- all of them ---------------------------------------------------------------------------------------------------------------------


def times(history: History, limits: Limits) -> Finding:
    """The distribution: facts 'seconds', a JSON list, null for one that never came back."""
    del limits
    every: list[float | None] = json.loads(history.facts["seconds"])
    kept = sorted(one for one in every if one is not None and one <= LIMIT)
    n, missed = len(every), len(every) - len(kept)
    outcome = Outcome.FAIL if missed else Outcome.PASS if n else Outcome.INCONCLUSIVE
    share = 1 - upper(missed, n) if n else 0.0
    detail = f"{n} roll-backs, {missed} of them not within {LIMIT / 60:g} min"
    if kept:
        middle = upper_quantile(kept, 0.5)
        bound = f" (at most {middle:.2f} s)" if middle is not None and not missed else ""
        detail += f": median {statistics.median(kept):.2f} s{bound}, slowest {kept[-1]:.2f} s"
        detail += f"; that proves {share:.1%} of such roll-backs within {LIMIT / 60:g} min"
        detail += f", and as many within {kept[-1]:.2f} s" if not missed else ""
        detail += f" (one-sided, {1 - ALPHA:.0%})"
    return Finding(
        check=TIMES,
        gate="res.rollback",
        outcome=outcome,
        detail=detail,
        n=n,
        bad=missed,
        expected="<= 10 min each; 20 without a miss prove 86.1 % of them, 59 prove 95 %",
    )


def upper_quantile(values: Iterable[float], share: float, *, alpha: float = ALPHA) -> float | None:
    """The order statistic that is not below the quantile `share` with probability 1 - alpha, of any distribution; None: too few values.

    The k-th smallest of n is below it with P(Bin(n, share) >= k): David and Nagaraja, Order Statistics (2003), 7.1.
    """
    ordered = sorted(values)
    n, below = len(ordered), 0.0
    for k in range(n):
        below += math.comb(n, k) * share**k * (1 - share) ** (n - k)
        if below >= 1 - alpha:
            return ordered[k]
    return None
