from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from pypdf import PdfReader

from chaos.errors import EvidenceUnwritable, UsageError
from chaos.evidence import bundle, schema, words
from chaos.evidence.junit import junit
from chaos.evidence.record import HostFacts, dumps, loads
from chaos.model import Finding, GateResult, Outcome, Verdict
from tests.unit import evidence_sample
from tests.unit.evidence_sample import SECRET

ROOT = Path(__file__).parents[2]
KINDS = ("no-go", "clear", "go", "inconclusive", "environment")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return evidence_sample.store(tmp_path_factory.mktemp("store"), rounds=1, rate=20)


# -- evidence.json -------------------------------------------------------------------------------------------------------------------


def test_the_published_schema_is_current():
    published = (ROOT / "docs" / "evidence.schema.json").read_text(encoding="utf-8")
    assert published == schema.json_schema(), "run: python -m chaos.evidence.schema docs/evidence.schema.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(published))


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_json_keeps_the_contract(kind):
    run = evidence_sample.run(kind)
    data = json.loads(schema.evidence_json(run))
    jsonschema.validate(data, json.loads(schema.json_schema()))
    assert list(data) == [
        "schema_version",
        "verdict",
        "scope",
        "profile",
        "target",
        "seed",
        "started",
        "finished",
        "gates",
        "checks",
    ]
    for row in data["gates"]:
        assert list(row) == ["id", "verdict", "measured", "threshold", "n", "bound", "confidence", "reason", "checks"]
    for row in data["checks"]:
        assert list(row) == ["id", "gate", "outcome", "detail", "fault", "took_effect", "rerun"]
    assert data["verdict"] == run.verdict.value
    assert data["scope"] == run.scope
    assert data["started"] == "2026-11-24T00:00:00.000Z"
    [full] = [row for row in data["gates"] if row["id"] == "sec.verify_full"]
    assert full["bound"][0] == 0
    assert full["bound"][1] == pytest.approx(0.0391, abs=1e-4)
    assert (full["measured"], full["n"], full["confidence"]) == (0, 75, 0.95)
    assert '"measured": 0,' in schema.evidence_json(run)  # a count is written as one, not as 0.0
    assert {row["rerun"] for row in data["checks"] if row["id"] == "C1.reconnect"} == {
        "chaos-gate run --only C1.reconnect --seed 81723"
    }


def test_what_json_cannot_say_is_null_and_a_waived_check_has_proven_nothing():
    gate = GateResult(
        id="res.rollback",
        outcome=Outcome.FAIL,
        measured=float("inf"),
        threshold="<= 10 min",
        n=1,
        bound=None,
        confidence=0.95,
        reason="never",
    )
    finding = Finding(check="x", gate="res.rollback", outcome=Outcome.WAIVED, detail="d")
    run = replace(evidence_sample.run(), gates=(gate,), findings=(finding,))
    data = json.loads(schema.evidence_json(run))
    assert data["gates"][0]["measured"] is None
    assert data["checks"][0]["outcome"] == "inconclusive"
    assert data["checks"][0]["rerun"] == "chaos-gate run --only x --seed 81723"


def test_reading_back_and_what_is_not_evidence(tmp_path):
    path = tmp_path / "evidence.json"
    with pytest.raises(UsageError, match="no evidence of this version"):
        schema.read(path)
    path.write_text(schema.evidence_json(evidence_sample.run()))
    assert schema.read(path).verdict == "NO-GO"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"schema_version": 2}))
    with pytest.raises(UsageError, match=str(path)):
        schema.read(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_survives_the_store(kind):
    run = replace(evidence_sample.run(kind), selected=("sec.logs",))
    assert loads(dumps(run)) == run
    later = json.loads(dumps(run)) | {"a key of a later version": 1}
    assert loads(json.dumps(later)) == run


# -- junit.xml -----------------------------------------------------------------------------------------------------------------------


def cases(run):
    root = ET.fromstring(junit(run))  # noqa: S314  (our own text)
    return root, {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}


def test_one_case_a_check_with_its_story():
    run = evidence_sample.run()
    twice = replace(run.findings[0], outcome=Outcome.FAIL, detail="the second time it did not")
    root, found = cases(replace(run, findings=(*run.findings, twice)))
    assert len(found) == len(list(root.iter("testcase"))) == len({(one.gate, one.check) for one in run.findings})
    assert (root.get("tests"), root.get("failures"), root.get("errors"), root.get("skipped")) == ("12", "3", "1", "1")
    failure = found["chaos.res.pool", "pool.slots"].find("failure")
    assert failure is not None
    assert failure.text is not None
    for part in (
        "broken: max_connections reached",
        "expected: success holds",
        "seen: not serving",
        "again: chaos-gate run --only pool.slots",
    ):
        assert part in failure.text
    assert SECRET not in ET.tostring(root, encoding="unicode")
    assert found["chaos.sec.verify_full", "C1.reconnect"].find("failure") is not None  # worst of its two findings
    assert found["chaos.sec.audit_log", "audit"].find("skipped") is not None


@pytest.mark.parametrize("kind", ["clear", "go"])
def test_what_exits_0_has_no_failure_and_no_error(kind):
    root, found = cases(evidence_sample.run(kind))
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    skipped = found["chaos.res.network", "network.cut.pooled"].find("skipped")
    assert skipped is not None
    assert "not proven here" in skipped.get("message", "")


def test_a_waived_gate_is_skipped_and_an_environment_error_is_one():
    run = evidence_sample.run("environment")
    gates = tuple(
        replace(one, outcome=Outcome.WAIVED, reason="by the board") if one.id == "res.network" else one for one in run.gates
    )
    root, found = cases(replace(run, gates=gates))
    skipped = found["chaos.res.network", "network.cut.pooled"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "by the board"
    error = found["chaos", "environment"].find("error")
    assert error is not None
    assert "out of memory" in (error.text or "")
    assert root.get("errors") == "1"


def test_no_text_of_a_target_breaks_the_xml():
    finding = Finding(check="a<b>\x00", gate="g", outcome=Outcome.FAIL, detail="\x1b[31m ]]> \ud800 & \x0b", examples=("\ufffe",))
    root, _ = cases(replace(evidence_sample.run(), findings=(finding,)))
    assert root.get("failures") == "1"


# -- the directory -------------------------------------------------------------------------------------------------------------------


def test_a_bundle_is_whole_and_latest_points_to_it(tmp_path, store):
    first, second = tmp_path / "evidence" / "one", tmp_path / "evidence" / "two"
    bundle.write(first, evidence_sample.run(), store)
    assert sorted(path.name for path in first.iterdir()) == [
        "evidence.json",
        "junit.xml",
        "report.html",
        "scorecard.html",
        "scorecard.pdf",
    ]
    assert (tmp_path / "evidence" / "latest").resolve() == first
    assert (tmp_path / "evidence" / "latest").readlink() == Path("one")  # relative: the tree can be moved
    bundle.write(second, evidence_sample.run("clear"), store)
    assert (tmp_path / "evidence" / "latest").resolve() == second
    assert sorted(path.name for path in (tmp_path / "evidence").iterdir()) == ["latest", "one", "two"]
    page = (second / "report.html").read_text(encoding="utf-8")
    assert "Since the last run" in page
    assert "ended NO-GO" in page
    assert store.run().verdict is Verdict.CLEAR


def test_a_directory_of_ones_own_gets_no_link_beside_it(tmp_path, store):
    bundle.write(tmp_path / "mine", evidence_sample.run(), store)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    bundle.write(tmp_path / "mine", evidence_sample.run(), store, latest=True)
    assert (tmp_path / "latest").resolve() == tmp_path / "mine"


def test_where_a_link_cannot_be_a_file_names_the_directory(tmp_path):
    directory = tmp_path / "evidence" / "one"
    directory.mkdir(parents=True)
    (tmp_path / "evidence" / "latest").mkdir()  # somebody's own
    (tmp_path / "evidence" / "latest" / "kept").write_text("x")
    assert bundle.point(directory).name == "latest.txt"
    assert (tmp_path / "evidence" / "latest" / "kept").read_text() == "x"
    (tmp_path / "evidence" / "latest" / "kept").unlink()
    (tmp_path / "evidence" / "latest").rmdir()
    assert bundle.resolve(tmp_path / "evidence" / "latest") == directory
    assert bundle.resolve(tmp_path / "evidence" / "none") is None


def test_nothing_that_is_written_holds_a_secret(tmp_path, store):
    run = evidence_sample.run()
    told = "value-that-only-the-caller-knows"
    findings = (
        *run.findings,
        replace(run.failures[0], detail=f"answered with {told}", examples=(told,), fault=told, expected=told),
    )
    gates = tuple(replace(gate, reason=f"{gate.reason} {told}") for gate in run.gates)
    run = replace(
        run, findings=findings, gates=gates, command=f"x {told}", environment_error=told, parts={told: told}, target=told
    )
    bundle.write(tmp_path / "mine", run, store, secrets=[told])
    for path in (tmp_path / "mine").iterdir():
        if path.suffix == ".pdf":  # in its own place of the PDF, or in a stream of it
            text = " ".join(page.extract_text() for page in PdfReader(path).pages).replace("\n", "")
            assert told not in path.read_bytes().decode("latin-1")
        else:
            text = path.read_text(encoding="utf-8")
        assert SECRET not in text, path.name
        assert told not in text, path.name


def test_an_unwritable_directory_is_said_so(tmp_path, store):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EvidenceUnwritable, match="could not be written"):
        bundle.write(tmp_path / "file" / "one", evidence_sample.run(), store)


def test_a_file_is_there_whole_or_not_at_all(tmp_path, store):
    bundle.write(tmp_path / "one", evidence_sample.run(), store)
    before = (tmp_path / "one" / "evidence.json").read_text()
    (tmp_path / "one" / "report.html").unlink()
    (tmp_path / "one" / "report.html").mkdir()  # cannot be replaced by a file
    with pytest.raises(EvidenceUnwritable):
        bundle.write(tmp_path / "one", evidence_sample.run(), store)
    assert (tmp_path / "one" / "evidence.json").read_text() == before
    assert not [path for path in (tmp_path / "one").iterdir() if path.name.startswith(".")]


# -- words ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0 %"), (1, "100 %"), (0.0391, "3.9 %"), (0.000166, "0.017 %"), (0.0073, "0.73 %"), (0.4, "40 %"), (0.99983, "99.983 %"),
     (0.9918, "99.18 %"), (1e-9, "< 0.0001 %"), (1 - 1e-9, "> 99.9999 %"), (0.953, "95.3 %")],
)  # fmt: skip
def test_a_share_is_said_with_what_matters(share, said):
    assert words.percent(share) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0061, "6 ms"), (0.12, "0.12 s"), (1.84, "1.8 s"), (10.0, "10 s"), (250, "4 min 10 s"), (600, "10 min"), (9000, "2 h 30 min"),
     (172_800, "48 h")],
)  # fmt: skip
def test_a_duration_is_said_in_its_unit(seconds, said):
    assert words.duration(seconds) == said


def gate(**more):
    defaults = {"id": "rel.availability", "outcome": Outcome.PASS, "threshold": ">= 99.9 %", "confidence": 0.95, "reason": "r"}
    return GateResult(**(defaults | {"measured": None, "n": 0, "bound": None} | more))


def test_a_count_and_a_share_are_told_apart():
    assert words.bad_count(gate(measured=1.0, n=75, bound=(0.0007, 0.06))) == 1
    assert words.bad_count(gate(measured=1.0, n=75, bound=(0.96, 1.0))) == 75
    assert words.bad_count(gate(measured=1.0, n=1, bound=(0.05, 1.0))) == 1
    assert words.bad_count(gate(measured=0.01, n=300, bound=(0.002, 0.03))) == 3
    assert words.bad_count(gate(measured=0.0, n=300, bound=(0.0, 0.01))) == 0
    assert words.bad_count(gate()) is None


def test_the_bound_speaks_in_the_direction_of_the_threshold():
    assert words.bound(gate(n=18_000, measured=0.0, bound=(0.0, 0.000166))) == "at least 99.983 %"
    assert words.bound(gate(id="sec.verify_full", threshold="== 0", n=75, measured=0.0, bound=(0.0, 0.0391))) == "at most 3.9 %"
    assert words.measured(gate(n=18_000, measured=0.0, bound=(0.0, 0.000166))) == "100 %"


def test_what_is_lacking_is_said_once():
    short = gate(
        outcome=Outcome.INCONCLUSIVE, measured=0.0, n=366, bound=(0.0, 0.0082),
        reason="0 of 366 availability: bound 0.82%, needs 2,629 more for >= 99.9 %",
    )  # fmt: skip
    assert words.observed(short) == "0 of 366 requests failed"
    assert words.bounded(short) == "bound 0.82 %, needs 2,629 more"
    assert words.reason(short) == "0 of 366 requests failed: needs 2,629 more for >= 99.9 %"
    odd = gate(
        id="sec.verify_full", outcome=Outcome.INCONCLUSIVE, n=75, measured=0.0, bound=(0, 0.04), reason="C1: it never connected"
    )
    assert words.observed(odd) == "0 of 75 wrong servers accepted"
    assert words.bounded(odd) == "bound 4.0 %, C1: it never connected"
    assert words.bounded(gate(outcome=Outcome.INCONCLUSIVE, reason="no check of this gate ran")) == ""


def test_the_verdict_line_promises_no_more_than_is_true():
    clear = words.sentence(evidence_sample.run("clear"))
    assert (
        clear
        == "nothing failed · 24 gates proven · 4 not proven here (a soak can: chaos-gate soak) · 1 waived · 2 not applicable"
    )
    assert "2 gates failed" in words.sentence(evidence_sample.run())
    assert "soak can" not in words.sentence(evidence_sample.run("go"))
    open_run = evidence_sample.run("inconclusive")
    assert (
        "6 not proven that this run must prove (sec.unknown_host_400, sec.host_allowlist, rel.no_400_to_500 and 3 more)"
        in words.sentence(open_run)
    )
    assert "1 not proven that this run must prove (res.pool)" in words.sentence(replace(open_run, selected=("res.pool",)))
    assert "the environment failed, not the target" in words.sentence(evidence_sample.run("environment"))


def test_every_gate_that_counts_has_words_and_every_word_a_gate():
    known = words.catalogue()
    assert set(words.BAD) <= set(known)
    counting = {key for key, one in known.items() if one.rule in {"zero", "rate"}}
    assert counting <= set(words.BAD)
    assert all(words.prover(key) for key in known)


def test_the_host_is_described_but_not_named():
    facts = HostFacts.here()
    assert facts.cores >= 1
    assert facts.python.startswith("3.")
    assert os.uname().nodename not in (facts.kernel, facts.machine)
