"""The pack before a review: every part from one run, what is missing named, nobody else's files touched."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from click.testing import CliRunner

from chaos.commands.pack import command
from chaos.errors import UsageError
from chaos.evidence import bundle
from chaos.evidence.disk import write_text
from chaos.evidence.schema import evidence_json
from chaos.gates import judge, load
from chaos.model import Finding, Outcome
from chaos.pack import INDEX, PARTS, SUMS, Part, pack
from tests.unit import evidence_sample

QUICK = tuple(one for one in PARTS if one.files) + (
    Part("Certificates", "what its checks said", gate="sec.verify_full", output="verify.txt"),
    Part("Documents", "what its checks said", gate="rep.documents", output="documents.txt"),
    Part("Gates", "a command of ours", command=("gates", "{config}"), output="gates.txt"),
    Part("Nothing", "a command that nobody knows", command=("gatess",), output="nothing.txt"),
)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "evidence" / "one"
    place.mkdir(parents=True)
    with evidence_sample.store(place, rounds=1, rate=20) as store:
        bundle.write(place, replace(evidence_sample.run("clear"), target="<b>&"), store)
    return place


def test_the_pack_of_a_run(evidence, tmp_path):
    place, made = pack(evidence, tmp_path / "pack", None, QUICK)
    text = (place / INDEX).read_text(encoding="utf-8")
    assert "CLEAR" in text
    assert "&lt;b&gt;&amp;" in text
    missing = {one.part.title: one.reason for one in made if one.reason}
    assert set(missing) == {
        "Attestation",
        "Documents",
        "Nothing",
    }  # not attested, not looked into, and no command of ours
    assert missing["Documents"] == "this run did not look into rep.documents"
    assert "sec.verify_full: PASS" in (place / "verify.txt").read_text(encoding="utf-8")
    assert "C1.reconnect: refused" in (place / "verify.txt").read_text(encoding="utf-8")
    assert "did you mean 'gates'" in missing["Nothing"]
    assert "the run left no attestation.json" in text
    assert "NOT COMPLETE" in text
    for name in ("scorecard.pdf", "scorecard.html", "report.html", "evidence.json", "junit.xml"):
        assert (place / name).read_bytes() == (evidence / name).read_bytes()
        assert f'href="{name}"' in text
    assert "sec.verify_full" in (place / "gates.txt").read_text(encoding="utf-8")
    sums = dict(reversed(line.split("  ")) for line in (place / SUMS).read_text(encoding="utf-8").splitlines())
    assert set(sums) == {str(one.relative_to(place)) for one in place.rglob("*") if one.is_file()} - {SUMS}
    assert all(hashlib.sha256((place / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())
    assert [one.name for one in tmp_path.iterdir()] == ["pack"]


def test_it_is_made_anew_but_nothing_else_is_touched(evidence, tmp_path):
    place, _ = pack(evidence, tmp_path / "pack", None, QUICK[:1])
    (place / "old.txt").write_text("of an earlier pack", encoding="utf-8")
    pack(evidence, place, None, QUICK[:1])
    assert not (place / "old.txt").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "theirs.txt").write_text("theirs", encoding="utf-8")
    for other in (foreign, foreign / "theirs.txt", evidence, evidence.parent):
        with pytest.raises(UsageError, match="something else than a pack"):
            pack(evidence, other, None, QUICK[:1])
    assert (foreign / "theirs.txt").read_text(encoding="utf-8") == "theirs"
    with pytest.raises(UsageError, match="no evidence of this version"):
        pack(tmp_path, tmp_path / "x", None, QUICK[:1])
    assert not (tmp_path / "x").exists()


def test_documents_that_are_wanting_make_no_whole_pack(tmp_path):
    finding = Finding(check="runbook.documents", gate="rep.documents", outcome=Outcome.FAIL, detail="has no owner", n=1, bad=1)
    gates = judge([finding], load())
    place = tmp_path / "evidence"
    run = replace(evidence_sample.run(), gates=gates, findings=(finding,))
    write_text(place / "evidence.json", evidence_json(run))
    parts = [one for one in PARTS if one.title == "Documents"]
    made = pack(place, tmp_path / "pack", None, parts)[1]
    assert "rep.documents: FAIL" in made[0].reason
    assert "runbook.documents: has no owner" in (tmp_path / "pack" / "documents.txt").read_text(encoding="utf-8")


def test_a_whole_pack_says_so(evidence, tmp_path):
    place, made = pack(evidence, tmp_path / "pack", None, QUICK[:2])
    assert not any(one.reason for one in made)
    assert "All 2 parts are here" in (place / INDEX).read_text(encoding="utf-8")


def test_the_command_tells_what_is_missing_by_its_exit_code(evidence, tmp_path, monkeypatch):
    monkeypatch.setattr("chaos.pack.pack", lambda *given: pack(*given, parts=QUICK))
    done = CliRunner().invoke(command, [str(evidence), "-o", str(tmp_path / "p")], catch_exceptions=False)
    assert done.exit_code == 3
    assert "missing  Attestation" in done.output
    assert "made     Report" in done.output
