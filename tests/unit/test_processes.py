"""Real processes, really left behind: what of them is there afterwards?"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos import watchdog
from chaos.errors import CleanupFailed, EnvironmentFault
from chaos.processes import Reaper, free_port, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
ENV = {"PATH": os.environ["PATH"]}
# Leaves its group and session, as a daemon does; prints the pids of both.
DAEMON = """
import os, sys, time
child = os.fork()
if child == 0:
    os.setsid()
    grandchild = os.fork()
    if grandchild:
        os._exit(0)
    time.sleep(600)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def reaper() -> Iterator[Reaper]:
    with Reaper("test") as reaper:
        yield reaper


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_runs_writes_its_log_and_ends(reaper: Reaper, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    process = reaper.spawn(python(code), name="one", cwd=tmp_path, env=ENV, log=log)
    assert process.wait(20) == 3
    assert process.poll() == 3
    assert sorted(process.tail()) == ["err", "out"]
    process.stop()
    assert process.poll() == 3


def test_the_environment_is_the_given_one_and_the_mark(reaper: Reaper, tmp_path: Path) -> None:
    code = "import os; print(sorted(os.environ))"
    process = reaper.spawn(python(code), name="env", cwd=tmp_path, env={"A": "1"}, log=tmp_path / "log")
    process.wait(20)
    assert "'A', 'CHAOS_RUN_ID'" in process.tail()[0]
    assert "PATH" not in process.tail()[0]


def test_stop_asks_first(reaper: Reaper, tmp_path: Path) -> None:
    code = "import signal,sys,time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint('up', flush=True)\ntime.sleep(600)"
    process = reaper.spawn(python(code), name="polite", cwd=tmp_path, env=ENV, log=tmp_path / "log")
    assert until(lambda: process.tail() == ("up",))
    process.stop()
    assert process.poll() == 7


@pytest.mark.parametrize("stopped", [False, True])
def test_stop_kills_who_does_not_listen(reaper: Reaper, tmp_path: Path, stopped: bool) -> None:
    code = "import signal,time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    process = reaper.spawn(python(code), name="deaf", cwd=tmp_path, env=ENV, log=tmp_path / "log")
    assert until(lambda: process.tail() == ("up",))
    if stopped:
        process.signal(signal.SIGSTOP)
    process.stop(0.3)
    assert process.poll() == -signal.SIGKILL


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_a_daemon_that_left_its_session_is_found(reaper: Reaper, tmp_path: Path, way: str) -> None:
    process = reaper.spawn(python(DAEMON), name="daemon", cwd=tmp_path, env=ENV, log=tmp_path / "log")
    assert until(lambda: len(watchdog.strays(process.mark)) == 2 and bool(process.tail()))
    process.stop(5) if way == "stop" else process.kill()
    assert not watchdog.strays(process.mark)


def test_children_of_a_dead_leader_go_with_it(reaper: Reaper, tmp_path: Path) -> None:
    process = reaper.spawn(["/bin/sh", "-c", "sleep 600 & exit 0"], name="shell", cwd=tmp_path, env=ENV, log=tmp_path / "log")
    assert process.wait(20) == 0
    assert watchdog.strays(process.mark)
    process.stop()
    assert not watchdog.strays(process.mark)


def test_what_cannot_be_started_is_said_as_subprocess_does(reaper: Reaper, tmp_path: Path) -> None:
    def spawn(program: str, cwd: Path = tmp_path) -> None:
        reaper.spawn([program], name="none", cwd=cwd, env=ENV, log=tmp_path / "log")

    with pytest.raises(FileNotFoundError, match="no-such-program"):
        spawn("no-such-program")
    with pytest.raises(FileNotFoundError, match="gone"):
        spawn("sh", tmp_path / "gone")
    (tmp_path / "plain").write_text("")
    with pytest.raises(PermissionError, match="plain"):
        spawn("./plain")


def test_close_stops_in_reverse_order_removes_and_can_be_repeated(tmp_path: Path) -> None:
    reaper = Reaper("test")
    order = tmp_path / "order"
    for name in ("first", "second"):
        code = f"import signal,sys,time\ndef end(*_):\n open({str(order)!r},'a').write('{name} ')\n sys.exit()\n"
        code += "signal.signal(15, end)\nprint('up', flush=True)\ntime.sleep(600)"
        process = reaper.spawn(python(code), name=name, cwd=tmp_path, env=ENV, log=tmp_path / name)
        assert until(lambda log=process.log: tail(log) == ("up",))  # type: ignore[misc]  # mypy infers no defaults of lambdas
    folder = reaper.own(tmp_path / "folder")
    (folder / "deep").mkdir(parents=True)
    kept = reaper.own(tmp_path / "kept")
    kept.write_text("")
    reaper.disown(kept)
    reaper.close()
    reaper.close()
    assert order.read_text() == "second first "
    assert not folder.exists()
    assert kept.exists()
    with pytest.raises(EnvironmentFault, match="after the end"):
        reaper.spawn(["sh"], name="late", cwd=tmp_path, env=ENV, log=tmp_path / "log")


def test_close_says_what_could_not_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reaper = Reaper("test")
    reaper.own(tmp_path / "stuck")
    monkeypatch.setattr(watchdog, "remove", lambda path: not path.endswith("stuck"))
    with pytest.raises(CleanupFailed, match=r"could not be removed: .*stuck"):
        reaper.close()


def test_two_reapers_of_a_run_leave_each_other_alone(reaper: Reaper, tmp_path: Path) -> None:
    process = reaper.spawn(["sleep", "600"], name="mine", cwd=tmp_path, env=ENV, log=tmp_path / "log")
    with Reaper("test") as other:
        other.spawn(["sleep", "600"], name="theirs", cwd=tmp_path, env=ENV, log=tmp_path / "log")
    assert process.poll() is None


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"%d\n" % number for number in range(20_000)) + b"\xff last")
    assert tail(log, 2) == ("19999", "\ufffd last")
    assert tail(tmp_path / "none") == ()


def test_ports_are_free_on_both_loopbacks_and_never_given_twice() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.skipif(not watchdog.LINUX, reason="claims between processes need Linux's abstract sockets")
def test_ports_are_not_given_twice_to_two_workers() -> None:
    code = "from chaos.processes import free_port\nprint([free_port() for _ in range(200)]); input()"
    workers = [
        subprocess.Popen(python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]
    ports: list[int] = []
    for worker in workers:
        assert worker.stdout
        ports += json.loads(worker.stdout.readline())
    for worker in workers:
        worker.communicate("\n")
    assert len(set(ports)) == 600


# -- a worker that dies without a word ------------------------------------------------------------------------------------------

WORKER = """
import os, sys, time, threading
from pathlib import Path
from chaos.processes import Reaper
here = Path(sys.argv[1])
reaper = Reaper("killed", runner=int(sys.argv[2]) if len(sys.argv) > 2 else None)
reaper.own(here / "data").mkdir()
env = {"PATH": os.environ["PATH"]}
spawn = lambda argv, name: reaper.spawn(argv, name=name, cwd=here, env=env, log=here / name)
spawn([sys.executable, "-c", DAEMON], "daemon")
spawn(["/bin/sh", "-c", "trap '' TERM INT; sleep 600; sleep 600"], "deaf")
thread = threading.Thread(target=spawn, args=(["sleep", "600"], "from-a-thread")); thread.start(); thread.join()
if os.environ.get("HEAL"):
    reaper.arm("one", "POST", os.environ["HEAL"] + "/toxics?x=1", "{}")
    reaper.arm("two", "DELETE", os.environ["HEAL"] + "/done")
    reaper.disarm("two")
if os.environ.get("FORK") and os.fork() == 0:
    time.sleep(4); os._exit(0)   # holds the pipe to the watchdog
while not (here / "daemon").read_text(): time.sleep(0.01)
time.sleep(0.2)
print(reaper.mark, flush=True)
time.sleep(600)
""".replace("DAEMON", repr(DAEMON))


def start_worker(tmp_path: Path, *more: str, **env: str) -> tuple[subprocess.Popen[str], str]:
    (tmp_path / "work").mkdir()
    worker = subprocess.Popen(
        [*python(WORKER), str(tmp_path / "work"), *more], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **env}
    )
    assert worker.stdout
    mark = worker.stdout.readline().strip()
    assert len(watchdog.strays(mark)) == 5
    return worker, mark


def assert_nothing_left(tmp_path: Path, mark: str) -> None:
    assert until(lambda: not watchdog.strays(mark) and not (tmp_path / "work" / "data").exists())
    assert until(lambda: not watchdogs_of(mark))


def watchdogs_of(mark: str) -> list[str]:
    done = subprocess.run(["ps", "-A", "-ww", "-o", "stat=", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if mark in line and "watchdog" in line and not line.startswith("Z")]


def end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()


def test_nothing_is_left_of_a_worker_that_was_killed(tmp_path: Path) -> None:
    worker, mark = start_worker(tmp_path)
    end(worker)
    assert_nothing_left(tmp_path, mark)


def test_ctrl_c_does_not_reach_the_watchdog(tmp_path: Path) -> None:
    worker, mark = start_worker(tmp_path)
    for line in subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=", "-o", "args="], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if mark in line and "watchdog" in line:
            os.kill(int(line.split()[0]), signal.SIGINT)
            os.kill(int(line.split()[0]), signal.SIGTERM)
    assert watchdogs_of(mark)
    end(worker)
    assert_nothing_left(tmp_path, mark)


def test_a_fork_that_holds_the_pipe_does_not_delay_it(tmp_path: Path) -> None:
    worker, mark = start_worker(tmp_path, FORK="1")
    worker.kill()
    assert_nothing_left(tmp_path, mark)
    worker.communicate()


def test_a_runner_that_died_takes_its_workers_along(tmp_path: Path) -> None:
    runner = subprocess.Popen(["sleep", "600"])
    worker, mark = start_worker(tmp_path, str(runner.pid))
    runner.kill()
    runner.wait()
    assert_nothing_left(tmp_path, mark)
    assert worker.wait(20) == -signal.SIGKILL
    worker.communicate()


def test_armed_faults_are_healed_for_a_dead_worker(tmp_path: Path) -> None:
    seen: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            seen.append(f"{self.command} {self.path} {body}")
            self.send_response(204)
            self.end_headers()

        do_DELETE = do_POST  # noqa: N815  # the name http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        worker, mark = start_worker(tmp_path, HEAL=f"http://127.0.0.1:{server.server_port}")
        end(worker)
        assert_nothing_left(tmp_path, mark)
        server.shutdown()
    assert seen == ["POST /toxics?x=1 {}"]


def test_a_watchdog_that_was_killed_is_replaced_and_knows_everything(tmp_path: Path) -> None:
    reaper = Reaper("test")
    before = reaper._told.popen
    assert before
    owned = reaper.own(tmp_path / "owned")
    owned.write_text("")
    before.kill()
    before.wait()
    process = reaper.spawn(["sleep", "600"], name="later", cwd=tmp_path, env=ENV, log=tmp_path / "log")
    after = reaper._told.popen
    assert after
    assert after.pid != before.pid
    assert after.stdin
    after.stdin.close()  # as if this process had died
    assert after.wait(20) == 0
    assert not owned.exists()
    assert process.poll() == -signal.SIGKILL
    reaper.close()


def test_a_pid_that_was_reused_is_not_hit() -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        ledger = watchdog.Ledger()
        ledger.note(json.dumps({"pid": bystander.pid, "start": "1", "signal": 9}).encode())
        ledger.note(b'{"pid": 1, "sta')
        ledger.clean("no-such-mark")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_watchdog_starts_fast() -> None:
    """It competes with nothing for the time it takes, but a kill within it must not find it unborn: < 60 ms where it is quiet."""
    times = []
    for _ in range(5):
        started = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", watchdog.__file__, "none", "0"], input=b'{"bye": true}\n', check=True)
        times.append(time.monotonic() - started)
    assert min(times) < 0.5
