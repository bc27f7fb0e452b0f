"""Prometheus alerting and recording rules, and their unit tests: `chaos-gate export prometheus`.

https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/ and .../unit_testing_rules/. What cannot be seen is an alert
of its own: an alert on a value is silent when there is no value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chaos.export.certificate_rules import certificates
from chaos.export.policy import as_yaml
from chaos.export.soak_rules import soak
from chaos.export.target_rules import target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from chaos.export.policy import Policy
    from chaos.export.rules import Group

GROUPS = ("certificates", "target", "soak")


def groups(policy: Policy, only: Iterable[str] = GROUPS) -> tuple[Group, ...]:
    """The groups of these names, in the file's order."""
    made: dict[str, Callable[[], Group]] = {
        "certificates": lambda: certificates(policy.gates["sec.cert_expiry"].limit),
        "target": lambda: target(policy),
        "soak": lambda: soak(policy),
    }
    wanted = set(only)
    return tuple(make() for name, make in made.items() if name in wanted)


def rules(policy: Policy, only: Iterable[str] = GROUPS) -> str:
    """The rule file, for rule_files."""
    made = groups(policy, only)
    notes = ["Load it with rule_files.", *(f"{group.name}: {note}" for group in made for note in group.notes)]
    return policy.header("Alerting and recording rules", "prometheus", notes) + as_yaml(
        {"groups": [group.row() for group in made if group.rules or group.recordings]}
    )


def unit_tests(policy: Policy, rule_file: str, only: Iterable[str] = GROUPS) -> str:
    """`promtool test rules` of all of them: each alert fires, and is silent when all is well and in its own quiet states."""
    made = groups(policy, only)
    document = {"rule_files": [rule_file], "evaluation_interval": "2m", "tests": list(_states(made))}
    return policy.header("Unit tests of the rules", "prometheus --tests", ["Run them: promtool test rules FILE"]) + as_yaml(
        document
    )


def _states(made: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """All is well; then states in which alerts fire, and states in which they must not.

    States that touch different series are one: promtool opens a database for each, which takes longer than all that it evaluates.
    """
    well = {series: values for group in made for series, values in group.well.items()}
    rules = [rule for group in made for rule in group.rules]
    yield _test("all is well", well, {rule.alert: False for rule in rules})
    firing = _together([(rule.alert, state, rule.alone) for rule in rules for state in (rule.fires, *rule.more)])
    quiet = _together([(rule.alert, state, rule.alone) for rule in rules for state in rule.quiet])
    for fires, states in ((True, firing), (False, quiet)):
        for alerts, changed in states:
            name = f"{'these fire' if fires else 'these are silent'}: {', '.join(alerts)}"
            yield _test(name, {**well, **changed}, dict.fromkeys(alerts, fires))


def _together(states: Iterable[tuple[str, Mapping[str, str], bool]]) -> list[tuple[list[str], dict[str, str]]]:
    """(alerts, the series that are changed): each state in the first heap whose series and alerts it shares none of."""
    heaps: list[tuple[list[str], dict[str, str]]] = []
    single = []
    for alert, changed, alone in states:
        free = next((heap for heap in heaps if alert not in heap[0] and not heap[1].keys() & changed.keys()), None)
        if alone:
            single.append(([alert], dict(changed)))
        elif free is None:
            heaps.append(([alert], dict(changed)))
        else:
            free[0].append(alert)
            free[1].update(changed)
    return [*heaps, *single]


def _test(name: str, series: Mapping[str, str], expected: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items() if values],
        "promql_expr_test": [_expectation(alert, fires=fires) for alert, fires in expected.items()],
    }


def _expectation(alert: str, *, fires: bool) -> dict[str, Any]:
    expr = f'(count(ALERTS{{alertstate="firing",alertname="{alert}"}}) or vector(0)) > bool 0'
    return {"expr": expr, "eval_time": "1h", "exp_samples": [{"labels": "{}", "value": int(fires)}]}
