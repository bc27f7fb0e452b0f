"""A target and a Toxiproxy that run already: rails, plan, abort conditions; and however a run ends, the proxy is as it was."""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from chaos.faults.network import NETWORK
from tests.detection.staging import THEIRS, Staging, ledger
from tests.detection.tiny_run import Run, until

KINDS = [f"network.{row.id}.{scope}" for row in NETWORK for scope in ("pooled", "new")] + ["pool.slow"]
CLEAN_WITHIN = 5.0  # s from a kill -9 to a clean proxy


@pytest.fixture(scope="module")
def staging(tmp_path_factory):
    made = Staging(tmp_path_factory.mktemp("staging"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def untouched(staging):
    """No test leaves anything for the next one: each starts and ends with the proxy as its owner has it."""
    assert staging.clean, staging.proxy()
    yield
    assert staging.clean, staging.proxy()


def start(place, staging, *only, **environment):
    return Run(place, staging.config(place, **environment), only=only)


def wait_for_fault(run, staging):
    """Until the check's own fault (not the look whether the target is behind the proxy) is in force."""

    def struck():
        run._gone(("fault",))
        there = run.directory and (run.directory / "faults.jsonl").exists()
        return there and any(one["entry"] == "inject" and one["fault"] != "path" for one in ledger(run.directory))

    assert until(struck), run.told()
    assert until(lambda: not staging.clean, 10), run.told()
    time.sleep(0.3)


def outcomes(run):
    return {one["id"]: one for one in run.evidence["checks"]}


def test_faults_of_a_proxy_that_is_not_ours_are_proven_by_traffic(tmp_path, staging):
    """Also with somebody else's toxic on it, which is still there at the end."""
    run = start(tmp_path, staging, "network.refused", "network.latency.pooled", "network.reset.new")
    assert run.wait() == 0, run.told()
    assert run.evidence["verdict"] == "CLEAR"
    shown = outcomes(run)
    assert shown.pop("attestation")["outcome"] == "pass"
    assert {name: (one["outcome"], one["took_effect"]) for name, one in shown.items()} == dict.fromkeys(
        ("network.refused.pooled", "network.refused.new", "network.latency.pooled", "network.reset.new"), ("pass", True)
    )
    assert "5 of 5 faults healed" in run.stdout  # the fifth is the look at the path
    assert "serving again after 4 of 4 faults" in run.stdout
    assert staging.proxy() == (THEIRS, True)


def test_what_is_not_ours_is_not_applicable(tmp_path, staging):
    run = start(tmp_path, staging, "C1", "pool.locks", "rollback", "server", "network.refused.new")
    assert run.wait() == 0, run.told()
    shown = {name: one["detail"] for name, one in outcomes(run).items() if one["outcome"] == "not_applicable"}
    assert shown.keys() == {"C1.start", "C1.reconnect", "pool.locks", "rollback", "server"}
    assert all("runs elsewhere" in why for why in shown.values())


# -- rails ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"allow": None}, "127.0.0.1 not in [environment] allow"),
        ({"allow": ["localhost", "127.0.0.2"]}, "127.0.0.1 not in [environment] allow"),
        ({"toxiproxy": None, "proxy": None}, "no proxy in front of its database is known"),
    ],
    ids=["nobody", "another", "no-proxy"],
)
def test_nothing_is_injected_where_nobody_said_so(tmp_path, staging, changed, words):
    run = start(tmp_path, staging, "network.refused", "steady", **changed)
    assert run.wait() in {0, 3}, run.told()
    shown = outcomes(run)
    assert {shown[f"network.refused.{scope}"]["outcome"] for scope in ("pooled", "new")} == {"not_applicable"}
    assert words in shown["network.refused.new"]["detail"]
    # What injects nothing is run; on a machine that is busy with others it may not be able to tell.
    assert shown["availability.steady"]["outcome"] in {"pass", "inconclusive"}
    assert not [one for one in ledger(run.directory) if one["entry"] != "worker"]


def test_a_plan_says_everything_and_breaks_nothing(tmp_path, staging):
    config = staging.config(tmp_path, abort={"error_rate": 0.9, "file": "stop-it"})
    command = [sys.executable, "-m", "chaos", "run", "-c", str(config), "--plan"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "nothing is injected now",
        f"database at {staging.toxiproxy}",
        "holds theirs: kept",
        "network.blackhole.new",
        f"everybody who reaches 127.0.0.1:{staging.environment.postgres.port} through proxy 'database'",
        "lasts 1.5 s to 8.5 s",
        "stop-it exists",
        "not run: needs a PostgreSQL that is ours",
        "15 faults",
    ):
        assert words in done.stdout
    assert not (tmp_path / "evidence").exists()
    told = subprocess.run([*command, "--json", "--only", "network.cut"], capture_output=True, text=True, check=True)
    assert [step["check"] for step in json.loads(told.stdout)] == ["network.cut.pooled", "network.cut.new"]


def test_a_proxy_that_is_not_in_front_of_the_database_proves_nothing(tmp_path, staging):
    run = start(tmp_path, staging, "network.refused.new", proxy="idle")
    assert run.wait() == 3, run.told()
    shown = outcomes(run)["network.refused.new"]
    assert shown["outcome"] == "inconclusive"
    assert "it is not in front of the target's database" in shown["detail"]
    assert staging.proxy("idle") == ([], True)


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"proxy": "databse"}, 2, "there is no proxy 'databse': did you mean 'database'?"),
        ({"toxiproxy": "http://127.0.0.1:9"}, 4, "does not answer"),
        ({"probe": "127.0.0.1:9"}, 4, "cannot be reached from here at 127.0.0.1:9"),
    ],
    ids=["name", "address", "probe"],
)
def test_a_wrong_address_is_one_clear_error(tmp_path, staging, changed, code, words):
    run = start(tmp_path, staging, "network.refused.new", **changed)
    assert run.wait() == code, run.told()
    assert words in run.stderr
    assert "Traceback" not in run.told()


def test_a_proxy_that_is_disabled_or_that_another_run_is_at_is_left_alone(tmp_path, staging):
    for number, (change, back, words) in enumerate(
        (
            (lambda: staging.enable(False), lambda: staging.enable(True), "is disabled"),
            (lambda: staging.toxic("chaos-gate-1-x", latency=1), lambda: staging.untoxic("chaos-gate-1-x"), "chaos-gate heal"),
        )
    ):
        place = tmp_path / str(number)
        place.mkdir()
        change()
        before = staging.proxy()
        run = start(place, staging, "network.refused.new")
        assert run.wait() == 4, run.told()
        assert words in run.stderr
        assert staging.proxy() == before
        back()


# -- abort conditions -------------------------------------------------------------------------------------------------------------


@contextmanager
def stopping(status, body):
    """A URL that says stop as soon as `told` is set; 503 before."""
    told = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            text = body if told.is_set() else b"go on"
            self.send_response(status if told.is_set() else 503)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/stop", told.set
        server.shutdown()


def aborted(run, staging, stop, words, within):
    wait_for_fault(run, staging)
    began = time.monotonic()
    stop()
    assert until(lambda: staging.clean, within), f"still broken {within} s later"
    took = time.monotonic() - began
    assert run.wait() == 3, run.told()
    assert run.evidence["verdict"] == "INCONCLUSIVE"
    assert "[environment] abort: stopped: " in run.stderr
    assert words in run.stderr
    assert words in run.recorded_error
    assert re.search(r"clean-up +2 of 2 faults healed", run.stdout), run.stdout
    assert "Stopped by an abort condition" in (run.directory / "report.html").read_text(encoding="utf-8")
    assert took < within
    assert not [one for one in ledger(run.directory) if one["entry"] == "failed"]
    assert run.left() == []


def test_a_file_stops_everything_at_once(tmp_path, staging):
    run = start(tmp_path, staging, "network.blackhole", abort={"file": str(tmp_path / "stop")})
    aborted(run, staging, (tmp_path / "stop").touch, f"{tmp_path / 'stop'} exists", within=3.0)


@pytest.mark.parametrize(("status", "body", "words"), [(200, b"", "answers 200"), (418, b"Stop it\n", "says 'Stop it'")])
def test_a_url_stops_everything_at_once(tmp_path, staging, status, body, words):
    with stopping(status, body) as (url, stop):
        run = start(tmp_path, staging, "network.latency.pooled", abort={"url": url})
        aborted(run, staging, stop, words, within=4.0)


def test_the_suites_own_traffic_stops_it(tmp_path, staging):
    """The database is refused: nine in ten requests of the last second fail."""
    run = start(tmp_path, staging, "network.cut.pooled", abort={"latency": 0.0001, "over": 5})
    assert run.wait() == 3, run.told()
    assert "the median request of the last 5 s took" in run.stderr
    assert run.evidence["verdict"] == "INCONCLUSIVE"


# -- however it ends --------------------------------------------------------------------------------------------------------------


def cleaned(run, staging):
    """Seconds from now until the proxy is as it was; what the run left is nothing, and it is the watchdog that healed."""
    began = time.monotonic()
    assert until(lambda: staging.clean, CLEAN_WITHIN), staging.proxy()
    took = time.monotonic() - began
    assert until(lambda: staging.serves, 15)
    assert until(lambda: _closed(run), 5), ledger(run.directory)
    assert {one["by"] for one in ledger(run.directory) if one["entry"] == "healed"} <= {"runner", "watchdog"}
    assert ledger(run.directory)[-1]["by"] == "watchdog"
    assert run.left() == []
    return took


def _closed(run):
    told = ledger(run.directory)
    return {one["id"] for one in told if one["entry"] == "inject"} == {one["id"] for one in told if one["entry"] == "healed"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_runner_is_killed_in_each_kind_of_fault(tmp_path, staging, kind):
    run = start(tmp_path, staging, kind)
    wait_for_fault(run, staging)
    os.kill(run.process.pid, signal.SIGKILL)
    assert cleaned(run, staging) < CLEAN_WITHIN
    run.process.wait()


@pytest.mark.parametrize("kind", ["network.blackhole.new", "network.refused.pooled", "network.reset.pooled"])
def test_the_whole_group_is_killed(tmp_path, staging, kind):
    """Everything but the watchdog, which has a session of its own."""
    run = start(tmp_path, staging, kind)
    wait_for_fault(run, staging)
    os.killpg(run.process.pid, signal.SIGKILL)
    assert cleaned(run, staging) < CLEAN_WITHIN
    run.process.wait()


def test_ctrl_c_heals_as_well(tmp_path, staging):
    run = start(tmp_path, staging, "network.blackhole.new")
    wait_for_fault(run, staging)
    os.killpg(run.process.pid, signal.SIGINT)
    assert until(lambda: staging.clean, CLEAN_WITHIN)
    assert run.wait(30) == 130, run.told()
    assert "faults healed" in run.stdout


def heal(place, *arguments):
    command = [sys.executable, "-m", "chaos", "heal", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_with_the_watchdog_gone_too_it_is_healed_by_hand(tmp_path, staging):
    run = start(tmp_path, staging, "network.blackhole.new")
    wait_for_fault(run, staging)
    guards = [one for one in psutil.Process(run.process.pid).children() if "watchdog" in " ".join(one.cmdline())]
    for guard in guards:
        guard.kill()
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    time.sleep(1.0)
    assert not staging.clean  # nobody is left to do it
    again = tmp_path / "again"
    again.mkdir()
    refused = start(again, staging, "network.refused.new")
    assert refused.wait() == 4, refused.told()
    assert "chaos-gate heal" in refused.stderr
    done = heal(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "healed  blackhole.new" in done.stdout
    assert staging.clean


def test_a_toxiproxy_that_hangs_is_an_environment_error_and_healed_later(tmp_path, staging):
    """Stopped in mid-fault: nothing can be healed, which is told, with what to do; when it goes on, `heal` does it."""
    run = start(tmp_path, staging, "network.latency.new")
    wait_for_fault(run, staging)
    server = staging.environment._toxiproxy.process
    server.signal(signal.SIGSTOP)
    try:
        code = run.wait(90)
    finally:
        server.signal(signal.SIGCONT)
    assert until(staging.proxy, 5)
    done = heal(tmp_path, "--ledger", run.directory)
    assert code == 4, run.told()
    assert "could not be healed" in run.stderr
    assert "NOT HEALED: latency.new" in run.stdout
    assert f"chaos-gate heal --ledger {run.directory / 'faults.jsonl'}" in run.stderr
    assert run.evidence["verdict"] == "INCONCLUSIVE"
    assert done.returncode == 0, done.stdout + done.stderr
    assert "healed  latency.new" in done.stdout
    assert staging.clean
