"""Candidates that are good, and candidates with one thing wrong: promoted, or paused by the right rule and rolled back."""

import json
import os
import signal
import subprocess
import sys

import pytest

from chaos.evidence.store import STORE, Store
from tests.detection.canary_runs import SHORT, beside, canary, command, environment, front
from tests.detection.planted_canary import DEFECTS as PLANTED
from tests.detection.tiny_run import until

EVERY = os.environ.get("CHAOS_DETECTION") == "all"
RULES = {
    "some_5xx": "5xx",
    "slow": "P95",
    "turns_landing_hosts_away": "hosts",
    "some_handshakes_fail": "handshakes",
    "acknowledges_and_forgets": "writes",
}
CAREFUL = ("--no-safeguards", "--steps", "5,25,50,100", "--compress", "--hold", "300", "--rate", "150")


def told(result, check):
    return next(one for one in result.evidence["checks"] if one["id"] == check)


@pytest.mark.parametrize("defect", RULES if EVERY else ["some_5xx"])
def test_a_bad_candidate_is_paused_for_the_right_reason(tmp_path, defect):
    result = canary(beside(tmp_path, defect), tmp_path, *(CAREFUL if EVERY else SHORT))
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO"), result.shown
    assert result.failed == {"roll.canary"}, result.open_checks
    weight = "5" if EVERY else "50"
    pause = told(result, f"pause.{weight}")
    assert pause["outcome"] == "pass", pause
    assert RULES[defect] in pause["detail"].partition("paused by ")[2].partition(" after")[0], pause["detail"]
    assert told(result, "pause.drill")["outcome"] == "pass", result.open_checks
    assert result.gate("roll.pause")["verdict"] == "pass"


@pytest.mark.parametrize("options", [SHORT, CAREFUL] if EVERY else [SHORT])
def test_a_healthy_candidate_is_promoted(tmp_path, options):
    result = canary(beside(tmp_path, "none"), tmp_path, *options)
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), (result.shown, result.open_checks)
    assert result.gate("roll.canary")["verdict"] == "pass"
    assert result.gate("roll.pause")["verdict"] == "pass"
    assert "100 %" in told(result, "canary")["detail"]


def test_a_team_moves_its_own_weights(tmp_path):
    with front(tmp_path) as (config, share):
        result = canary(config, tmp_path, "--steps", "50,100", "--compress", "--rate", "200")
        assert result.gate("roll.canary")["verdict"] == "pass", result.shown
        assert share.read_text() == "100"


@pytest.mark.parametrize("defect", ["fails", "slow", "silent"] if EVERY else ["fails"])
def test_a_teams_bad_release_goes_back_by_its_own_command(tmp_path, defect):
    """And it is decided again from disk."""
    with front(tmp_path, defect) as (config, share):
        result = canary(config, tmp_path, "--steps", "50,100", "--compress", "--rate", "200")
        assert result.code == (3 if defect == "silent" else 1), result.shown  # who was silent cannot be told
        assert told(result, "canary.50")["outcome"] == ("inconclusive" if defect == "silent" else "fail")
        assert share.read_text() == "0"
    again = [sys.executable, "-m", "chaos", "recheck", str(tmp_path / "evidence"), "-c", str(config)]
    done = subprocess.run(again, capture_output=True, text=True, timeout=60, check=False, env=environment())
    assert done.returncode == result.code, done.stderr
    assert "every gate as recorded" in done.stdout, done.stdout
    with Store(tmp_path / "evidence" / STORE) as store:
        assert {one.experiment for one in store.histories()} == {"canary.50", "canary"}


def test_the_way_back_outlives_the_canary(tmp_path):
    """Kill -9 in the middle of a step; then the one command, with nothing but the state on the disk."""
    with front(tmp_path) as (config, share):
        running = subprocess.Popen(
            command(config, "--steps", "25,100", "--hours", "1", "--rate", "50"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert until(lambda: share.exists() and share.read_text() == "25", 60)
        running.send_signal(signal.SIGKILL)
        running.wait()
        state = tmp_path / "evidence" / "rollout.json"
        assert json.loads(state.read_text())["good"] == "baseline"
        back = [sys.executable, "-m", "chaos", "rollback", "--state", str(state)]
        done = subprocess.run(back, capture_output=True, text=True, timeout=60, check=False, env=environment())
        assert done.returncode == 0, done.stderr
        assert share.read_text() == "0"


def test_every_defect_is_tried():
    assert set(PLANTED) == set(RULES)
