"""All exports in one directory, with an index that says what each file is and how it is checked: `chaos-gate export all`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.errors import ChaosError
from chaos.export import alertmanager, argo, grafana, openslo, prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.export.policy import Policy

RULES, TESTS = "prometheus.rules.yml", "prometheus.rules.test.yml"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file: `make` gives name -> text, `check` is the command of the tool that reads it."""

    title: str
    check: str
    make: Callable[[Policy], Mapping[str, str]]


KINDS = (
    Kind("Prometheus: alerting and recording rules", f"promtool check rules {RULES}", lambda it: {RULES: prometheus.rules(it)}),
    Kind("Their unit tests", f"promtool test rules {TESTS}", lambda it: {TESTS: prometheus.unit_tests(it, RULES)}),
    Kind(
        "Grafana: dashboards",
        "",
        lambda it: {f"grafana/{name}.json": text for name, text in grafana.dashboards(it).items()},
    ),
    Kind(
        "Alertmanager: routes and receivers",
        "amtool check-config alertmanager.yml",
        lambda it: {"alertmanager.yml": alertmanager.config(it)},
    ),
    Kind(
        "Argo Rollouts: analysis and steps",
        "kubectl argo rollouts lint -f argo-rollouts.yml",
        lambda it: {"argo-rollouts.yml": argo.rollout(it)},
    ),
    Kind("OpenSLO v1", "oslo validate -f openslo.yml", lambda it: {"openslo.yml": openslo.objects(it)}),
)


def files(policy: Policy, also: Mapping[str, tuple[str, str]] | None = None) -> dict[str, str]:
    """Name -> text of every file, README.md last. `also`: what others make, name -> (title, text)."""
    made: dict[str, str] = {}
    rows, left_out = [], []
    for kind in KINDS:
        try:
            found = kind.make(policy)
        except ChaosError as error:  # the rest is of use without it
            left_out.append(f"- {kind.title}: {error.what} ({error.remedy})")
            continue
        made |= found
        rows += [_row(name, kind.title, kind.check) for name in found]
    for name, (title, text) in (also or {}).items():
        made[name] = text
        rows.append(_row(name, title, f"locust -f {name} --list"))
    return {**made, "README.md": _index(policy, rows, left_out)}


def _row(name: str, title: str, check: str) -> str:
    return f"| `{name}` | {title} | {f'`{check}`' if check else 'importing it'} |"


def _index(policy: Policy, rows: list[str], left_out: list[str]) -> str:
    if policy.metrics is None:
        missing = ["- panels and alerts of the target: not applicable: no [target.metrics]"]
    else:
        missing = [f"- panels and alerts of `{role}`: the target has no metric for it" for role in policy.metrics.missing()]
    head = policy.header("Exports", "all").replace("# ", "")
    table = ["| file | what | checked by |", "|---|---|---|", *rows]
    out = ["", "Left out:", "", *left_out, *missing] if left_out or missing else []
    return "\n".join(["# Exports of chaos-gate", "", head.rstrip(), "", *table, *out]) + "\n"
