"""Gates by the criteria that they support: every one that was asked for, true to evidence.json, and harmless in a spreadsheet."""

import csv
import hashlib
import io
import json

import pytest
from click.testing import CliRunner

from chaos.commands.soc2 import command
from chaos.evidence.schema import Evidence, evidence_of
from chaos.export.soc2 import COLUMNS, as_csv, as_page, controls
from chaos.gates import load
from tests.unit.evidence_sample import run


def rows(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
def evidence():
    return evidence_of(run("no-go"))


def test_every_criterion_that_is_asked_for_is_there():
    """statistics.md, Evidence."""
    asked = {"CC6.1", "CC6.6", "CC6.7", "CC7.1", "CC7.2", "CC7.3", "CC7.4", "CC7.5", "CC8.1", "A1.3"}
    assert {one.id for one in controls() if one.framework == "SOC 2"} == asked
    assert {one.id.partition("(")[0] for one in controls() if one.framework == "HIPAA"} == {"164.312", "164.308"}


def test_every_gate_named_is_one_and_says_how():
    known = load()
    for control in controls():
        assert control.gates
        assert set(control.gates) <= set(known), control.id
        assert all(control.gates.values())


def test_a_row_says_what_evidence_json_says(evidence):
    listed = rows(as_csv(evidence, "d" * 64))
    assert tuple(listed[0]) == COLUMNS
    assert len(listed) == sum(len(one.gates) for one in controls())
    gates = {one.id: one for one in evidence.gates}
    for row in listed:
        gate = gates[row["gate"]]
        assert (row["verdict"], row["n"], row["evidence_sha256"]) == (gate.verdict, str(gate.n), "d" * 64)
        assert (row["statement"] == "supports") is (gate.verdict == "pass")


def test_nothing_says_satisfies(evidence):
    both = as_csv(evidence, "0") + as_page(evidence, "0", load())
    assert "satisfies" not in both.lower()


def test_nothing_becomes_a_formula(evidence):
    raw = evidence.model_dump(mode="json")
    raw["target"] = '=HYPERLINK("http://x.example","y")'
    raw["gates"][0]["reason"] = "@SUM(1)"
    listed = rows(as_csv(Evidence.model_validate_json(json.dumps(raw)), "0"))
    assert not any(value.startswith(("=", "+", "@")) for row in listed for value in row.values())
    shown = as_page(Evidence.model_validate_json(json.dumps({**raw, "target": "<script>alert(1)</script>"})), "0", load())
    assert "<script>" not in shown


def test_a_gate_that_is_missing_is_said(evidence):
    raw = evidence.model_dump(mode="json")
    raw["gates"] = [one for one in raw["gates"] if one["id"] != "sec.waf"]
    listed = rows(as_csv(Evidence.model_validate_json(json.dumps(raw)), "0"))
    assert {row["statement"] for row in listed if row["gate"] == "sec.waf"} == {"not in this run"}


def test_the_command_writes_both(tmp_path, evidence):
    (tmp_path / "evidence.json").write_text(json.dumps(evidence.model_dump(mode="json")), encoding="utf-8")
    done = CliRunner().invoke(command, [str(tmp_path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    digest = hashlib.sha256((tmp_path / "evidence.json").read_bytes()).hexdigest()
    assert {row["evidence_sha256"] for row in rows((tmp_path / "out" / "soc2.csv").read_text(encoding="utf-8"))} == {digest}
    assert digest in (tmp_path / "out" / "soc2.html").read_text(encoding="utf-8")
