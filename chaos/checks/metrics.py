"""rep.dashboards: the metrics are there, can be read also in an outage, and move as what was done to the target does.

A panel without a metric is told, with a severity. One whose metric stands still while that of which it tells happens is a failure:
a dashboard that is green through an outage is worse than none. What may have other reasons (a retry that nobody made) is only told.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from chaos.checks import panels
from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.checks.limits import Limits

GATE = "rep.dashboards"
SLACK = 0.1  # of a count, and one more: what was under way when it was read
SINGLE = 1.0


def short(expected: Mapping[str, list[float]], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The roles that have a metric, none of which has come to what was expected of it yet."""
    return [
        role
        for role, (low, _) in expected.items()
        if (moved := _moved(before["values"].get(role, {}), after["values"].get(role, {}))) and max(moved.values()) < _least(low)
    ]


def _least(low: float) -> float:
    """Below it a metric counts as standing still: some frameworks answer a few requests before anything counts them."""
    return max(SINGLE, low / 2) if low else 0.0


def _moved(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after.get(name, 0.0) - before.get(name, 0.0) for name in {*before, *after}}


def check(history: History, limits: Limits) -> list[Finding]:
    """One finding for the endpoint, and one for each panel that this experiment moves."""
    del limits
    facts = history.facts
    if "metrics.scrapes" not in facts:
        return []
    scrapes: dict[str, dict[str, Any]] = json.loads(facts["metrics.scrapes"])
    found = [_endpoint(history, scrapes)]
    before, after = scrapes.get("before"), scrapes.get(facts.get("metrics.compared", "after"))
    if not before or not after or before["error"] or after["error"]:
        return found
    expected: dict[str, list[float]] = json.loads(facts["metrics.expected"])
    found += [_panel(history, role, expected[role.id], (before, after)) for role in panels.roles() if role.id in expected]
    if "metrics.days" in facts:
        found.append(_days(history, json.loads(facts["metrics.days"]), after))
    return found


def _finding(history: History, what: str, outcome: Outcome, detail: str, **more: Any) -> Finding:
    return Finding(check=f"{what}.{history.experiment}", gate=GATE, outcome=outcome, detail=detail, **more)


def _endpoint(history: History, scrapes: Mapping[str, Mapping[str, Any]]) -> Finding:
    expected = "Prometheus text, answered with 200 at any time, also in an outage: that is when it is looked at"
    wrong = {name: one["error"] for name, one in scrapes.items() if one["error"]}
    if wrong:
        name, error = next(iter(wrong.items()))
        detail = f"{len(wrong)} of {len(scrapes)} scrapes failed; {name}: {error}"
        return _finding(
            history,
            "endpoint",
            Outcome.FAIL,
            detail,
            n=len(scrapes),
            bad=len(wrong),
            expected=expected,
            examples=tuple(wrong.values())[:3],
        )
    series = max(int(one["series"]) for one in scrapes.values())
    return _finding(
        history, "endpoint", Outcome.PASS, f"{len(scrapes)} scrapes, up to {series} series", n=len(scrapes), expected=expected
    )


def _panel(
    history: History, role: panels.Role, span: list[float], scrapes: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> Finding:
    before, after = (one["values"].get(role.id, {}) for one in scrapes)
    moved = _moved(before, after)
    finding = partial(
        _finding, history, role.id, expected=f"panel '{role.title}': its {role.kind} moves as what it tells of happens"
    )
    if not moved:
        declared = json.loads(history.facts["metrics.names"])
        if declared.get(role.id) == "":
            return finding(
                Outcome.NOT_APPLICABLE,
                f"[target.metrics] says that there is no metric for the panel '{role.title}'",
                severity="medium",
            )
        if role.id in declared:
            why = f"the metric that [target.metrics] names for {role.id} is not served"
            return finding(Outcome.FAIL, why, n=1, bad=1)
        how = f'[target.metrics] names = {{ {role.id} = "..." }}'
        why = f"no metric found for the panel '{role.title}'; if there is one, name it: {how}"
        return finding(Outcome.NOT_APPLICABLE, why, severity="medium")
    if not span[0]:
        return finding(Outcome.NOT_APPLICABLE, f"nothing happened that the panel '{role.title}' could show")
    outcome, detail, severity = _judged(history, role, span, moved)
    if role.id in scrapes[1].get("unrouted", []):
        severity, detail = "medium", f"{detail}; no label says of which route"
    bad = int(outcome is Outcome.FAIL)
    told = "; ".join(f"{name} {before.get(name, 0.0):g} -> {after.get(name, 0.0):g}" for name in sorted(moved)[:4])
    return finding(outcome, f"{told}, where {detail}", n=int(span[0]), bad=bad, severity=severity)


def _judged(history: History, role: panels.Role, span: list[float], moved: Mapping[str, float]) -> tuple[Outcome, str, str]:
    """Outcome, what happened (and what is odd), and the severity of what is only told."""
    low, high = span
    best = max(moved.values())
    happened = f"{low:g} happened" if low == high or not high else f"{low:g} to {high:g} happened"
    if role.kind == "gauge":
        happened = f"{low:g} sessions were held"
    declared = role.id in json.loads(history.facts["metrics.names"])
    if best < _least(low):
        if history.facts.get("metrics.steady") == "no":
            why = "counters went down between two scrapes: several processes answer in turn"
            return Outcome.INCONCLUSIVE, f"{happened}; {why}", ""
        if role.firm or declared:
            return Outcome.FAIL, happened, ""
        return Outcome.NOT_APPLICABLE, f"{happened}; told only", "low"
    if best < low * (1 - SLACK) - SINGLE and role.kind != "gauge":
        return Outcome.PASS, f"{happened}: it counts fewer", "medium"
    if high and min(value for value in moved.values() if value >= _least(low)) > high * (1 + SLACK) + SINGLE:
        return Outcome.PASS, f"{happened}: it counts more", "medium"
    return Outcome.PASS, happened, ""


def _days(history: History, real: list[float], after: Mapping[str, Any]) -> Finding:
    """A gauge of days left, or of seconds, or the end itself as a time, must say what one of the served certificates says."""
    values = after["values"].get("certificate_days", {})
    expected = "panel 'certificate days': what the database's certificates say"
    if not values:
        why = "no metric of the certificate's end found (chaos-gate export certificates serves one)"
        return _finding(history, "certificate_days", Outcome.NOT_APPLICABLE, why, severity="low", expected=expected)
    told = "; ".join(f"{name} = {value:g}" for name, value in values.items())
    times = json.loads(history.facts["metrics.ends"])
    right = any(
        abs(value - days) <= 2 or abs(value / 86_400 - days) <= 2 or abs(value - end) <= 2 * 86_400
        for value in values.values()
        for days, end in zip(real, times, strict=True)
    )
    if right:
        return _finding(history, "certificate_days", Outcome.PASS, told, n=1, expected=expected)
    why = (
        f"{told}; the certificates have {', '.join(f'{one:.0f}' for one in real)} days; told only: it may be another certificate"
    )
    return _finding(history, "certificate_days", Outcome.NOT_APPLICABLE, why, severity="medium", expected=expected)
