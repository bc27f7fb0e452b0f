"""However a run in containers ends, nothing of it is left: no container, network, volume, process or file; counted."""

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest

from chaos.environments.docker import sweep
from tests.detection.docker_run import DockerRun
from tests.detection.tiny_run import one_error, tiny, until
from tests.engine import ours

TWO = ("network.blackhole.pooled", "network.refused.pooled")
KINDS = ("host", "bridge")


def on(place, kind, mode=""):
    """The tiny target's chaos.toml, with the network that is wanted."""
    made = tiny(place, mode)
    made.write_text(f'{made.read_text(encoding="utf-8")}\n[environment]\ndocker_network = "{kind}"\n', encoding="utf-8")
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_after_an_end_as_it_should_be(docker, tmp_path, kind):
    run = DockerRun(docker, tmp_path, on(tmp_path, kind), only=("network.blackhole.pooled",))
    assert run.wait() in {0, 1, 3}, run.told()
    outcomes = {check["id"]: check["outcome"] for check in run.evidence["checks"]}
    assert outcomes["network.blackhole.pooled"] in {"pass", "fail"}, run.evidence["checks"]
    assert run.left() == []


def test_what_a_published_port_cannot_show_is_not_applicable(docker, tmp_path):
    run = DockerRun(docker, tmp_path, on(tmp_path, "bridge"), only=("network.refused", "network.reset", "network.latency.pooled"))
    assert run.wait() in {0, 1, 3}, run.told()
    told = {check["id"]: check for check in run.evidence["checks"]}
    for name in ("network.refused.pooled", "network.refused.new", "network.reset.pooled", "network.reset.new"):
        assert told[name]["outcome"] == "not_applicable"
        assert "a published port turns a reset into a close" in told[name]["detail"]
    assert told["network.latency.pooled"]["outcome"] in {"pass", "fail"}
    assert told["network.latency.pooled"]["took_effect"] is True
    assert run.left() == []


def test_after_a_target_that_never_starts(docker, tmp_path):
    run = DockerRun(docker, tmp_path, tiny(tmp_path, "never-ready"))
    one_error(run, 4, "not ready after")
    assert run.left() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_in_mid_fault(docker, tmp_path, workers, kind):
    run = DockerRun(docker, tmp_path, on(tmp_path, kind), only=TWO, workers=workers)
    if kind == "host":
        run.wait_for_fault()
    else:
        assert until(lambda: len(run.containers()) >= 2)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait(60) == 130, run.told()
    assert "Traceback" not in run.told()
    assert run.evidence["verdict"] == "INCONCLUSIVE"
    assert run.left() == []


def test_interrupted_while_it_starts(docker, tmp_path):
    run = DockerRun(docker, tmp_path)
    assert until(run.containers)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.wait(60) == 130, run.told()
    assert "Traceback" not in run.told()
    assert run.left() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_runner_is_killed(docker, tmp_path, workers, kind):
    run = DockerRun(docker, tmp_path, on(tmp_path, kind), only=TWO, workers=workers)
    if kind == "host":
        run.wait_for_fault()
    else:
        assert until(lambda: len(run.containers()) >= 2)
    os.kill(run.process.pid, signal.SIGKILL)
    assert run.wait(5) == -signal.SIGKILL
    assert run.left() == []


def test_a_container_is_killed_by_somebody_else(docker, tmp_path):
    run = DockerRun(docker, tmp_path, only=TWO)
    run.wait_for_fault()
    run.containers()["postgresql"].kill()
    one_error(run, 4, "PostgreSQL", "died: exit status 137")
    assert run.left() == []


def test_everything_is_killed_and_the_next_run_sweeps(small, tmp_path):
    """Runner, worker and watchdog at once: what then is left in the engine is removed by whoever comes next, and by nobody before."""
    address, _, _, docker = small
    env = {"DOCKER_HOST": address, "CHAOS_EDGE_IMAGE": "edge:1"}
    run = DockerRun(docker, tmp_path, only=TWO, env=env)
    run.wait_for_fault()
    processes = [process for process, _ in run.processes()] + run_watchdogs(run)
    for process in [run.process, *processes]:
        process.kill()
    run.wait(5)
    tidy(run)
    assert len(ours(docker, run.id)) == 2
    other = tmp_path / "other"
    other.mkdir()
    living = DockerRun(docker, other, only=("network.blackhole.pooled",), env=env)
    living.wait_for_fault()
    assert ours(docker, run.id) == []
    swept = sweep(docker)
    assert not any(living.id in name for name in swept.removed)
    assert sum(living.id in name for name in swept.left) >= 2
    assert living.wait() in {0, 1, 3}, living.told()
    assert living.left() == []


def tidy(run):
    """With its watchdog gone, nobody is left to remove its scratch directory: the next day's run would."""
    shutil.rmtree(f"/dev/shm/chaos-gate-{run.id}", ignore_errors=True)
    shutil.rmtree(run.place / "tmp" / f"chaos-gate-{run.id}", ignore_errors=True)


def run_watchdogs(run):
    found = []
    for process in psutil.process_iter():
        try:
            if any(word.startswith(f"{run.id}.") for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_doctor_sweeps_and_says_so(small, tmp_path):
    address, _, _, docker = small
    env = {"DOCKER_HOST": address, "CHAOS_EDGE_IMAGE": "edge:1"}
    run = DockerRun(docker, tmp_path, only=TWO, env=env)
    run.wait_for_fault()
    for process in [run.process, *[one for one, _ in run.processes()], *run_watchdogs(run)]:
        process.kill()
    run.wait(5)
    tidy(run)
    assert ours(docker, run.id)
    command = [sys.executable, "-m", "chaos", "doctor", "--sweep"]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    assert f"swept  removed: container chaos-gate-{run.id}-main-" in done.stdout, done.stdout
    assert "ok     Docker" in done.stdout
    assert ours(docker, run.id) == []
    assert run.left(10) == []
