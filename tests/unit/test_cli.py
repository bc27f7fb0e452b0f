"""The command line by itself: what is a usage error, what people see of a defect of ours, and which signals mean what."""

import signal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from chaos import cli as module
from chaos.cli import CLEANING, _Interrupt, cli
from chaos.defect import Defect
from chaos.errors import PartFailed, UsageError

COMMANDS = {"run", "rollback", "gates", "faults", "explain", "doctor", "init", "recheck", "report"}


def test_every_command_has_help():
    for name in sorted(COMMANDS & set(cli.list_commands(click.Context(cli)))):
        shown = CliRunner().invoke(cli, [name, "--help"])
        assert shown.exit_code == 0
        assert "Usage:" in shown.output


def test_the_help_says_what_json_prints_when_a_run_ends_early():
    shown = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
    assert "stdout stays empty" in shown
    assert "Exit: 0 GO or CLEAR, 1 NO-GO, 2 usage, 3 INCONCLUSIVE, 4 environment, 130 interrupted" in " ".join(
        CliRunner().invoke(cli, ["--help"]).output.split()
    )


def test_an_unknown_command_says_what_was_meant():
    shown = CliRunner().invoke(cli, ["doctr"])
    assert shown.exit_code == 2
    assert "doctor" in shown.stderr


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("no such thing", remedy="name another", where="x:3"), 2, "chaos-gate: x:3: no such thing\n  -> name another"),
        (PartFailed("died", remedy="run again", where="PostgreSQL"), 4, "chaos-gate: PostgreSQL: died"),
        (KeyboardInterrupt(), 130, "chaos-gate: interrupted"),
        (OSError(28, "No space left on device", "/x/y"), 4, "/x/y: No space left on device"),
        (ZeroDivisionError("planted\nsecond line"), 4, "chaos-gate failed: ZeroDivisionError: planted\n  -> this is a defect"),
        (ConnectionRefusedError(111, "Connection refused"), 4, "chaos-gate failed: ConnectionRefusedError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_raised_is_one_message_and_a_code(monkeypatch, tmp_path, error, code, words):
    @cli.command("raise-it")
    def raise_it():
        raise error

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        shown = CliRunner().invoke(cli, ["raise-it"])
    finally:
        del cli.commands["raise-it"]
    assert shown.exit_code == code
    assert words in shown.stderr
    assert "Traceback" not in shown.output
    assert len(list(tmp_path.iterdir())) == ("failed" in shown.stderr)


def test_a_defects_traceback_is_in_the_evidence_or_in_a_temporary_file(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = LookupError("lost")
    kept = Defect.of(error, tmp_path)
    elsewhere = Defect.of(error, tmp_path / "no such directory")
    assert kept.file == tmp_path / "traceback.txt"
    assert elsewhere.file is not None
    assert elsewhere.file.name.startswith("chaos-gate-traceback-")
    assert "LookupError: lost" in elsewhere.file.read_text(encoding="utf-8")
    assert str(kept.file) in kept.render()


def test_a_defect_without_any_place_to_write_is_still_told(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    assert "could not be written" in Defect.of(ValueError(), Path("/nowhere")).render()


def test_impatience_interrupts_once(monkeypatch):
    at = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: at)
    interrupt = _Interrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)
    interrupt(signal.SIGINT, None)
    interrupt(signal.SIGTERM, None)
    at += CLEANING + 1  # still there: whoever insists is heard
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)
