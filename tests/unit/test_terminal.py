from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.errors import PartFailed
from chaos.evidence.schema import evidence_json
from chaos.model import Outcome
from chaos.terminal import SHOWN, Screen, run_json
from tests.unit import evidence_sample
from tests.unit.evidence_sample import SECRET

ROOT = Path(__file__).parents[2]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def piped(**more) -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    return Screen(stream, **more), stream


def summary(kind: str, directory: Path, **more) -> str:
    screen, stream = piped(**more)
    screen.summary(evidence_sample.run(kind), directory)
    return stream.getvalue()


# -- piped -----------------------------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_one_line_a_phase_and_no_escape(tmp_path):
    clock = Clock()
    screen, stream = piped(clock=clock)
    screen.header(target="reference", profile="quick", seed=81723, workers=4)
    screen.phase("environment", "PostgreSQL 17.10", 0.4)
    screen.phase("set up", "building", None)
    for second in range(31):
        clock.now = float(second)
        screen.breaking("black hole", second, 84, 60.0 - second)
    screen.failure(evidence_sample.run().failures[0])
    screen.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "chaos-gate 0.1.0 · target reference · profile quick · seed 81723 · 4 workers"
    assert re.fullmatch(r"environment   PostgreSQL 17\.10 {3,}0\.4 s", lines[1])
    assert lines[2] == "set up        building"
    assert lines[3] == "breaking      black hole · 0 of 84 checks · 60 s left"
    assert [line.split(" · ")[1] for line in lines[3:7]] == [f"{number} of 84 checks" for number in (0, 10, 20, 30)]
    assert lines[7] == "FAIL  pool.slots  res.pool"
    assert lines[8].startswith("      not serving again 10 s after")
    assert len(lines) == 9
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_no_progress_is_told_twice_and_none_without_progress():
    clock = Clock()
    screen, stream = piped(clock=clock)
    for second in range(0, 60, 5):
        clock.now = float(second)
        screen.breaking("black hole", 3, 84, None)
    assert stream.getvalue() == "breaking      black hole · 3 of 84 checks\n"


def test_the_last_words_are_whole_when_piped(tmp_path):
    (tmp_path / "report.html").write_text("x")
    (tmp_path / "evidence.json").write_text("x")
    text = summary("no-go", tmp_path)
    lines = text.splitlines()
    assert lines[1].startswith("NO-GO  2 gates failed · 5 gates proven · ")
    gates = [line.split()[0] for line in lines[2:20] if re.match(r"  [a-z]+\.", line)]
    assert gates[:2] == ["rel.no_400_to_500", "res.pool"]  # worst first
    assert gates.index("res.durability") < gates.index("sec.verify_full") < gates.index("rep.documents")
    assert re.search(r"\n  sec\.verify_full +PASS +0 of 75 wrong servers accepted +bound 3\.9 %\n", text)
    assert re.search(r"\n  res\.durability +NOT PROVEN +0 of 1,204 acknowledged writes .*bound 0\.25 %, needs 59 answers", text)
    assert "not looked into (chaos-gate soak can): sec.tls_handshake, rel.error_budget, rel.p95" in text
    assert "not applicable: sec.audit_log, roll.safeguards" in text
    failure = text[text.index("\nFAIL  pool.slots  res.pool\n") :]
    for line in (
        "  broken    max_connections reached",
        "  expected  success holds from recovery = 10 s after the fault has gone (chaos.toml [target.database])",
        "  seen      not serving again 10 s after the fault had gone (212 requests failed); 63 requests during the fault, 63 of them failed",
        "  again     chaos-gate run --only pool.slots --seed 81723",
    ):
        assert line in failure.splitlines()
    assert lines[-2:] == [f"report    {tmp_path}/report.html", f"evidence  {tmp_path}/evidence.json"]
    assert SECRET not in text
    assert "\x1b" not in text


def test_what_is_only_reported_is_told_worst_first(tmp_path):
    run = evidence_sample.run("clear")
    told = replace(run.findings[0], severity="low", check="C6.start", outcome=Outcome.NOT_APPLICABLE)
    screen, stream = piped()
    more = (told, replace(told, check="C6.reconnect"), replace(told, check="A2.reconnect", severity="high"))
    screen.summary(replace(run, findings=(*run.findings, *more)), tmp_path)
    assert "\n  reported, for [policy] to decide: A2 (high), C6 (low)\n" in stream.getvalue()


@pytest.mark.parametrize("kind", ["clear", "go", "inconclusive", "environment"])
def test_every_verdict_has_its_line(tmp_path, kind):
    text = summary(kind, tmp_path)
    assert text.splitlines()[1].startswith(evidence_sample.run(kind).verdict.value + "  ")
    assert "FAIL" not in text


def test_the_paths_are_the_short_ones(tmp_path, monkeypatch):
    directory = tmp_path / "evidence" / "20261123T232000Z-abcd"
    directory.mkdir(parents=True)
    (directory / "report.html").write_text("x")
    (tmp_path / "evidence" / "latest").symlink_to(directory.name)
    monkeypatch.chdir(tmp_path)
    assert summary("clear", directory).endswith("report    evidence/latest/report.html\n")
    (tmp_path / "evidence" / "latest").unlink()
    assert summary("clear", directory).endswith("report    evidence/20261123T232000Z-abcd/report.html\n")


def test_hundreds_of_failures_end_with_a_count(tmp_path):
    one = evidence_sample.run().failures[0]
    run = replace(evidence_sample.run(), findings=tuple(replace(one, check=f"c{number}") for number in range(100)))
    screen, stream = piped()
    screen.summary(run, tmp_path)
    assert stream.getvalue().count("\n  again ") == SHOWN
    assert f"and {100 - SHOWN} more failures" in stream.getvalue()


def test_what_a_target_says_cannot_move_the_cursor_nor_leak(tmp_path):
    one = evidence_sample.run().failures[0]
    evil = replace(one, detail="\x1b[2J\x1b]0;owned\x07 told-secret\nnext line [bold red]not markup[/]", examples=("\r\x1b[1A",))
    screen, stream = piped(secrets=["told-secret"])
    screen.failure(evil)
    screen.phase("set up", "told-secret")
    screen.breaking("told-secret", 1, 2, 3)
    screen.error("told-secret")
    screen.summary(replace(evidence_sample.run(), findings=(evil,)), tmp_path)
    assert "\x1b" not in stream.getvalue()
    assert "told-secret" not in stream.getvalue()
    assert "[bold red]not markup[/]" in stream.getvalue()


def test_an_environment_error_in_its_own_words():
    screen, stream = piped()
    screen.error(PartFailed("it died", remedy="start it", where="postgres", tail=("FATAL: x",)).render())
    assert stream.getvalue() == "postgres: it died\n    | FATAL: x\n  -> start it\n"


def test_a_stream_without_unicode_gets_plain_characters():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    screen = Screen(stream)
    screen.header(target="größe", profile="quick", seed=1, workers=1)
    screen.breaking("x", 1, 2, None)
    assert raw.getvalue().decode("ascii").splitlines() == [
        "chaos-gate 0.1.0 - target gr??e - profile quick - seed 1 - 1 worker",
        "breaking      x - 1 of 2 checks",
    ]


def test_json_is_the_file_s_content():
    run = evidence_sample.run()
    assert run_json(run) == evidence_json(run).rstrip("\n")
    assert json.loads(run_json(run))["verdict"] == "NO-GO"


# -- on a terminal (a real pseudo-terminal) ------------------------------------------------------------------------------------------

SCRIPT = """
    import sys, time
    from pathlib import Path
    from chaos.terminal import Screen
    from tests.unit import evidence_sample
    run = evidence_sample.run("no-go")
    with Screen() as screen:
        screen.header(target=run.target, profile=run.profile, seed=run.seed, workers=4)
        screen.phase("environment", "PostgreSQL 17.10 (TLS 1.3), Toxiproxy 2.12.0, Caddy 2.11.7", 0.4)
        screen.breaking("black hole that swallows whatever is sent to it, established connections", 30, 84, 12.0)
        time.sleep(0.7)
        screen.failure(run.failures[0])
        screen.breaking("the next one", 31, 84, 11.0)
        screen.phase("healed", "all", 0.01)
        screen.summary(run, Path("/nowhere"))
    print("END")
"""


def on_terminal(columns: int, **environment: str) -> str:
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {
        name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI"}
    }
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], stdin=side, stdout=side, stderr=side, cwd=ROOT, close_fds=True,
        env=kept | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment},
    )  # fmt: skip
    os.close(side)
    data = b""
    while True:
        try:
            chunk = os.read(main, 65_536)
        except OSError:  # Linux: the other side is closed
            break
        if not chunk:
            break
        data += chunk
    os.close(main)
    assert process.wait(timeout=30) == 0, data.decode()
    return data.decode().replace("\r\n", "\n")


def shown(output: str) -> list[str]:
    """What stands on the screen in the end: each line after its last 'carriage return, erase'."""
    return [ESCAPE.sub("", line.rsplit("\r\x1b[2K", 1)[-1]) for line in output.split("\n")]


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_the_live_line_is_gone_in_the_end(columns):
    output = on_terminal(columns)
    lines = shown(output)
    whole = {line for line in lines if line.startswith(("  again", "evidence"))}  # to be copied: never broken
    assert [line for line in lines if len(line) > columns and line not in whole] == []
    assert not [line for line in lines if line.startswith("breaking")]
    assert lines[-2] == "END"
    text = " ".join(" ".join(lines).split())
    assert "NO-GO 2 gates failed" in text
    assert "0 of 75 wrong servers accepted bound 3.9 %" in text
    assert "chaos-gate run --only invalid.pool.locks --seed 81723" in text


def test_the_live_line_counts_down_and_keeps_its_numbers_on_a_narrow_terminal():
    output = on_terminal(80)
    painted = [ESCAPE.sub("", part) for part in re.split(r"\r\x1b\[2K|\n", output) if "30 of 84 checks" in part]
    assert len(painted) >= 3  # repainted by itself
    assert all(len(line) < 80 for line in painted)
    assert all(re.search(r"black hole.*… · 30 of 84 checks · \d+ s left", line) for line in painted)
    assert "\x1b[?25l" not in output  # the cursor is never hidden: a killed run leaves a sane terminal


def test_colour_is_there_and_goes_with_no_color():
    assert "\x1b[1;31m" in on_terminal(100)
    plain = on_terminal(100, NO_COLOR="1")
    assert not re.findall(r"\x1b\[(?:\d+;)*3[0-7]m", plain)
    assert "NO-GO" in plain


def test_a_dumb_terminal_gets_no_escape_at_all():
    output = on_terminal(80, TERM="dumb")
    assert "\x1b" not in output
    assert "\r" not in output
    assert output.count("breaking") == 1  # one line, not repainted
    assert "NO-GO" in output


def test_gates_that_failed_are_told_worst_first_whatever_their_order(tmp_path):
    run = evidence_sample.run()
    screen, stream = piped()
    screen.summary(replace(run, gates=tuple(reversed(run.gates))), tmp_path)
    labels = re.findall(r"\n  [a-z]+\.\w+ +(FAIL|NOT PROVEN|PASS|WAIVED)", stream.getvalue())
    order = ["FAIL", "NOT PROVEN", "PASS", "WAIVED"]
    assert labels == sorted(labels, key=order.index)
    assert labels.count("FAIL") == len(run.of(Outcome.FAIL))


def test_a_reason_of_several_lines_is_one_line_of_the_table(tmp_path):
    run = evidence_sample.run()
    gates = tuple(replace(gate, reason="first\nsecond\n\n") if gate.id == "res.pool" else gate for gate in run.gates)
    screen, stream = piped()
    screen.summary(replace(run, gates=gates), tmp_path)
    assert re.search(r"\n  res\.pool +FAIL +first second\n  [a-z]", stream.getvalue())
