"""Both nightly pipelines say the same, and only what the command line understands. Their syntax is linted by `make pipelines`."""

import re
import shlex
from pathlib import Path

import click
import pytest

from chaos.cli import cli

ROOT = Path(__file__).parents[2]
PIPELINES = {name: (ROOT / name).read_text(encoding="utf-8") for name in (".github/workflows/nightly.yml", ".gitlab-ci.yml")}


def commands(text):
    """Each chaos-gate line, without redirections and with variables filled in."""
    for found in re.finditer(r"\.venv/bin/chaos-gate ([^\n>]*)", text):
        yield shlex.split(found[1].replace("$BACKEND", "local").replace('"$HISTORY"/*', "a b"))


@pytest.mark.parametrize("name", PIPELINES)
def test_every_command_parses(name):
    told = list(commands(PIPELINES[name]))
    assert [words[0] for words in told if words[0] != "compare"].count("run") == 1
    for command, *arguments in told:
        found = cli.get_command(click.Context(cli), command)
        assert found is not None, command
        with found.make_context(command, list(arguments)):
            pass


@pytest.mark.parametrize("name", PIPELINES)
def test_each_runs_all_of_it(name):
    text = PIPELINES[name]
    told = [" ".join(words) for words in commands(text)]
    assert "run --profile nightly --backend local --evidence evidence/nightly" in told
    assert any(words.startswith("compare a b --last 7 --markdown") for words in told)
    assert "heal" in told
    assert re.search(r"local\b", text)
    assert re.search(r"docker\b", text)
    assert "CHAOS_POSTGRES_BIN" in text
    assert "CHAOS_POSTGRES_IMAGE" in text
    majors = [set(re.findall(r'"(\d\d)"', line)) for line in text.splitlines() if re.search(r'\["\d\d", "\d\d"\]', line)]
    assert majors
    assert all(len(each) == 2 for each in majors)


def test_the_verdict_is_on_the_job_page():
    text = PIPELINES[".github/workflows/nightly.yml"]
    assert '--markdown >> "$GITHUB_STEP_SUMMARY"' in text
    assert "actions/upload-artifact@" in text
