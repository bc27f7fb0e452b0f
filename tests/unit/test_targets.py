"""The target as a command and as a URL: real processes, real ports, and what is said when they fail."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from chaos.config import load
from chaos.errors import TargetFailed, UsageError
from chaos.processes import Reaper
from chaos.targets import CommandTarget, LogSource, TargetHandle, UrlTarget, command
from chaos.targets.logs import LogFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 20.0  # s; generous: the machine is shared and noisy

SERVICE = """
import http.server, json, os, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        seen = {"path": self.path, "headers": dict(self.headers.items())}
        print(json.dumps(seen), flush=True)
        status = int(os.environ.get("STATUS", "200"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"not  now" if status != 200 else json.dumps(seen).encode())
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
print("starting", flush=True)
Server((sys.argv[2], int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def reaper() -> Iterator[Reaper]:
    with Reaper("test") as one:
        yield one


@pytest.fixture
def make(tmp_path: Path, reaper: Reaper) -> Callable[..., CommandTarget]:
    """A target that runs `start` (default: SERVICE), with more lines of [target]."""
    (tmp_path / "service.py").write_text(SERVICE)

    def _make(start: list[str] | None = None, *lines: str, **options: object) -> CommandTarget:
        argv = json.dumps(start or [sys.executable, "service.py", "{port}", "127.0.0.1"])
        ready = [] if any(line.startswith("ready") for line in lines) else ['ready = "/readyz?deep=1"']
        head = ["[target]", 'name = "orders"', f"start = {argv}", *ready]
        text = "\n".join([*head, *lines, "[[target.read]]", 'path = "/items/1"'])
        (tmp_path / "chaos.toml").write_text(text)
        options = {"placeholders": {"ca_file": "/ca.pem"}, "work_dir": tmp_path / "work"} | options
        return CommandTarget(load(tmp_path / "chaos.toml").target, reaper=reaper, **options)  # type: ignore[arg-type]

    return _make


def sh(script: str) -> list[str]:
    """A target that is this script; it gets {port} as $0, for a target has to."""
    return ["sh", "-c", script, "{port}"]


def until_ended(target: CommandTarget) -> str:
    end = time.monotonic() + PATIENCE
    while not (ended := target.exited()) and time.monotonic() < end:
        time.sleep(0.01)
    return ended


def pid_of(target: CommandTarget) -> int:
    process = target._process
    assert process is not None
    return process.pid  # type: ignore[attr-defined, no-any-return]  # the real Process has one


class TestLife:
    def test_start_ready_stop_and_again(self, make: Callable[..., CommandTarget]) -> None:
        target = make()
        handle: TargetHandle = target
        logged: LogSource = target
        handle.start()
        assert 0 < handle.wait_ready(PATIENCE) < PATIENCE
        assert handle.base_url == f"http://127.0.0.1:{handle.address[1]}"
        assert (handle.exited(), handle.killed_from_outside()) == ("", False)
        first = pid_of(target)
        offset = logged.log_offset()
        handle.stop()
        handle.stop()
        assert (handle.exited(), handle.killed_from_outside()) == ("", False)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(handle.address, timeout=1)
        address = handle.address
        handle.start()
        handle.wait_ready(PATIENCE)
        assert handle.address == address
        assert pid_of(target) != first
        assert logged.log_lines(offset)[0] == "starting"  # the log goes on where it was
        assert len([line for line in logged.log_lines() if line == "starting"]) == 2

    def test_start_twice_is_once(self, make: Callable[..., CommandTarget]) -> None:
        target = make()
        target.start()
        pid = pid_of(target)
        target.start()
        assert pid_of(target) == pid

    def test_the_question(self, make: Callable[..., CommandTarget]) -> None:
        headers = 'headers = { Authorization = "Bearer {token}", X-Run = "{ca_file}", X-Id = "{unique}" }'
        more = '[target.hosts]\nallowed = ["api.example.test"]\n[[target.prepare]]\npath = "/login"\nsave = { token = "/t" }'
        target = make(None, headers, more)
        target.start()
        target.wait_ready(PATIENCE)
        seen = json.loads(target.log_lines()[-1])
        assert seen["path"] == "/readyz?deep=1"
        assert seen["headers"]["Host"] == "api.example.test"
        assert seen["headers"]["X-Run"] == "/ca.pem"
        assert len(seen["headers"]["X-Id"]) == 32
        assert "Authorization" not in seen["headers"]  # nobody has logged in yet

    def test_ready_on_a_port_of_its_own(self, make: Callable[..., CommandTarget]) -> None:
        start = [*sh(f"exec {sys.executable} service.py $1 127.0.0.1"), "{port:admin}"]
        target = make(start, 'ready = "http://localhost:{port:admin}/admin/ready"')
        target.start()
        target.wait_ready(PATIENCE)
        assert target.values["port:admin"] != target.values["port"]
        assert json.loads(target.log_lines()[-1])["headers"]["Host"] == f"localhost:{target.values['port:admin']}"

    def test_listening_on_ipv6_only(self, make: Callable[..., CommandTarget]) -> None:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")
        target = make([sys.executable, "service.py", "{port}", "::1"])
        target.start()
        target.wait_ready(PATIENCE)
        assert target.address == ("::1", int(target.values["port"]))
        assert target.base_url == f"http://[::1]:{target.values['port']}"

    def test_two_instances_share_no_port(self, make: Callable[..., CommandTarget]) -> None:
        assert make().address != make().address

    def test_environment(self, make: Callable[..., CommandTarget], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FROM_THE_CALLER", "1")
        monkeypatch.setenv("OVER", "caller")
        env = 'env = { OVER = "env", CA = "{ca_file}", KEPT = "${HOME}", FLAG = "off" }'
        target = make(sh("env; sleep 60"), env, extra_env={"FLAG": "on"})
        target.start()
        end = time.monotonic() + PATIENCE
        while "FLAG=on" not in target.log_lines() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
        lines = set(target.log_lines())
        assert lines >= {"FROM_THE_CALLER=1", "OVER=env", "CA=/ca.pem", "KEPT=${HOME}", "FLAG=on"}
        assert any(line.startswith("CHAOS_RUN_ID=test") for line in lines)


class TestSetup:
    def test_in_order_and_in_the_targets_environment(self, make: Callable[..., CommandTarget], tmp_path: Path) -> None:
        setup = 'setup = [["sh", "-c", "echo $A >> done"], ["sh", "-c", "echo {ca_file} >> done"]]'
        target = make(None, setup, 'env = { A = "first" }')
        target.prepare_database()
        assert (tmp_path / "done").read_text() == "first\n/ca.pem\n"
        target.prepare_database()  # another database, the caller says
        assert (tmp_path / "done").read_text().count("first") == 2

    def test_failure(self, make: Callable[..., CommandTarget]) -> None:
        target = make(None, 'setup = [["true"], ["sh", "-c", "echo no such table >&2; exit 4"], ["touch", "after"]]')
        with pytest.raises(TargetFailed) as caught:
            target.prepare_database()
        error = caught.value
        assert error.what == "setup failed: `sh -c 'echo no such table >&2; exit 4'`: exit status 4"
        assert error.where.endswith("chaos.toml:5")
        assert error.tail == ("no such table",)
        assert not (target.target.cwd / "after").exists()

    def test_never_ending(self, make: Callable[..., CommandTarget], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(command, "_SETUP", 0.3)
        target = make(None, 'setup = [["sleep", "60"]]', "startup_timeout = 0.1")
        with pytest.raises(TargetFailed, match=r"setup failed: `sleep 60`: still running after 0.3 s"):
            target.prepare_database()

    def test_no_such_program(self, make: Callable[..., CommandTarget]) -> None:
        target = make(None, 'setup = [["alembik", "upgrade"]]')
        with pytest.raises(UsageError, match=r"chaos.toml:5: setup: no such program: alembik"):
            target.prepare_database()


class TestEnds:
    @pytest.mark.parametrize(
        ("script", "ended", "outside"),
        [
            ("exit 3", "exit status 3", False),
            ("exit 0", "exit status 0", False),
            ("kill -KILL $$", "signal SIGKILL", True),
            ("kill -TERM $$", "signal SIGTERM", True),
            ("kill -SEGV $$", "signal SIGSEGV", False),
            ("sh -c 'kill -KILL $$'; exit $?", "signal SIGKILL", True),  # 137, as a shell passes it on
            ("exit 143", "signal SIGTERM", True),
            ("exit 139", "exit status 139", False),
        ],
    )
    def test_by_itself(self, make: Callable[..., CommandTarget], script: str, ended: str, outside: bool) -> None:
        target = make(sh(script))
        assert target.exited() == ""
        target.start()
        assert until_ended(target) == ended
        assert target.killed_from_outside() is outside
        target.stop()
        assert target.exited() == ""

    def test_killed_while_running(self, make: Callable[..., CommandTarget]) -> None:
        target = make()
        target.start()
        target.wait_ready(PATIENCE)
        os.kill(pid_of(target), signal.SIGKILL)
        assert until_ended(target) == "signal SIGKILL"
        assert target.killed_from_outside()
        target.start()  # and it can be started again
        target.wait_ready(PATIENCE)
        assert not target.killed_from_outside()

    def test_unknown_signal_numbers(self) -> None:
        assert command.how_it_ended(-99) == "signal 99"
        assert command.how_it_ended(None) == ""


def failure(target: CommandTarget, timeout: float = PATIENCE, *, listens: bool = False) -> TargetFailed:
    """What `wait_ready` raises; for a target that `listens`, its slow start on a busy machine is not part of `timeout`."""
    target.start()
    end = time.monotonic() + PATIENCE
    while listens and not command._listening(target.address[1]) and time.monotonic() < end:
        time.sleep(0.02)
    with pytest.raises(TargetFailed) as caught:
        target.wait_ready(timeout)
    return caught.value


class TestNotReady:
    def test_died(self, make: Callable[..., CommandTarget]) -> None:
        error = failure(make(sh("echo one; echo boom >&2; exit 3")))
        assert error.what == "orders ended before it was ready: exit status 3"
        assert error.where.endswith("chaos.toml:3")
        assert error.tail == ("one", "boom")
        assert error.remedy.startswith("run it by hand: sh -c")

    def test_died_silently(self, make: Callable[..., CommandTarget]) -> None:
        assert failure(make(sh("exit 3"))).tail == ("(it printed nothing)",)

    def test_became_a_daemon(self, make: Callable[..., CommandTarget]) -> None:
        assert "stay in the foreground" in failure(make(sh("sleep 60 & exit 0"))).remedy

    def test_last_status(self, make: Callable[..., CommandTarget]) -> None:
        error = failure(make(None, 'env = { STATUS = "503" }'), timeout=0.3, listens=True)
        assert error.what.startswith("orders is not ready after 0.3 s; the last answer of http://127.0.0.1:")
        assert error.what.endswith("/readyz?deep=1: 503 Service Unavailable, not now")
        assert error.where.endswith("chaos.toml:4")
        assert json.loads(error.tail[-1])["path"] == "/readyz?deep=1"
        assert error.exit_code == 4

    @pytest.mark.parametrize(("status", "remedy"), [("404", "is a path it serves"), ("400", "set [target.hosts] allowed")])
    def test_remedies(self, make: Callable[..., CommandTarget], status: str, remedy: str) -> None:
        assert remedy in failure(make(None, f'env = {{ STATUS = "{status}" }}'), timeout=0.3, listens=True).remedy

    def test_listens_elsewhere(self, make: Callable[..., CommandTarget]) -> None:
        target = make(sh("sleep 60"))
        error = failure(target, timeout=0.3)
        assert error.what.endswith("/readyz?deep=1: the connection was refused")
        assert error.remedy.startswith(f"nothing listens on port {target.values['port']}")

    def test_hangs(self, make: Callable[..., CommandTarget]) -> None:
        script = "import socket,sys,time; s=socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
        error = failure(make([sys.executable, "-c", script, "{port}"]), timeout=0.3, listens=True)
        assert "none within 0.5 s" in error.what

    def test_speaks_no_http(self, make: Callable[..., CommandTarget]) -> None:
        script = (
            "import socket,sys\ns=socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
            "while True:\n c,_=s.accept(); c.recv(99); c.sendall(b'SSH-2.0\\r\\n'); c.close()"
        )
        error = failure(make([sys.executable, "-c", script, "{port}"]), timeout=0.3, listens=True)
        assert "none: " in error.what

    def test_port_was_taken_before(self, make: Callable[..., CommandTarget]) -> None:
        target = make()
        with socket.create_server(("127.0.0.1", target.address[1])), pytest.raises(TargetFailed) as caught:
            target.start()
        assert caught.value.what == f"a port orders wants is taken (it was given {target.address[1]})"

    def test_port_was_taken_says_the_program(self, make: Callable[..., CommandTarget]) -> None:
        error = failure(make(sh("echo 'OSError: [Errno 98] Address already in use' >&2; exit 1")))
        assert error.what.startswith("a port orders wants is taken")
        assert "{port:name}" in error.remedy

    def test_not_started(self, make: Callable[..., CommandTarget]) -> None:
        with pytest.raises(TargetFailed, match="was not started"):
            make().wait_ready(1)

    def test_no_such_program(self, make: Callable[..., CommandTarget], tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"chaos.toml:3: start: no such program: orderz") as caught:
            make(["orderz", "{port}"]).start()
        assert caught.value.remedy == f"name one that is on PATH, or its path relative to cwd (cwd is {tmp_path})"

    def test_not_executable(self, make: Callable[..., CommandTarget]) -> None:
        with pytest.raises(UsageError, match=r"chaos.toml:3: start: ./service.py cannot be run: Permission denied"):
            make(["./service.py", "{port}"]).start()

    def test_cwd_is_gone(self, make: Callable[..., CommandTarget], tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        target = make(None, 'cwd = "there"')
        (tmp_path / "there").rmdir()
        with pytest.raises(UsageError, match=r"chaos.toml:5: start: cwd cannot be entered|cwd cannot be entered"):
            target.start()


class TestLogs:
    def test_output_is_the_log(self, make: Callable[..., CommandTarget], tmp_path: Path) -> None:
        target = make(sh("echo out; echo err >&2; exit 1"), '[target.logs]\nfile = "{log_file}"')
        target.start()
        until_ended(target)
        assert target.log_lines() == ("out", "err")
        assert target.values["log_file"] == str(tmp_path / "work" / "target.log")

    def test_a_program_that_writes_log_file_itself(self, make: Callable[..., CommandTarget]) -> None:
        target = make(sh("echo printed; echo '{}' > {log_file}; exit 1"), '[target.logs]\nfile = "{log_file}"')
        target.start()
        until_ended(target)
        assert target.log_lines() == ("{}",)
        assert target.log_tail() == ("printed",)

    def test_told_of_log_file_but_logging_to_stdout(self, make: Callable[..., CommandTarget]) -> None:
        target = make(sh("echo printed; echo '{}' > {log_file}; exit 1"))
        target.start()
        until_ended(target)
        assert target.log_lines() == ("printed",)

    def test_a_file_of_the_targets_own(self, make: Callable[..., CommandTarget], tmp_path: Path) -> None:
        target = make(sh("echo own > app.log; exit 1"), '[target.logs]\nfile = "app.log"')
        target.start()
        until_ended(target)
        assert target.values["log_file"] == str(tmp_path / "app.log")
        assert target.log_lines() == ("own",)
        assert target.log_tail() == ("own",)  # it printed nothing

    def test_whole_lines_only(self, make: Callable[..., CommandTarget]) -> None:
        target = make(sh("printf 'one\\ntwo'; sleep 60"))
        target.start()
        end = time.monotonic() + PATIENCE
        while target.log_lines() != ("one",) and time.monotonic() < end:
            time.sleep(0.01)
        assert target.log_lines() == ("one",)
        target.stop()
        assert target.log_lines() == ("one", "two")

    def test_offsets(self, tmp_path: Path) -> None:
        path = tmp_path / "a.log"
        log = LogFile(path)
        assert (log.offset(), log.lines(), log.tail(3)) == (0, (), ())
        path.write_bytes(b"one\r\n\n\xff\nfour")
        assert log.lines() == ("one", "", "\ufffd")
        assert log.lines(log.offset()) == ()
        assert log.lines(log.offset(), ended=True) == ("four",)
        assert log.tail(2) == ("\ufffd", "four")
        offset = log.offset()
        path.write_bytes(b"new\n")  # rotated
        assert log.lines(offset) == ("new",)
        path.write_bytes(b"a\n" + b"x" * 100_000)
        assert log.offset() == 2
        path.write_bytes(b"x" * 100_000)
        assert log.offset() == 0


class TestUrl:
    @pytest.fixture
    def service(self) -> Iterator[tuple[str, list[str]]]:
        hosts: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hosts.append(self.headers["Host"])
                self.send_response(200 if self.path == "/base/healthz" and len(hosts) > 2 else 503)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
            yield f"http://127.0.0.1:{server.server_port}", hosts
            server.shutdown()

    def target(self, directory: Path, url: str, *, live: str = "/healthz") -> UrlTarget:
        text = f'[target]\nname = "orders"\nurl = "{url}"\nlive = "{live}"\n[target.logs]\nfile = "app.log"\n'
        text += '[target.hosts]\nallowed = ["api.example.test"]\n[[target.read]]\npath = "/"\n'
        (directory / "chaos.toml").write_text(text)
        return UrlTarget(load(directory / "chaos.toml").target)

    def test_ready(self, tmp_path: Path, service: tuple[str, list[str]]) -> None:
        url, hosts = service
        target = self.target(tmp_path, url + "/base")
        handle: TargetHandle = target
        handle.start()
        assert handle.wait_ready(PATIENCE) >= 0.2
        assert hosts == ["api.example.test"] * 3
        assert handle.address == ("127.0.0.1", int(url.rpartition(":")[2]))
        handle.stop()
        assert (handle.exited(), handle.killed_from_outside(), handle.base_url) == ("", False, url + "/base")
        target.prepare_database()

    def test_not_ready(self, tmp_path: Path, service: tuple[str, list[str]]) -> None:
        target = self.target(tmp_path, service[0], live="/other")
        with pytest.raises(TargetFailed) as caught:
            target.wait_ready(0.5)
        assert caught.value.what.endswith("/other: 503 Service Unavailable")
        assert caught.value.where.endswith("chaos.toml:3")

    def test_its_log(self, tmp_path: Path) -> None:
        target = self.target(tmp_path, "https://staging.example.test")
        assert target.address == ("staging.example.test", 443)
        assert target.log_lines() == ()
        (tmp_path / "app.log").write_text("one\ntwo\n")
        logged: LogSource = target
        assert (logged.log_lines(), logged.log_tail(1), logged.log_offset()) == (("one", "two"), ("two",), 8)


def test_the_package_is_light() -> None:
    """The bundled service starts with it: neither pydantic nor the two classes may come along."""
    code = "import sys, chaos.targets; print([m for m in sys.modules if m.startswith(('pydantic', 'chaos.config', 'http'))])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_no_other_names() -> None:
    import chaos.targets

    assert chaos.targets.__all__ == sorted(chaos.targets.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = chaos.targets.Other
