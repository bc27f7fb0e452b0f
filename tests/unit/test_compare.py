"""Runs beside each other, from their evidence.json alone."""

import json

import pytest
from click.testing import CliRunner

from chaos.cli import cli
from chaos.evidence import compare
from tests.unit import evidence_sample


def write(base, number, verdict, gates, **changes):
    """One evidence directory; `gates`: id -> (verdict, measured, n)."""
    rows = [
        {
            "id": name,
            "verdict": judged,
            "measured": measured,
            "threshold": "== 0",
            "n": n,
            "bound": [0, 0.03] if n else None,
            "confidence": 0.95,
            "reason": f"{measured} of {n} | bad",
            "checks": ["C1"] if n else [],
        }
        for name, (judged, measured, n) in gates.items()
    ]
    check = {"gate": "res.network", "detail": "seen | <b>this</b>", "fault": "x", "took_effect": True, "rerun": "chaos-gate run"}
    failed = [{"id": f"network.{name}", "outcome": "fail", **check} for name in range(changes.pop("failed", 0))]
    data = {
        "schema_version": 1,
        "verdict": verdict,
        "scope": "smoke",
        "profile": "nightly",
        "target": "orders",
        "seed": number,
        "started": f"2026-11-{number:02}T02:17:00.000Z",
        "finished": f"2026-11-{number:02}T03:17:00.000Z",
        "gates": rows,
        "checks": failed,
        **changes,
    }
    place = base / f"202611{number:02}T021700Z-x"
    place.mkdir(parents=True)
    (place / "evidence.json").write_text(json.dumps(data), encoding="utf-8")
    return place


PASSED = {"res.network": ("pass", 0, 14), "res.pool": ("pass", 0, 3), "rep.go": ("inconclusive", None, 0)}
FAILED = {**PASSED, "res.network": ("fail", 2, 14)}


def shown(*arguments):
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


def test_what_changed_is_said_and_what_nobody_looked_into_is_not(tmp_path):
    places = [write(tmp_path, 1, "CLEAR", PASSED), write(tmp_path, 2, "NO-GO", FAILED, failed=14)]
    done = shown(*reversed(places), "--markdown")  # in whatever order they are named, the newest is judged
    assert done.exit_code == 0
    assert done.output.startswith("## NO-GO: orders, nightly\n")
    assert "Since the last run: `res.network` PASS → **FAIL**." in done.output
    assert "| **verdict** | **CLEAR** | **NO-GO** | |" in done.output
    assert "| `res.network` | PASS | **FAIL** |" in done.output
    assert "| `res.pool` | PASS | PASS |" in done.output
    assert "rep.go" not in done.output
    assert "| `network.0` | seen \\| &lt;b>this&lt;/b> | `chaos-gate run` |" in done.output
    assert "and 2 more" in done.output
    table = [line.replace("\\|", "") for line in done.output.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table[:4]} == {5}


def test_at_a_terminal_the_newest_is_at_the_right(tmp_path):
    write(tmp_path, 1, "CLEAR", PASSED), write(tmp_path, 2, "NO-GO", FAILED)
    runs = compare.load((), base=tmp_path, last=5)
    text = compare.text(compare.compare(runs))
    assert "res.network *  PASS         FAIL" in text
    assert "* not as in the run before" in text


def test_by_default_the_last_runs_of_the_same_target_and_profile(tmp_path, monkeypatch):
    for number in range(1, 9):
        write(tmp_path / "evidence", number, "CLEAR", PASSED)
    write(tmp_path / "evidence", 10, "CLEAR", PASSED, profile="quick")
    newest = write(tmp_path / "evidence", 11, "CLEAR", PASSED)
    (tmp_path / "evidence" / "latest").symlink_to(newest.name)
    (tmp_path / "evidence" / "half").mkdir()
    (tmp_path / "evidence" / "half" / "evidence.json").write_text("{", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert [run.seed for run in compare.load((), base=tmp_path / "evidence", last=4)] == [6, 7, 8, 11]
    done = shown("--last", "3", "--markdown")
    assert "Since the last run: every gate as it was." in done.output
    assert "| gate | 11-07 02:17 | 11-08 02:17 | 11-11 02:17 | measured |" in done.output


def test_one_run_alone_is_a_summary(tmp_path):
    done = shown(write(tmp_path, 1, "CLEAR", PASSED), "--markdown")
    assert "Since the last run" not in done.output
    assert "0 failed, 2 proven, 1 not proven. Seed 1, 2026-11-01T02:17Z." in done.output


def test_a_gate_that_an_older_run_did_not_know_has_not_changed(tmp_path):
    old = {"res.network": ("pass", 0, 14)}
    write(tmp_path, 1, "CLEAR", old), write(tmp_path, 2, "CLEAR", PASSED)
    rows = compare.compare(compare.load((), base=tmp_path, last=5)).rows
    assert {row.gate: (row.verdicts, row.changed) for row in rows}["res.pool"] == (("", "pass"), False)


@pytest.mark.parametrize("content", [None, "{}"])
def test_nothing_to_compare_is_a_usage_error(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    arguments = []
    if content:
        (tmp_path / "evidence.json").write_text(content, encoding="utf-8")
        arguments = [tmp_path]
    done = shown(*arguments)
    assert done.exit_code == 2
    assert "evidence" in done.output
    assert "Traceback" not in done.output


def test_it_reads_what_a_run_writes(tmp_path):
    from chaos.evidence.schema import evidence_json

    (tmp_path / "evidence.json").write_text(evidence_json(evidence_sample.run()), encoding="utf-8")
    assert shown(tmp_path).exit_code == 0
