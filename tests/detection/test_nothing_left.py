"""However a run ends, nothing of it is left: no process, no scratch directory, no shared memory; and its evidence is."""

import os
import signal
from pathlib import Path

import pytest

from tests.detection.tiny_run import Run, tiny, until

TWO = ("network.refused.pooled", "network.refused.new", "network.reset.pooled", "network.reset.new")


def shared_memory():
    """System V segments, by id: PostgreSQL's interlock is one."""
    with Path("/proc/sysvipc/shm").open(encoding="ascii") as table:
        return {line.split()[1]: line.split()[4] for line in table.readlines()[1:]}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_mid_fault(tmp_path, number, workers):
    """Ctrl-C goes to the whole group of the terminal, as here; a service manager's SIGTERM to the runner alone."""
    run = Run(tmp_path, only=TWO, workers=workers)
    run.wait_for_fault()
    (os.killpg if number == signal.SIGINT else os.kill)(run.process.pid, number)
    assert run.wait(30) == 130, run.told()
    assert "Traceback" not in run.told()
    assert "interrupted" in run.told()
    assert run.evidence["verdict"] == "INCONCLUSIVE"
    assert run.recorded_error == "interrupted"
    assert (run.directory / "report.html").exists()
    assert run.left() == []


def test_interrupted_while_it_starts(tmp_path):
    """While the target is awaited, long before the first check."""
    run = Run(tmp_path, tiny(tmp_path, "never-ready"))
    run.wait_for("service.py")
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait(30) == 130, run.told()
    assert "Traceback" not in run.told()
    assert run.evidence["verdict"] == "INCONCLUSIVE"
    assert run.left() == []


def test_interrupted_by_somebody_impatient(tmp_path):
    """Ctrl-C, and again, and again, while it cleans up."""
    run = Run(tmp_path, only=TWO)
    run.wait_for_fault()
    for _ in range(6):
        os.killpg(run.process.pid, signal.SIGINT)
        until(lambda: run.process.poll() is not None, 0.1)
        if run.process.poll() is not None:
            break
    assert run.wait(30) == 130, run.told()
    assert "Traceback" not in run.told()
    assert run.left() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_the_runner_is_killed_in_mid_fault(tmp_path, workers):
    before = shared_memory()
    run = Run(tmp_path, only=TWO, workers=workers)
    run.wait_for_fault()
    ours = {str(process.pid) for process, _ in run.processes()}
    os.kill(run.process.pid, signal.SIGKILL)
    assert run.wait(5) == -signal.SIGKILL
    assert run.left(5) == []
    assert not {key for key, creator in shared_memory().items() if key not in before and creator in ours}


def test_a_worker_is_killed_in_mid_fault(tmp_path):
    """The other worker's results stay; what the dead one was about is unknown, and said so."""
    run = Run(tmp_path, only=TWO, workers=2)
    run.wait_for_fault()
    target = run.wait_for("service.py")
    target.parent().kill()  # the worker: it started the target
    assert run.wait() in {3, 4}, run.told()
    assert "Traceback" not in run.told()
    assert run.evidence["verdict"] == "INCONCLUSIVE"
    assert run.left() == []


def test_the_run_after_a_killed_one_works(tmp_path):
    for name, code in (("killed", -9), ("after", 0)):
        place = tmp_path / name
        place.mkdir()
        run = Run(place)
        if code:
            run.wait_for_fault()
            os.kill(run.process.pid, signal.SIGKILL)
        assert run.wait() == code, run.told()
    assert run.left() == []
