"""Whoever is killed in mid-fault, and whichever fault it is: the ledger is closed and nothing is left within five seconds."""

import os
import signal
from pathlib import Path

import pytest

from chaos import ledger
from tests.detection.conftest import REFERENCE
from tests.detection.docker_run import DockerRun
from tests.detection.staging import ledger as lines
from tests.detection.tiny_run import TINY, Run, until

EACH = (
    "network.blackhole.new",
    "tls.expired",
    "tls.off",
    "backoff.tls",
    "pool.locks",
    "pool.slow",
    "pool.slots",
    "restart.fast",
    "restart.immediate",
    "C1.reconnect",
    "C1.start",
    "rollback",
)


# A server killed, a standby, a small file system, a thread that breaks the path again and again: nothing of it may be left.
LIFE = (
    "life.disk",
    "life.failover",
    "flapping",
    *("life.backend", "life.postmaster", "life.recovery", "life.demoted", "life.locks", "life.cancelled", "life.deadlock"),
    *("life.conflict", "life.migration", "bouncer.restart", "bouncer.impostor", "starting.57P03", "starting.slow", "replica"),
    *("cross.reset.idle.both.long", "cross.blackhole.new.up.long"),
)
LIVES = LIFE if os.environ.get("CHAOS_DETECTION") == "all" else LIFE[:3]


def in_force(run):
    def begun():
        run._gone(("fault",))
        return run.directory and ledger.account(run.directory / ledger.NAME).open

    assert until(begun), run.told()


@pytest.mark.parametrize("kind", EACH)
def test_the_runner_is_killed(tmp_path, kind):
    run = Run(tmp_path, only=(kind,))
    in_force(run)
    os.killpg(run.process.pid, signal.SIGKILL)
    assert run.wait(5) == -signal.SIGKILL
    assert until(lambda: not ledger.account(run.directory / ledger.NAME).open, 5), lines(run.directory)
    assert run.left(5) == []
    assert lines(run.directory)[-1]["by"] == "watchdog"


@pytest.mark.parametrize("kind", LIVES)
def test_the_runner_is_killed_in_the_database_s_life(tmp_path, kind):
    mounted = Path("/proc/mounts").read_text("utf-8") if Path("/proc/mounts").exists() else ""
    config = REFERENCE if kind in {"life.deadlock", "life.conflict", "life.demoted"} else TINY
    run = Run(tmp_path, config, only=(kind,))
    in_force(run)
    os.killpg(run.process.pid, signal.SIGKILL)
    assert run.wait(5) == -signal.SIGKILL
    assert until(lambda: not ledger.account(run.directory / ledger.NAME).open, 8), lines(run.directory)
    assert run.left(8) == []
    assert lines(run.directory)[-1]["by"] == "watchdog"
    if mounted:
        assert "chaos-pg" not in Path("/proc/mounts").read_text("utf-8")


IN_CONTAINERS = ("network.blackhole.new", "tls.off", "pool.locks", "pool.slots", "restart.fast", "C1.reconnect")


@pytest.mark.parametrize("kind", IN_CONTAINERS)
def test_the_runner_is_killed_in_containers(docker, tmp_path, kind):
    """There the Toxiproxy and PostgreSQL do not die with it: they are healed, and then removed."""
    run = DockerRun(docker, tmp_path, only=(kind,))
    in_force(run)
    os.killpg(run.process.pid, signal.SIGKILL)
    assert run.wait(5) == -signal.SIGKILL
    assert run.left(15) == []
    assert until(lambda: not ledger.account(run.directory / ledger.NAME).open, 5), lines(run.directory)
    assert lines(run.directory)[-1]["by"] == "watchdog"


def test_a_worker_is_killed_and_the_others_account_is_in_the_evidence(tmp_path):
    run = Run(tmp_path, only=("network.refused", "network.reset"), workers=2)
    in_force(run)
    run.wait_for("service.py").parent().kill()
    assert run.wait() in {3, 4}, run.told()
    account = ledger.account(run.directory / ledger.NAME)
    assert not account.open
    assert account.by.get("watchdog", 0) == 1
    assert f"clean-up  {account.sentence}" in run.stdout
    assert account.sentence in (run.directory / "report.html").read_text(encoding="utf-8")
    assert run.left() == []
