"""Pages for customers: a sentence is there exactly when its gates passed, and a bundle that does not verify says nothing."""

import json

import pytest
from click.testing import CliRunner

from chaos.commands.trust import command
from chaos.evidence.schema import Evidence, evidence_of
from chaos.evidence.store import STORE, Segment, merge
from chaos.export import trust
from chaos.gates import load
from chaos.model import History
from tests.unit import evidence_sample

PASSING = {"verdict": "pass", "measured": 1.5, "n": 4321, "bound": [0.0, 0.0123]}


def gates(**verdicts):
    """All gates passing, but for those named ('res__rollback')."""
    raw = evidence_of(evidence_sample.run("go")).model_dump(mode="json")
    for one in raw["gates"]:
        one.update(PASSING)
        one["verdict"] = verdicts.get(one["id"].replace(".", "__"), "pass")
    return {gate.id: gate for gate in Evidence.model_validate_json(json.dumps(raw)).gates}


def all_of(kind):
    return trust._said()[kind]


def test_every_gate_that_is_named_is_one():
    known = set(load())
    named = {gate for kind in ("statement", "question") for one in all_of(kind) for gate in one["gates"]}
    assert named | {one["gate"] for one in all_of("slo")} <= known


def test_all_is_said_when_all_is_proven():
    found = trust.topics(gates())
    assert sum(len(sentences) for _, sentences in found) == len(all_of("statement"))
    assert trust.unsaid(gates()) == []
    assert "4,321 connections to wrong servers" in " ".join(one for _, sentences in found for one in sentences)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "waived", "not_applicable"])
@pytest.mark.parametrize("gate", sorted({gate for one in all_of("statement") for gate in one["gates"]}))
def test_nothing_is_said_that_is_not_proven(gate, verdict):
    these = gates(**{gate.replace(".", "__"): verdict})
    standing = [one["text"] for one in all_of("statement") if gate in one["gates"]]
    said = " ".join(one for _, sentences in trust.topics(these) for one in sentences)
    assert not any(text.partition("{")[0] in said for text in standing)
    assert any(f"{gate} ({verdict.replace('_', ' ')})" in one for one in trust.unsaid(these))
    for question, answer in trust.questions(these):
        about = next(one for one in all_of("question") if one["ask"] == question)
        assert answer.startswith("This run does not show it") is (gate in about["gates"])


def test_a_service_level_is_only_measured_where_its_gate_passed():
    levels = {one.name: one.measured for one in trust.objectives(gates(rel__p95="inconclusive"))}
    assert levels["Latency, P95"] == ""
    assert levels["Availability"]


@pytest.fixture
def bundle(tmp_path):
    """A directory with evidence.json, and a store that knows the runbook's head."""
    head = {"owner": "x", "date": "2026-11-27", "acknowledge_minutes": "15", "update_minutes": "30", "report_days": "5"}
    seen = json.dumps([{"id": "status-page-runbook", "head": head}])
    with Segment(tmp_path / "segments" / "gw0.sqlite") as segment:
        segment.append(History(experiment="documents", started=1.0, facts={"documents": seen, "gate": "rep.documents"}))
    merge(tmp_path).close()
    assert (tmp_path / STORE).exists()

    def with_check(outcome):
        raw = evidence_of(evidence_sample.run("go")).model_dump(mode="json")
        raw["checks"].append({**raw["checks"][0], "id": "status-page-runbook.documents", "outcome": outcome})
        (tmp_path / "evidence.json").write_text(json.dumps(raw), encoding="utf-8")
        return tmp_path

    return with_check


def test_times_of_response_come_from_the_runbook_that_was_checked(bundle, tmp_path):
    trust.write(bundle("pass"), tmp_path / "trust", origin="signed by us")
    text = (tmp_path / "trust" / "one-pager.html").read_text(encoding="utf-8")
    assert "15 minutes" in text
    assert "5 working days" in text
    assert "signed by us" in text


def test_times_of_a_runbook_that_did_not_pass_are_not_said(bundle, tmp_path):
    trust.write(bundle("fail"), tmp_path / "trust", origin="")
    assert "15 minutes" not in (tmp_path / "trust" / "one-pager.html").read_text(encoding="utf-8")


def test_a_bundle_that_does_not_verify_says_nothing(bundle, tmp_path):
    done = CliRunner().invoke(command, [str(bundle("pass")), "-o", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "does not verify" in done.output
    assert not (tmp_path / "out").exists()
