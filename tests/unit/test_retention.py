"""Evidence that is too old goes; the latest, the newest, and what was not healed stay."""

import json
import time

import pytest
from click.testing import CliRunner

from chaos import ledger
from chaos.commands.prune import command
from chaos.evidence import retention
from chaos.evidence.bundle import point
from chaos.evidence.schema import evidence_of, moment
from chaos.ledger import Ledger
from tests.unit import evidence_sample


@pytest.fixture
def base(tmp_path):
    """Six runs, 10, 20 ... 60 days old, and something that is none."""
    for number in range(1, 7):
        place = tmp_path / f"run-{number}"
        place.mkdir()
        raw = evidence_of(evidence_sample.run("clear")).model_dump(mode="json")
        raw["finished"] = moment(time.time() - number * 10 * retention.DAY)
        (place / "evidence.json").write_text(json.dumps(raw), encoding="utf-8")
        (place / "evidence.sqlite").write_bytes(b"x")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "old.txt").write_text("ours", encoding="utf-8")
    return tmp_path


def left(base):
    return sorted(one.name for one in base.iterdir() if not one.name.startswith(".") and not one.is_symlink())


def call(base, *words):
    done = CliRunner().invoke(command, [str(base), *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_is_too_old_goes(base):
    assert "3 removed, 3 kept" in call(base, "--keep", "2", "--days", "35")
    assert left(base) == ["notes", "run-1", "run-2", "run-3"]


def test_the_newest_stay_whatever_their_age(base):
    call(base, "--keep", "4", "--days", "0")
    assert left(base) == ["notes", "run-1", "run-2", "run-3", "run-4"]


def test_latest_stays(base):
    point(base / "run-6")
    call(base, "--keep", "0", "--days", "0")
    assert left(base) == ["notes", "run-6"]


def test_what_was_not_healed_stays(base):
    with_fault = Ledger(base / "run-5" / ledger.NAME, of="x.gw0")
    with_fault.begin(Broken())
    with_fault.close()
    call(base, "--keep", "0", "--days", "0")
    assert left(base) == ["notes", "run-5"]


class Broken:
    id, title = "network.refused", "connections refused"

    def undo(self):
        return ()


def test_a_dry_run_removes_nothing(base):
    told = call(base, "--keep", "0", "--days", "0", "--dry-run")
    assert told.count("go  ") == 6
    assert len(left(base)) == 7
