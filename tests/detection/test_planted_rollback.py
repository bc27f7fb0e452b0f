"""Roll-backs and restores with one thing wrong: red at its own gate, each; the same with nothing wrong: green."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from chaos.environments.local.backup import Backups
from chaos.experiment import restore
from chaos.model import Outcome
from chaos.rollout import drill as drilling
from tests.detection.conftest import REFERENCE
from tests.detection.rollback_rig import COMMAND, Drills

EVERY = os.environ.get("CHAOS_DETECTION") == "all"
long = pytest.mark.skipif(not EVERY, reason="half a minute of a core: CHAOS_DETECTION=all")


@pytest.fixture(scope="module")
def drills(tmp_path_factory):
    with Drills(tmp_path_factory.mktemp("drills")) as made:
        yield made


def failed(found):
    return {one.gate: one.detail for one in found.values() if one.outcome is Outcome.FAIL}


def green(found, *ids):
    return all(found[one].outcome is Outcome.PASS for one in ids)


# -- nothing wrong ----------------------------------------------------------------------------------------------------------------------


def test_a_migration_that_has_to_be_undone_and_an_old_release_that_has_to_be_started(drills):
    name = "rollback.rename.100.stopped"
    found = drills.roll_back(name)
    assert green(found, name, f"writes.{name}", f"answers.{name}"), found
    assert "the old release itself, asked on the new schema: 2 of 2 requests failed" in found[name].detail
    assert 0.3 < found[name].measured < 60


@pytest.mark.parametrize("name", ["rollback.expand.25", "rollback.ca.5", "rollback.rename.5"])
@long
def test_other_steps(drills, name):
    found = drills.roll_back(name)
    assert green(found, name, f"writes.{name}", f"answers.{name}"), found


def test_what_cannot_be_had_of_this_target_does_not_apply(drills):
    for name, why in (("rollback.hosts.50", "no [target.hosts]"), ("rollback.candidate.25", "no [target.candidate]")):
        found = drills.roll_back(name)[name]
        assert found.outcome is Outcome.NOT_APPLICABLE
        assert why in found.detail


@long
def test_restores(drills):
    for kind in ("time", "lsn", "name"):
        found = drills.restore(kind)
        assert green(found, f"restore.pitr.{kind}", f"writes.restore.pitr.{kind}"), found


# -- the command ------------------------------------------------------------------------------------------------------------------------


def test_a_command_that_does_nothing(drills, monkeypatch):
    monkeypatch.setattr(drilling, "STEADY", 3.0)
    found = drills.roll_back("rollback.ca.100", (sys.executable, "-c", "pass"))
    assert failed(found).keys() == {"res.rollback"}, found
    assert "the good release did not serve again" in failed(found)["res.rollback"]


@long
def test_a_command_that_is_through_before_the_old_release_serves(drills):
    later = f"import subprocess, sys, time; time.sleep(3); subprocess.run({[*COMMAND]!r} + sys.argv[1:])"
    early = (
        f"import subprocess, sys; subprocess.Popen([{sys.executable!r}, '-c', {later!r}] + sys.argv[1:], start_new_session=True, "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)"
    )
    found = drills.roll_back("rollback.ca.100", (sys.executable, "-c", early))
    assert failed(found).keys() == {"res.rollback"}, found
    assert "the command said that it was done" in failed(found)["res.rollback"]


# -- the release's migration --------------------------------------------------------------------------------------------------------------

MIGRATIONS = {
    "expand": (set(), ""),
    "rename": ({"res.rollback"}, "rolling the code back is not enough"),
    "retype": ({"rel.api_contract"}, "$[].size was integer and is string"),
    "delete": ({"res.durability"}, "lost"),
}


@pytest.mark.parametrize("migration", MIGRATIONS if EVERY else ["delete"])
def test_what_a_candidates_migration_does_to_the_old_release(tmp_path, monkeypatch, migration):
    monkeypatch.setattr(drilling, "STEADY", 3.0)
    monkeypatch.setattr(drilling, "COMMAND", 12.0)
    gates, words = MIGRATIONS[migration]
    with Drills(tmp_path, migration=migration) as made:
        found = made.roll_back("rollback.candidate.100")
    assert failed(found).keys() == gates, found
    assert words in " ".join(failed(found).values())
    if not gates:
        assert green(found, "rollback.candidate.100", "writes.rollback.candidate.100", "answers.rollback.candidate.100")


# -- the team's own tooling ---------------------------------------------------------------------------------------------------------------

TOOLING = {
    "": (Outcome.PASS, "answers came from release '2.0'"),
    "nothing": (Outcome.FAIL, "answers still come from release '2.0'"),
}


@pytest.mark.parametrize("mode", TOOLING)
@long
def test_the_teams_own_command(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(drilling, "COMMAND", 8.0)
    outcome, words = TOOLING[mode]
    with Drills(tmp_path, mode, tooling=True) as made:
        found = made.roll_back("rollback.deploy")["rollback.deploy"]
    assert found.outcome is outcome, found
    assert words in found.detail


@long
def test_a_command_that_ends_early_is_waited_for(tmp_path):
    """As `kubectl rollout undo` does; the one command ends when the former release answers."""
    with Drills(tmp_path, "later", tooling=True) as made:
        found = made.roll_back("rollback.deploy")["rollback.deploy"]
    assert found.outcome is Outcome.PASS
    assert found.measured > 3


# -- the restore ----------------------------------------------------------------------------------------------------------------------------


def test_an_archive_that_only_says_that_it_archives(drills, monkeypatch):
    monkeypatch.setattr(restore, "Backups", partial(Backups, archive_command="true"))
    found = drills.restore("time")
    assert failed(found).keys() == {"res.rollback"}, found
    assert "the archive lacks" in failed(found)["res.rollback"]
    assert "recovery ended before configured recovery target was reached" in failed(found)["res.rollback"]
    assert drills.rig.steady() == "", "the environment is whole again"


class TooLate(Backups):
    """Whoever chose the recovery target was not quick enough: the disaster is before it."""

    def restore(self, point):
        self.server.recover_from(self.base, {**self._settings(), **self._fetching(self._restore_command)})


def test_a_recovery_target_after_the_disaster(drills, monkeypatch):
    """The tables are there, and empty; they stay so, and this is the last test on these drills."""
    monkeypatch.setattr(restore, "Backups", TooLate)
    found = drills.restore("lsn")
    assert "the recovery went past it" in failed(found)["res.rollback"], found
    assert "lost" in failed(found)["res.durability"]


@long
def test_a_service_that_holds_on_to_dead_connections(tmp_path):
    with Drills(tmp_path, "holds") as made:
        found = made.restore("name")
    assert failed(found).keys() == {"res.rollback"}, found
    assert "not serving 5 s after the database was back" in failed(found)["res.rollback"]


# -- the bundled service ----------------------------------------------------------------------------------------------------------------------

NEXT = {
    "ALTER TABLE items ADD COLUMN IF NOT EXISTS colour text NOT NULL DEFAULT 'none'": set(),
    "ALTER TABLE item_ledger RENAME COLUMN name TO title": {"res.rollback"},
}


@pytest.mark.parametrize("statement", NEXT)
@long
def test_the_reference_services_next_migration(tmp_path, monkeypatch, statement):
    """Expand/contract done right, and the plain mistake, which only its writes meet."""
    monkeypatch.setattr(drilling, "STEADY", 3.0)
    monkeypatch.setattr(drilling, "COMMAND", 12.0)
    text = REFERENCE.read_text(encoding="utf-8")
    program = f"import os, psycopg; psycopg.connect(os.environ['DATABASE_URL'], autocommit=True).execute({statement!r})"
    migration = f"[target.candidate]\nsetup = [{json.dumps([sys.executable, '-c', program])}]\n"
    config = tmp_path / "chaos.toml"
    text = text.replace("[target.candidate]\n", migration).replace('retention_file = "', f'retention_file = "{REFERENCE.parent}/')
    config.write_text(text, encoding="utf-8")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    with Drills(tmp_path, config=config) as made:
        for name in ("rollback.candidate.25", "rollback.candidate.100.stopped"):
            found = made.roll_back(name)
            assert failed(found).keys() == NEXT[statement], found
            if NEXT[statement]:
                break
