"""From findings to gates to the verdict. Pure: the same findings and thresholds give the same answer, today and at a recheck."""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING

from chaos.errors import UsageError
from chaos.model import UNCOUNTED, Finding, GateResult, Outcome, Verdict, worst
from chaos.statistics import ALPHA, judge_rate, lower, needed_after, upper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

A_MONTH_IN_48_H = 0.001 * 30 / 2  # what of a month's budget (0.1 % of 30 days) stands for which error rate over 48 hours
UNITS = {
    "sec.tls_handshake": "handshakes",
    "sec.unknown_host_400": "refusals",
    "rel.availability": "requests",
    "rel.error_budget": "requests",
    "rel.p95": "reads",
    "rel.p99": "reads",
    "rel.error_schema": "error answers",
}  # what a rate counts, in people's words
GROUPS = 4  # told in a gate's own reason; the report has all
# What a run of a profile must settle, by the gates' `proof`. A soak that is too short to end GO is judged as 'smoke'.
SETTLES = {
    "quick": {"quick"},
    "nightly": {"quick", "nightly"},
    "soak": {"quick", "nightly", "soak", "review"},
    "smoke": {"quick"},
    "canary": {"canary"},
    "rollback": set[str](),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One row of gates.toml. `limit` is a rate, a count, seconds or days, as `rule` has it; `needs` names a table of chaos.toml."""

    id: str
    title: str
    rule: str
    proof: str
    limit: float = 0.0
    threshold: str = "== 0"
    needs: str = ""
    seconds: float = 0.0
    hits: int = 0

    def due(self, profile: str) -> bool:
        """Whether a run of this profile must settle the gate."""
        return self.proof in SETTLES[profile]


def load(overrides: Mapping[str, float] | None = None) -> dict[str, Gate]:
    """gates.toml, with a user's own limits on top; an unknown id is a UsageError with 'did you mean'.

    For rel.p95 and rel.p99 the override is in milliseconds, for rates in per cent, for durations in seconds.
    """
    rows = tomllib.loads(files("chaos").joinpath("gates.toml").read_text(encoding="utf-8"))["gates"]
    gates = {key: Gate(id=key, **row) for key, row in rows.items()}
    for key, value in (overrides or {}).items():
        known = named(key, gates)
        gates[known] = _override(gates[known], value)
    return gates


def named(key: str, known: Iterable[str]) -> str:
    """`key` when it is known, else a UsageError that says what was probably meant."""
    names = list(known)
    if key in names:
        return key
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    raise UsageError(
        f"unknown id {key!r}" + (f": did you mean {close[0]!r}?" if close else ""),
        remedy="`chaos-gate gates` lists the gates, `chaos-gate faults` the checks",
    )


def _override(gate: Gate, value: float) -> Gate:
    if gate.seconds:
        return replace(gate, seconds=value / 1000, threshold=f"{gate.threshold.split()[0]} <= {value:g} ms")
    if gate.rule == "budget":
        return replace(gate, limit=value / 100 * A_MONTH_IN_48_H, threshold=f"<= {value:g} %")
    if gate.rule in {"rate", "worst_class"}:
        good = gate.threshold.startswith(">=")
        return replace(gate, limit=(100 - value if good else value) / 100, threshold=f"{'>=' if good else '<='} {value:g} %")
    if gate.id == "sec.logs":
        return replace(gate, limit=value, threshold=f"holds, kept for {value:g} days")
    if gate.id == "sec.cert_expiry":
        return replace(gate, limit=value, threshold=f"fires at <= {value:g} days")
    return replace(gate, limit=value, threshold=f"<= {value:g}" + (" s" if gate.rule == "duration" else ""))


def judge(
    findings: Iterable[Finding],
    gates: Mapping[str, Gate],
    *,
    absent: Mapping[str, str] | None = None,
    waivers: Mapping[str, str] | None = None,
) -> tuple[GateResult, ...]:
    """One result a gate, in the order of gates.toml. `absent`: gate id -> why it does not apply; `waivers`: gate id -> by whom."""
    by_gate: dict[str, list[Finding]] = {}
    for finding in findings:
        by_gate.setdefault(finding.gate, []).append(finding)
    return tuple(
        _waived(_gate(gate, by_gate.get(key, []), (absent or {}).get(key, "")), (waivers or {}).get(key, ""))
        for key, gate in gates.items()
    )


def _waived(result: GateResult, why: str) -> GateResult:
    if why and result.outcome in {Outcome.FAIL, Outcome.INCONCLUSIVE}:
        return replace(result, outcome=Outcome.WAIVED, reason=f"waived ({why}); it was {result.outcome}: {result.reason}")
    return result


def _gate(gate: Gate, found: Sequence[Finding], absent: str) -> GateResult:
    counted = [one for one in found if one.outcome is not Outcome.NOT_APPLICABLE]
    base = GateResult(
        id=gate.id,
        outcome=Outcome.INCONCLUSIVE,
        measured=None,
        threshold=gate.threshold,
        n=0,
        bound=None,
        confidence=1 - ALPHA,
        reason="no check of this gate ran",
        checks=tuple(dict.fromkeys(one.check for one in found)),
    )
    if counted:
        return _with_reported(RULES[gate.rule](gate, counted, base), found)
    if found and gate.proof == "review":  # a review asks for it of everybody: what was not declared is not proven
        return replace(base, reason=found[0].detail)
    if absent or found:
        return replace(base, outcome=Outcome.NOT_APPLICABLE, reason=absent or found[0].detail)
    return base


def _with_reported(result: GateResult, found: Sequence[Finding]) -> GateResult:
    """What of a pen-test is bad, but not critical, is said where the gate is read."""
    told = [f"{one.check} ({one.severity})" for one in found if one.severity in {"high", "medium"} and not one.bad]
    if result.id != "sec.pentest" or not told:
        return result
    return replace(result, reason=f"{result.reason}; reported: {', '.join(dict.fromkeys(told))}")


def _zero(gate: Gate, found: Sequence[Finding], base: GateResult) -> GateResult:
    n, bad = sum(one.n for one in found), sum(one.bad for one in found)
    outcome = worst(one.outcome for one in found)
    reason = f"{bad} of {n:,} {gate.title}" if outcome is not Outcome.INCONCLUSIVE else _first(found, Outcome.INCONCLUSIVE)
    if outcome is Outcome.PASS and n == 0:
        outcome, reason = Outcome.INCONCLUSIVE, "nothing was observed"
    decisive = sum(one.n for one in found if one.check.startswith("commit-cut"))
    if outcome is Outcome.PASS and decisive < gate.hits:
        outcome = Outcome.INCONCLUSIVE
        reason += f"; proof needs {gate.hits} answers cut right after COMMIT, {decisive} were hit"
    return replace(base, outcome=outcome, measured=float(bad), n=n, bound=(lower(bad, n), upper(bad, n)), reason=reason)


def _demonstrated(gate: Gate, found: Sequence[Finding], base: GateResult) -> GateResult:
    outcome = worst(one.outcome for one in found)
    passed = sum(one.outcome is Outcome.PASS for one in found)
    reason = f"{passed} of {len(found)} demonstrated"
    slowest = max((one.measured for one in found if one.measured is not None), default=None)
    if slowest is not None and gate.id.startswith("res."):
        outages = [one for one in found if not one.check.startswith("backoff.")]  # which looks at how a target knocks
        n, missed = sum(one.n for one in outages), sum(one.bad for one in outages)
        base = replace(base, bound=(lower(missed, n), upper(missed, n)))
        reason = f"recovered {n - missed} of {n}, slowest {slowest:.1f} s; that proves {1 - upper(missed, n):.1%} of such outages"
    if outcome in {Outcome.FAIL, Outcome.INCONCLUSIVE}:
        reason += f"; {_all(found, outcome)}"
    return replace(base, outcome=outcome, measured=float(len(found) - passed), n=len(found), reason=reason)


def _all(found: Sequence[Finding], outcome: Outcome) -> str:
    """As `_first`, of the first two."""
    told = [f"{one.check}: {one.detail}" for one in found if one.outcome is outcome]
    return "; ".join(told[:2]) + (f"; and {len(told) - 2} more" if len(told) > 2 else "")


def _first(found: Sequence[Finding], outcome: Outcome) -> str:
    one = next(one for one in found if one.outcome is outcome)
    return f"{one.check}: {one.detail}"


def _rate(gate: Gate, found: Sequence[Finding], base: GateResult) -> GateResult:
    """One rate over everything seen. A check that could not use what it saw (a GREY stretch) says n = 0."""
    n, bad = sum(one.n for one in found), sum(one.bad for one in found)
    if n == 0:
        return replace(base, reason=found[0].detail)
    deff = n / sum(one.n / one.deff for one in found if one.n)
    result = _bounded(gate, bad, n, f"{bad:,} of {n:,} {_bad(gate)}", base, deff=deff, seconds=_seconds(found))
    told = _told(found, gate.id)
    return replace(result, reason=f"{result.reason}: {told}") if told else result


def grouped(findings: Iterable[Finding], gate: str) -> tuple[tuple[str, int, int], ...]:
    """What a gate's findings have in common, over the whole run: (what, how often, in how many experiments), the commonest first."""
    times: dict[str, int] = {}
    where: dict[str, set[str]] = {}
    for finding in findings:
        for what, count in finding.groups if finding.gate == gate else ():
            times[what] = times.get(what, 0) + count
            where.setdefault(what, set()).add(finding.experiment or finding.check)
    return tuple((what, count, len(where[what])) for what, count in sorted(times.items(), key=lambda item: (-item[1], item[0])))


def _told(found: Sequence[Finding], gate: str) -> str:
    """The commonest groups of what is counted, as a sentence; '' without any."""
    groups = [one for one in grouped(found, gate) if not one[0].endswith(UNCOUNTED)]
    said = [f"{what}, {count:,} times in {where} experiment{'' if where == 1 else 's'}" for what, count, where in groups[:GROUPS]]
    said += [f"and {len(groups) - GROUPS} more"] if len(groups) > GROUPS else []
    return "; ".join(said)


def _worst_class(gate: Gate, found: Sequence[Finding], base: GateResult) -> GateResult:
    """Each finding is a class of input; the gate holds when it holds for every class."""
    empty = [one for one in found if one.n == 0]
    results = [
        _bounded(
            gate,
            one.bad,
            one.n,
            f"{one.bad:,} of {one.n:,} {_bad(gate)} ({one.check})",
            base,
            deff=one.deff,
            seconds=one.seconds,
        )
        for one in found
        if one.n
    ]
    if not results:
        return replace(base, reason=empty[0].detail)
    order = list(Outcome)
    worst_one = min(results, key=lambda one: (order.index(one.outcome), -(one.bound or (0.0, 0.0))[1]))
    return replace(worst_one, n=sum(one.n for one in results))


def _bad(gate: Gate) -> str:
    return {"sec.unknown_host_400": "refused with something else than 400", "rel.error_schema": "not in the schema"}.get(
        gate.id, "failed" if gate.rule == "budget" else gate.title if gate.rule == "rate" else "bad"
    )


def _bounded(
    gate: Gate, bad: int, n: int, reason: str, base: GateResult, *, deff: float = 1.0, seconds: float = 0.0
) -> GateResult:
    outcome = judge_rate(bad, n, gate.limit, deff=deff)
    bound = (lower(bad / deff, n / deff), upper(bad / deff, n / deff))
    if outcome is Outcome.INCONCLUSIVE:
        more = max(0, math.ceil(needed_after(bad / deff, gate.limit) * deff) - n)
        reason += f": bound {bound[1]:.2%}, needs {_more(gate, more, bad, n, seconds)} for {gate.threshold}"
    return replace(base, outcome=outcome, measured=bad / n, n=n, bound=bound, reason=reason)


def _seconds(found: Sequence[Finding]) -> float:
    """How long what is counted was observed; 0.0 when that is not known of all of it."""
    counted = [one.seconds for one in found if one.n]
    return sum(counted) if all(counted) else 0.0


def _more(gate: Gate, more: int, bad: int, n: int, seconds: float) -> str:
    """'2,583 more handshakes, about 26 s at this rate': what is missing, in people's words."""
    text = f"{more:,} more {UNITS.get(gate.id, 'observations')}"
    text += " without another bad one" if bad else ""
    return f"{text}, about {_lasting(more / n * seconds)} at this rate," if seconds else text


def _lasting(seconds: float) -> str:
    """A length of time in its largest sensible unit."""
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(1.0, seconds):.0f} s"


def _budget(gate: Gate, found: Sequence[Finding], base: GateResult) -> GateResult:
    """The rate that 5 % of a month's budget is over 48 hours; and in a longer run, what it has really burned of the month."""
    result = _rate(gate, found, base)
    burned = max((one.measured for one in found if one.measured is not None), default=None)
    if burned is None:
        return result
    allowed = gate.limit / A_MONTH_IN_48_H
    reason = f"{burned:.2%} of a month's budget burned (limit {100 * allowed:g} %); as a rate, {result.reason}"
    outcome = Outcome.FAIL if burned > allowed else result.outcome
    return replace(result, outcome=outcome, reason=reason)


def _duration(gate: Gate, found: Sequence[Finding], base: GateResult) -> GateResult:
    outcome = worst(one.outcome for one in found)
    timed = [one.measured for one in found if one.measured is not None]
    slowest = max(timed, default=None)
    if slowest is None:
        return replace(base, outcome=outcome, n=len(found), reason=_first(found, outcome))
    if slowest > gate.limit:
        outcome = Outcome.FAIL
    reason = f"slowest of {len(timed)}: {slowest:.1f} s"
    if outcome is not Outcome.PASS:
        reason += f"; {next((one for one in found if one.outcome is outcome), found[0]).detail}"
    return replace(base, outcome=outcome, measured=slowest, n=len(timed), reason=reason)


RULES: Mapping[str, Callable[[Gate, Sequence[Finding], GateResult], GateResult]] = {
    "zero": _zero,
    "demonstrated": _demonstrated,
    "rate": _rate,
    "budget": _budget,
    "worst_class": _worst_class,
    "duration": _duration,
}


def verdict(
    results: Iterable[GateResult], gates: Mapping[str, Gate], *, profile: str, selected: frozenset[str] | None = None
) -> Verdict:
    """The last word. `selected` (from --only) narrows what must be proven; a failure counts wherever it is found.

    NO-GO when any gate failed; INCONCLUSIVE when one that this profile must settle could not be; else CLEAR, or GO for a soak that
    proved every gate that applies. What only a roll-out can show comes after the review, and is no condition of it.
    """
    results = list(results)
    if any(one.outcome is Outcome.FAIL for one in results):
        return Verdict.NO_GO
    open_ones = [one for one in results if one.outcome is Outcome.INCONCLUSIVE]
    due = [one for one in open_ones if gates[one.id].due(profile) and (selected is None or one.id in selected)]
    # that the evidence can be checked proves nothing of the target
    proven = [
        one
        for one in results
        if one.outcome is Outcome.PASS and one.id != "rep.attestation" and (selected is None or one.id in selected)
    ]
    if due or not proven:
        return Verdict.INCONCLUSIVE
    return Verdict.GO if profile == "soak" and selected is None else Verdict.CLEAR
