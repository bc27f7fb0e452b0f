"""What is exported, under the linters of those who read it. They take minutes to build, once: CHAOS_DETECTION=all."""

import os
import subprocess

import jsonschema
import pytest
import yaml

from chaos.export import alertmanager, argo, prometheus
from tests import go_tools
from tests.unit.test_exported_files import POLICIES, every
from tests.unit.test_exported_rules import policy

pytestmark = pytest.mark.skipif(os.environ.get("CHAOS_DETECTION") != "all", reason="builds of minutes: CHAOS_DETECTION=all")


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@every
def test_amtool_takes_the_routes(tmp_path, made):
    code, said = run(go_tools.amtool(), "check-config", written(tmp_path / "a.yml", alertmanager.config(made)))
    assert code == 0, said


def test_amtool_finds_a_receiver_that_is_not_there(tmp_path):
    text = alertmanager.config(policy()).replace("- name: chaos-gate-critical", "- name: chaos-gate-other")
    assert run(go_tools.amtool(), "check-config", written(tmp_path / "a.yml", text))[0] == 1


def test_each_alert_goes_to_the_receiver_of_its_severity(tmp_path):
    path = written(tmp_path / "a.yml", alertmanager.config(policy()))
    for group in prometheus.groups(policy()):
        for rule in group.rules:
            labels = (f"alertname={rule.alert}", f"severity={rule.severity}", f"gate={rule.gate}")
            code, said = run(go_tools.amtool(), "config", "routes", "test", f"--config.file={path}", *labels)
            assert (code, said.strip()) == (0, f"chaos-gate-{rule.severity}")


@every
def test_argos_linter_takes_the_rollout(tmp_path, made):
    path = written(tmp_path / "r.yml", argo.rollout(made))
    assert run(go_tools.argo() / "kubectl-argo-rollouts", "lint", "-f", path) == (0, "")


def test_argos_linter_finds_a_weight_that_is_none(tmp_path):
    path = written(tmp_path / "r.yml", argo.rollout(policy()).replace("setWeight: 25", "setWeight: 250"))
    assert run(go_tools.argo() / "kubectl-argo-rollouts", "lint", "-f", path)[0] == 1


def strict(node):
    """A resource definition's schema that takes no member it does not know: the linter above says nothing about those."""
    if isinstance(node, dict):
        node = {key: strict(value) for key, value in node.items()}
        if "properties" in node and isinstance(node["properties"], dict) and "additionalProperties" not in node:
            node["additionalProperties"] = bool(node.get("x-kubernetes-preserve-unknown-fields"))
        return node
    return [strict(one) for one in node] if isinstance(node, list) else node


def schemas():
    found = {}
    for path in (go_tools.argo() / "crds").glob("*-crd.yaml"):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        schema = strict(spec["versions"][0]["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        found[spec["names"]["kind"]] = schema
    return found


def test_argos_resource_definitions_know_every_member():
    known = schemas()
    for made in POLICIES.values():
        for one in yaml.safe_load_all(argo.rollout(made)):
            jsonschema.validate(one, known[one["kind"]])
    wrong = next(yaml.safe_load_all(argo.rollout(policy()).replace("failureLimit", "failureLimt")))
    with pytest.raises(jsonschema.ValidationError, match="failureLimt"):
        jsonschema.validate(wrong, known["AnalysisTemplate"])
