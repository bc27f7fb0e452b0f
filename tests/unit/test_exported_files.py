"""Dashboards, roll-outs, SLOs and routes: that they are well-formed, agree with themselves, and are made of the gates."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from chaos.cli import cli
from chaos.environments.local import prometheus as tools
from chaos.errors import UsageError
from chaos.export import alertmanager, argo, dashboards, everything, grafana, openslo, prometheus
from tests.unit.test_exported_rules import DECLARED, MICROMETER, NASTY, policy

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes and OpenSLO have it
POLICIES = {
    "the reference": policy(),
    "declared": policy(DECLARED, target="Orders & Söhne", job=NASTY.replace("{", "")),
    "seen": policy(text=MICROMETER),
}
every = pytest.mark.parametrize("made", POLICIES.values(), ids=POLICIES)


def documents(text):
    return list(yaml.safe_load_all(text))


# -- Grafana -----------------------------------------------------------------------------------------------------------------------


@every
def test_dashboards_are_what_grafanas_own_types_read(made):
    register_default_plugins()
    for uid, text in grafana.dashboards(made).items():
        again = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(json.loads(text))))
        assert again == json.loads(text)
        assert len(uid) <= 40  # Grafana's own limit
        panels = json.loads(text)["panels"]
        places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}
        assert len(places) == len({one["id"] for one in panels}) == len(panels)


def test_every_panel_of_the_requirement_is_there():
    titles = {panel.title for board in dashboards.boards(policy()) for panel in board.panels}
    for wanted in ("4xx by route", "5xx by route", "Unknown-host rejections", "TLS handshake errors of the database"):
        assert wanted in titles
    assert {"Database retries", "P95", "P99", "Pool saturation", "SEO crawler pass-through", "Firing alerts"} <= titles
    assert {"Hours by colour", "Green hours in a row", "Error budget burnt", "Faults"} <= titles


@every
def test_queries_are_promql(tmp_path, made):
    """Prometheus' own parser reads each: as a recording rule."""
    exprs = [query.expr for board in dashboards.boards(made) for panel in board.panels for query in panel.queries]
    rows = [{"record": f"a:{n}", "expr": expr.replace(dashboards.WINDOW, "5m")} for n, expr in enumerate(exprs)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": rows}]}), encoding="utf-8")
    done = subprocess.run(
        [tools.ensure().promtool, "check", "rules", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_thresholds_are_the_gates():
    made = policy(overrides={"rel.p95": 200.0})
    board = json.loads(grafana.dashboards(made)["chaos-gate-orders"])
    steps = {one["title"]: one["fieldConfig"]["defaults"].get("thresholds", {}).get("steps") for one in board["panels"]}
    assert steps["P95"][1] == {"color": "red", "value": 0.2}
    assert steps["Days until the database's certificate ends"] == [
        {"color": "red", "value": None},
        {"color": "green", "value": 30},
    ]


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "grafana_foundation_sdk", None)
    done = CliRunner().invoke(cli, ["export", "grafana", "-o", str(tmp_path)])
    assert (done.exit_code, "pip install 'chaos-gate[export]'" in done.output) == (4, True)
    index = everything.files(policy())["README.md"]
    assert "Grafana: dashboards: Grafana's builders are not installed" in index


# -- Argo Rollouts -----------------------------------------------------------------------------------------------------------------


def test_argument_of_argos_own_shape_is_refused():
    with pytest.raises(UsageError, match="as an argument of its own"):
        argo.rollout(policy(job="{{args.x}}"))


@every
def test_argos_templates_and_what_they_are_given_agree(made):
    *templates, rollout = documents(argo.rollout(made))
    declared = {}
    for one in templates:
        used = set(re.findall(r"\{\{args\.([\w-]+)\}\}", json.dumps(one["spec"]["metrics"])))
        declared[one["metadata"]["name"]] = {arg["name"] for arg in one["spec"]["args"]}
        assert used == declared[one["metadata"]["name"]]
    canary = rollout["spec"]["strategy"]["canary"]
    runs = [step["analysis"] for step in canary["steps"] if "analysis" in step] + [canary["analysis"]]
    for run in runs:
        assert {arg["name"] for arg in run["args"]} == declared[run["templates"][0]["templateName"]]
    assert all(NAME.fullmatch(one["metadata"]["name"]) for one in (*templates, rollout))


def test_argos_steps_are_the_requirement():
    steps = documents(argo.rollout(policy()))[-1]["spec"]["strategy"]["canary"]["steps"]
    assert [step["setWeight"] for step in steps if "setWeight" in step] == [5, 25, 50, 100]
    assert sum(int(step["pause"]["duration"][:-1]) for step in steps if "pause" in step) == 24
    assert "analysis" in steps[0]


def test_argo_holds_by_the_conditions_of_pause():
    metrics = {one["name"]: one for one in documents(argo.rollout(policy()))[1]["spec"]["metrics"]}
    assert {"p95-to-baseline", "errors-5xx", "unknown-hosts", "database-tls-failures"} == set(metrics)
    assert metrics["p95-to-baseline"]["failureCondition"].endswith("> 1.15")
    assert metrics["errors-5xx"]["failureCondition"].endswith("> 0.005")
    assert metrics["database-tls-failures"]["failureCondition"].endswith("> 0.002")
    assert all("len(result) > 0" in one["successCondition"] for one in metrics.values())  # no data is no success


def test_argo_without_metrics_is_held_by_the_verdict():
    text = argo.rollout(replace(policy(), metrics=None))
    assert len(documents(text)) == 2
    assert "# not applicable: no [target.metrics]" in text
    assert "analysis" not in {key for key in documents(text)[-1]["spec"]["strategy"]["canary"] if key != "steps"}


# -- OpenSLO -----------------------------------------------------------------------------------------------------------------------

# The parts of the specification that are used here (its README, 'Object Types'), and nothing else allowed.
QUERY = {
    "type": "object",
    "required": ["metricSource"],
    "properties": {"metricSource": {"required": ["spec"], "properties": {"spec": {"required": ["query"]}}}},
}
SPECS = {
    "Service": {"required": [], "properties": {"description": {"maxLength": 1050}}},
    "DataSource": {"required": ["type", "connectionDetails"], "properties": {"type": {}, "connectionDetails": {}}},
    "SLI": {
        "required": ["ratioMetric"],
        "properties": {
            "description": {"maxLength": 1050},
            "ratioMetric": {
                "additionalProperties": False,
                "required": ["counter", "bad", "total"],
                "properties": {"counter": {"type": "boolean"}, "bad": QUERY, "total": QUERY},
            },
        },
    },
    "SLO": {
        "required": ["service", "indicatorRef", "budgetingMethod", "objectives", "timeWindow"],
        "properties": {
            "description": {"maxLength": 1050},
            "service": {},
            "indicatorRef": {},
            "timeWindow": {"minItems": 1, "maxItems": 1},
            "budgetingMethod": {"enum": ["Occurrences", "Timeslices", "RatioTimeslices"]},
            "objectives": {
                "items": {
                    "additionalProperties": False,
                    "required": ["target"],
                    "properties": {
                        "displayName": {},
                        "target": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                    },
                }
            },
            "alertPolicies": {"items": {"required": ["alertPolicyRef"]}},
        },
    },
    "AlertPolicy": {
        "required": ["conditions", "notificationTargets"],
        "properties": {
            "description": {"maxLength": 1050},
            "alertWhenNoData": {"type": "boolean"},
            "alertWhenResolved": {"type": "boolean"},
            "alertWhenBreaching": {"type": "boolean"},
            "conditions": {"minItems": 1, "maxItems": 1, "items": {"required": ["kind", "metadata", "spec"]}},
            "notificationTargets": {"items": {"required": ["targetRef"]}},
        },
    },
    "AlertNotificationTarget": {"required": ["target"], "properties": {"target": {}, "description": {}}},
}


def slos(made):
    found = documents(openslo.objects(made))
    for one in found:
        assert set(one) == {"apiVersion", "kind", "metadata", "spec"}
        assert one["apiVersion"] == "openslo/v1"
        assert NAME.fullmatch(one["metadata"]["name"])
        jsonschema.validate(one["spec"], {**SPECS[one["kind"]], "additionalProperties": False})
    return found


@every
def test_openslo_is_as_specified_and_refers_to_what_is_there(made):
    found = slos(made)
    names = {kind: {one["metadata"]["name"] for one in found if one["kind"] == kind} for kind in SPECS}
    for one in found:
        if one["kind"] == "SLO":
            assert one["spec"]["indicatorRef"] in names["SLI"]
            assert one["spec"]["service"] in names["Service"]
            assert {row["alertPolicyRef"] for row in one["spec"].get("alertPolicies", [])} <= names["AlertPolicy"]
        if one["kind"] == "AlertPolicy":
            assert {row["targetRef"] for row in one["spec"]["notificationTargets"]} <= names["AlertNotificationTarget"]


def test_openslo_says_that_it_cannot_say_how_sure_it_is():
    text = openslo.objects(policy())
    assert text.count("cannot express confidence") == 1
    targets = {one["metadata"]["name"]: one["spec"]["objectives"][0]["target"] for one in slos(policy()) if one["kind"] == "SLO"}
    assert targets == {
        "orders-rel-availability": 0.999,
        "orders-rel-p95": 0.95,
        "orders-rel-p99": 0.99,
        "orders-sec-tls-handshake": 0.999,
    }


def test_a_gate_without_a_budget_is_left_out_of_openslo():
    text = openslo.objects(policy(overrides={"rel.availability": 100.0}))
    assert "# not expressed: rel.availability: its limit leaves no budget" in text
    assert "rel-availability" not in text


def test_openslo_without_metrics_is_an_error_in_words():
    done = CliRunner().invoke(cli, ["export", "openslo", "-c", "tests/detection/targets/tiny/chaos.toml"])
    assert done.exit_code == 2
    assert "not applicable: no [target.metrics]" in done.output


# -- Alertmanager ------------------------------------------------------------------------------------------------------------------


def test_every_alert_is_routed_and_every_receiver_exists():
    made = policy()
    config = yaml.safe_load(alertmanager.config(made))
    routed = {route["matchers"][0] for route in config["route"]["routes"][0]["routes"]}
    severities = {rule.severity for group in prometheus.groups(made) for rule in group.rules}
    assert routed == {f'severity="{one}"' for one in severities}
    receivers = {one["name"] for one in config["receivers"]}
    assert {config["route"]["receiver"], *(one["receiver"] for one in config["route"]["routes"][0]["routes"])} == receivers
    known = {rule.alert for group in prometheus.groups(made) for rule in group.rules}
    named = set(re.findall(r"(?<==)\"([\w|]+)\"|(?<==~)\"([\w|]+)\"", json.dumps(config["inhibit_rules"]).replace('\\"', '"')))
    assert {name for pair in named for part in pair for name in part.split("|") if name[:1].isupper()} <= known


def test_alertmanagers_file_holds_no_address():
    text = alertmanager.config(policy())
    assert "http" not in text
    assert "url_file" in text


# -- all of them -------------------------------------------------------------------------------------------------------------------


def test_all_of_them_and_an_index(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for place in (first, second):
        assert CliRunner().invoke(cli, ["export", "all", "-o", str(place)]).exit_code == 0
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    index = (first / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in index for name in map(str, files) if name != "README.md")
    digest = policy().digest
    assert all(digest in (first / name).read_text(encoding="utf-8") for name in files if name.suffix != ".py")
    locust = [sys.executable, "-m", "locust", "-f", first / "locustfile.py", "--list"]  # Locust's own loader reads it
    done = subprocess.run(locust, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "Idle" in done.stdout + done.stderr) == (0, True)


def test_all_without_metrics(tmp_path):
    config = "tests/detection/targets/tiny/chaos.toml"
    assert CliRunner().invoke(cli, ["export", "all", "-c", config, "-o", str(tmp_path)]).exit_code == 0
    index = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "- OpenSLO v1: not applicable: no [target.metrics]" in index
    assert not (tmp_path / "openslo.yml").exists()
    assert (tmp_path / "prometheus.rules.yml").exists()


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = CliRunner().invoke(cli, ["export", "all", "-o", str(tmp_path / "file" / "below")])
    assert (done.exit_code, "Traceback" in done.output) == (4, False)
