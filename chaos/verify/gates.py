"""Every gate and the verdict again, from the rows of findings and the policy that was fixed before the start."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from chaos.verify.numbers import ALPHA, above, below

if TYPE_CHECKING:
    from chaos.verify.records import Row

ORDER = ("fail", "inconclusive", "pass", "waived", "not_applicable")
BUDGET_IN_48_H = 0.001 * 30 / 2  # the error rate over 48 hours that burns all of a month's budget of 0.1 %
OWN = "rep.attestation"  # whether this very evidence can be checked; it says nothing about the target

Policy = Mapping[str, Any]
"""policy.json, as parsed (Any: JSON)."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate as recomputed. `k` is None where nothing bad is counted; `measured` is in the unit of its rule."""

    id: str
    verdict: str
    measured: float | None = None
    n: int = 0
    k: int | None = None
    deff: float = 1.0
    bound: tuple[float, float] | None = None
    checks: tuple[str, ...] = ()


def worst(verdicts: Iterable[str]) -> str:
    """Worst first; none at all is 'inconclusive', and so is a word that is no verdict."""
    found = [one if one in ORDER else "inconclusive" for one in verdicts]
    return min(found, key=ORDER.index, default="inconclusive")


def judge(findings: Sequence[Row], policy: Policy) -> list[Gate]:
    """One a gate of the policy, in its order."""
    gates = []
    for rule in policy["gates"]:
        mine = [one for one in findings if one["gate"] == rule["id"]]
        made = _gate(rule, mine, policy)
        if rule["id"] in policy["waivers"] and made.verdict in {"fail", "inconclusive"}:
            made = replace(made, verdict="waived")
        gates.append(replace(made, checks=tuple(dict.fromkeys(one["check"] for one in mine))))
    return gates


def _gate(rule: Policy, mine: Sequence[Row], policy: Policy) -> Gate:
    counted = [one for one in mine if one["outcome"] != "not_applicable"]
    if counted:
        return RULES[rule["rule"]](rule, counted)
    if mine and rule["proof"] == "review":  # a review asks for it of everybody: what was not declared is not proven
        return Gate(rule["id"], "inconclusive")
    outside = bool(mine) or rule["id"] in policy["not_applicable"]
    return Gate(rule["id"], "not_applicable" if outside else "inconclusive")


def _sums(found: Sequence[Row]) -> tuple[int, int]:
    return sum(one["bad"] for one in found), sum(one["n"] for one in found)


def _zero(rule: Policy, found: Sequence[Row]) -> Gate:
    bad, n = _sums(found)
    verdict = worst(one["outcome"] for one in found)
    hits = sum(one["n"] for one in found if one["check"].startswith("commit-cut"))
    if verdict == "pass" and (n == 0 or hits < rule["hits"]):
        verdict = "inconclusive"
    return Gate(rule["id"], verdict, float(bad), n, bad, 1.0, (below(bad, n), above(bad, n)))


def _demonstrated(rule: Policy, found: Sequence[Row]) -> Gate:
    missing = sum(one["outcome"] != "pass" for one in found)
    bound, k = None, missing
    if rule["id"].startswith("res.") and any(one["measured"] is not None for one in found):
        bad, n = _sums([one for one in found if not one["check"].startswith("backoff.")])
        bound = (below(bad, n), above(bad, n))
    return Gate(rule["id"], worst(one["outcome"] for one in found), float(missing), len(found), k, 1.0, bound)


def _rate(rule: Policy, found: Sequence[Row]) -> Gate:
    bad, n = _sums(found)
    if n == 0:
        return Gate(rule["id"], "inconclusive")
    deff = n / sum(one["n"] / one["deff"] for one in found if one["n"])
    return _held(rule, bad, n, deff)


def _held(rule: Policy, bad: int, n: int, deff: float = 1.0) -> Gate:
    bound = (below(bad / deff, n / deff), above(bad / deff, n / deff))
    verdict = "fail" if bound[0] > rule["limit"] else "pass" if bound[1] <= rule["limit"] else "inconclusive"
    return Gate(rule["id"], verdict, bad / n, n, bad, deff, bound)


def _budget(rule: Policy, found: Sequence[Row]) -> Gate:
    """A rate, and beside it the share of 30 days' budget that a long run has burned itself."""
    made = _rate(rule, found)
    burned = max((one["measured"] for one in found if one["measured"] is not None), default=None)
    over = burned is not None and made.n and burned > rule["limit"] / BUDGET_IN_48_H
    return replace(made, verdict="fail") if over else made


def _worst_class(rule: Policy, found: Sequence[Row]) -> Gate:
    classes = [_held(rule, one["bad"], one["n"], one["deff"]) for one in found if one["n"]]
    if not classes:
        return Gate(rule["id"], "inconclusive")
    lowest = min(classes, key=lambda one: (ORDER.index(one.verdict), -one.bound[1] if one.bound else 0.0))
    return replace(lowest, n=sum(one.n for one in classes), k=sum(one.k or 0 for one in classes))


def _duration(rule: Policy, found: Sequence[Row]) -> Gate:
    verdict = worst(one["outcome"] for one in found)
    slowest = max((one["measured"] for one in found if one["measured"] is not None), default=None)
    if slowest is not None and slowest > rule["limit"]:
        verdict = "fail"
    return Gate(rule["id"], verdict, slowest, len(found))


RULES = {
    "zero": _zero,
    "demonstrated": _demonstrated,
    "rate": _rate,
    "budget": _budget,
    "worst_class": _worst_class,
    "duration": _duration,
}


def verdict(gates: Sequence[Gate], policy: Policy, *, ended: bool) -> str:
    """The last word. `ended`: something ended the run early, so what it has not seen may be anything."""
    if any(one.verdict == "fail" for one in gates):
        return "NO-GO"
    chosen = set(policy["selected"]) if policy["selected"] is not None else {one.id for one in gates}
    due = [one for one in gates if one.verdict == "inconclusive" and one.id in chosen and one.id in policy["due"]]
    proven = [one for one in gates if one.verdict == "pass" and one.id in chosen and one.id != OWN]
    if ended or due or not proven:
        return "INCONCLUSIVE"
    return "GO" if policy["profile"] == "soak" and policy["selected"] is None else "CLEAR"


def as_json_number(value: float | None) -> float | None:
    """As evidence.json writes it: a whole number as one, what JSON cannot hold as null."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else value


__all__ = ["ALPHA", "Gate", "Policy", "as_json_number", "judge", "verdict", "worst"]
