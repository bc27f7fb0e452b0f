"""The scorecard: one page whatever there is to say, its text in the PDF, a target's words never markup, no network."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pypdf import PdfReader

from chaos.commands.report import command
from chaos.errors import UsageError
from chaos.evidence import scorecard, streak
from chaos.gates import load
from chaos.hours import Colour, Judged
from chaos.model import Finding, GateResult, Outcome
from tests.unit import evidence_sample
from tests.unit.evidence_sample import SECRET

NASTY = (
    '#import "x": *',
    "<script>alert(1)</script>",
    "$x^2$ #panic() \\ // /* ] } `",
    ']#read("/etc/passwd")[',
    "*_~@label <label> = h",
    "名前 ✓ Ж",
)


def read(data):
    reader = PdfReader(io.BytesIO(data))
    return reader, " ".join(" ".join(page.extract_text() for page in reader.pages).replace("\N{NO-BREAK SPACE}", " ").split())


def card(kind="no-go", **changes):
    return scorecard.card(replace(evidence_sample.run(kind), cleanup="31 of 31 faults healed", **changes))


@pytest.mark.parametrize("kind", ["no-go", "clear", "go", "inconclusive", "environment"])
def test_one_landscape_page_that_says_it_all(kind):
    made = card(kind)
    reader, said = read(scorecard.pdf(made))
    [sheet] = reader.pages
    assert sheet.mediabox.width > sheet.mediabox.height
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"]  # tagged: a screen reader can follow it
    run = evidence_sample.run(kind)
    for part in (run.verdict.value, "reference", "Security", "Reliability", "Resilience", "Roll-out", "Reporting", "seed 81723",
                 "31 of 31 faults healed", "no hour was judged", "PostgreSQL 17.10"):  # fmt: skip
        assert part in said, part
    for gate in run.gates:
        assert gate.id in said
        assert gate.threshold in said
    words = {row.word for _, rows in made.groups for row in rows}
    assert words <= {"PASS", "FAIL", "NOT PROVEN", "WAIVED", "N/A"}
    assert sum(said.count(word) for word in words) >= len(run.gates)  # a word for each verdict, and no colour alone


def test_however_much_there_is_to_say_it_is_one_page():
    gates = tuple(
        GateResult(id=f"team.{number}" + "x" * 60, outcome=Outcome.FAIL, measured=1.0, threshold="y" * 200, n=10**9, bound=None,
                   confidence=0.95, reason="z" * 3000)
        for number in range(120)
    )  # fmt: skip
    findings = tuple(
        Finding(check=f"c{number}", gate="res.pool", outcome=Outcome.FAIL, detail="d" * 500) for number in range(2000)
    )
    run = evidence_sample.run()
    many = replace(
        run, gates=run.gates + gates, findings=findings, target="t" * 400, cleanup="c" * 900, parts={"p" * 90: "v" * 900}
    )
    data = scorecard.pdf(scorecard.card(many))
    assert len(read(data)[0].pages) == 1
    assert len(data) < 1_000_000


@pytest.mark.parametrize("name", NASTY)
def test_what_a_target_calls_itself_stays_text(name):
    findings = (Finding(check="c", gate="res.pool", outcome=Outcome.FAIL, detail=name),)
    made = card(target=name, findings=findings)
    reader, said = read(scorecard.pdf(made))
    assert len(reader.pages) == 1
    shown = name if name.isascii() else "✓ Ж"  # the others are drawn as boxes: no font that comes along has them
    assert "".join(shown.split()) in "".join(said.split())
    page = scorecard.page(made)
    assert "<script" not in page
    assert "#import" not in page or "&#34;x&#34;" in page


def test_secrets_do_not_reach_it():
    failing = replace(
        evidence_sample.results()[0], outcome=Outcome.FAIL, reason=f"postgresql://app:{SECRET}@db/app, key {SECRET}"
    )
    made = card(gates=(failing,))
    assert SECRET not in read(scorecard.pdf(made, secrets=(SECRET,)))[1]
    assert SECRET not in scorecard.page(made, secrets=(SECRET,))


def test_the_same_card_is_the_same_bytes():
    assert scorecard.pdf(card()) == scorecard.pdf(card())


def test_hours_are_summed_up():
    judged = [Judged(number, Colour.RED if number == 3 else Colour.GREEN, "rel.p95") for number in range(60)]
    made = scorecard.card(evidence_sample.run("go"), strip=streak.strip(judged))
    assert "56 green hours in a row (48 are wanted)" in read(scorecard.pdf(made))[1]


def test_the_template_has_every_gate_and_no_number(tmp_path):
    config = tmp_path / "chaos.toml"
    config.write_text(
        '[target]\nname = "orders <b>"\nstart = ["x", "{port}"]\nlive = "/"\n[gates]\n"rel.p95" = 200\n[[target.read]]\npath = "/"\n',
        encoding="utf-8",
    )
    done = CliRunner().invoke(command, ["--template", "-c", str(config), "-o", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 0
    pdf, page = map(Path, done.output.split())
    reader, said = read(pdf.read_bytes())
    assert len(reader.pages) == 1
    for gate in load().values():
        assert gate.id in said
    assert "TARGETS" in said
    assert "P95 <= 200 ms" in said
    assert "no [target.hosts] in chaos.toml" in said
    assert "PASS" not in said
    html = page.read_text(encoding="utf-8")
    assert "orders &lt;b&gt;" in html


@pytest.mark.parametrize("arguments", [["--template", "somewhere"], ["-o", "somewhere"], ["-c", "chaos.toml"], ["nowhere"]])
def test_what_makes_no_sense_is_a_usage_error(arguments):
    with pytest.raises(UsageError):
        CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_the_card_is_data_to_the_typesetter(monkeypatch):
    import typst

    seen = {}
    monkeypatch.setattr(typst, "compile", lambda _, **more: seen.update(more) or b"%PDF")
    scorecard.pdf(card(target="#x"))
    assert json.loads(seen["sys_inputs"]["card"])["target"] == "#x"
    assert seen["ignore_system_fonts"] is True
    assert seen["font_paths"] == []
