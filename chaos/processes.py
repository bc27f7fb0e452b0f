"""Processes that are gone in the end, whatever happens to the one that started them.

A `Reaper` starts processes, each in a session of its own, and stops them in reverse order. Beside it runs `chaos.watchdog`, which
does the same when the worker dies without a word (SIGKILL, out of memory). On Linux the parent-death signal makes that immediate.
Descendants that left their group are found by CHAOS_RUN_ID in their environment.
"""

from __future__ import annotations

import errno
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import watchdog
from chaos.errors import CleanupFailed, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

_FIRST_PORT, _LAST_PORT = 10_000, 49_151


def tail(log: Path, lines: int = 12) -> tuple[str, ...]:
    """The last lines of a log, oldest first; () when there is none."""
    try:
        with log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 16_384))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-lines:])


class Process:
    """One process that a `Reaper` started, and whatever it starts itself.

    It is not reaped before it is stopped: until then nobody else can get its pid, and every signal hits the right one.
    """

    def __init__(
        self, popen: subprocess.Popen[bytes], *, name: str, log: Path, mark: str, stop_signal: int, reaper: Reaper
    ) -> None:
        self.name = name
        self.pid = popen.pid
        self.log = log
        self.mark = mark
        self._popen = popen
        self._stop_signal = stop_signal
        self._reaper = reaper
        self._ended = False

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid}>"

    def poll(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        if self._popen.returncode is not None or not hasattr(os, "waitid"):  # macOS has it since Python 3.13
            return self._popen.poll()
        try:
            seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return self._popen.poll()
        if seen is None:
            return None
        return int(seen.si_status) if seen.si_code == os.CLD_EXITED else -int(seen.si_status)

    def wait(self, seconds: float) -> int | None:
        """Waits for it to end by itself; the exit status, or None when it still runs."""
        deadline, pause = time.monotonic() + seconds, 0.001
        while (status := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(0.02, pause * 2)
        return status

    def tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of its log, oldest first."""
        return tail(self.log, lines)

    def signal(self, number: int) -> None:
        """A signal to the process and its group (SIGSTOP, SIGHUP, ...); nothing when it has ended."""
        if not self._ended and self.poll() is None:
            with suppress(OSError):
                os.killpg(self.pid, number)

    def stop(self, timeout: float = 5.0, *, stop_signal: int | None = None) -> None:
        """Stop signal to the group, then SIGKILL to all that is left of it after `timeout` seconds; raises CleanupFailed."""
        if self._ended:
            return
        members = watchdog.family({self.pid})
        self.signal(self._stop_signal if stop_signal is None else stop_signal)
        self.signal(signal.SIGCONT)
        self.wait(timeout)
        self._finish(members)

    def kill(self) -> None:
        """SIGKILL to the process, its group and its descendants, now; raises CleanupFailed when one survives."""
        if not self._ended:
            members = watchdog.family({self.pid})
            self.signal(signal.SIGKILL)
            self._finish(members)

    def _finish(self, members: set[int]) -> None:
        # PostgreSQL's own children end by themselves a moment after it: only who is still there is killed.
        left = watchdog.sweep(members | {self.pid}, self.mark, seconds=5)
        try:
            self._popen.wait(2)
        except subprocess.TimeoutExpired:
            left |= {self.pid}
        if left:
            what = f"{self.name} could not be stopped: pid {', '.join(map(str, sorted(left)))}"
            raise CleanupFailed(
                what, remedy="end it by hand: it sits in the kernel, or belongs to another user", tail=self.tail()
            )
        watchdog.release_shared_memory({self.pid})
        self._ended = True
        self._reaper.forget(self)


@dataclass(slots=True)
class _Told:
    """What the watchdog was told, in order, to tell it to its successor should it die."""

    entries: dict[str, dict[str, object]] = field(default_factory=dict)
    popen: subprocess.Popen[bytes] | None = None


class Reaper:
    """Starts processes and owns paths, and sees to it that none is left. One a worker process.

    `run_id` names the run in CHAOS_RUN_ID; each reaper adds a mark of its own, so that workers never end each other's processes.
    `runner` is the pid of the process that leads the run: when it dies, the watchdog ends this worker as well.
    """

    def __init__(self, run_id: str, *, runner: int | None = None) -> None:
        self.mark = f"{run_id}.{secrets.token_hex(4)}"
        self._runner = runner
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._processes: list[Process] = []
        self._paths: list[Path] = []
        self._count = 0
        self._closed = False
        self._told = _Told()
        self._start_watchdog()

    def spawn(
        self,
        argv: Sequence[str],
        *,
        name: str,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        user: tuple[int, int] | None = None,
        stop_signal: int = signal.SIGTERM,
        death_signal: int = signal.SIGKILL,
    ) -> Process:
        """Starts a program in a session of its own, its output appended to `log`, as (uid, gid) `user` when given.

        `death_signal` is what it gets when the worker dies. Raises FileNotFoundError or PermissionError (with the program or
        `cwd` as its filename) like `subprocess`. Linux's parent-death signal is bound to the thread that starts the process, so
        it is set from the main thread only; elsewhere the watchdog alone has to do.
        """
        with self._lock:
            if self._closed:
                raise EnvironmentFault(
                    f"{name} was to be started after the end", remedy="start it before the reaper is closed", where=name
                )
            self._count += 1
            mark = f"{self.mark}/{self._count}"
            program = _resolve(argv[0], env=env, cwd=cwd)
            command = [*_on_parent_death(death_signal), program, *argv[1:]]
            with log.open("ab") as stream:
                popen = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env={**env, watchdog.VARIABLE: mark},
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    user=user[0] if user else None,
                    group=user[1] if user else None,
                    extra_groups=[] if user else None,
                )
            start = watchdog.start_time(popen.pid)
            self._tell(f"pid {popen.pid}", {"pid": popen.pid, "start": start, "signal": int(death_signal)})
            process = Process(popen, name=name, log=log, mark=mark, stop_signal=stop_signal, reaper=self)
            self._processes.append(process)
        return process

    def own(self, path: Path) -> Path:
        """A file or directory that must be gone in the end; may be called before it exists. Returns it."""
        with self._lock:
            self._paths.append(path.absolute())
            self._tell(f"path {path.absolute()}", {"path": str(path.absolute())})
        return path

    def disown(self, path: Path) -> None:
        """The path was removed, or is to stay."""
        with self._lock, suppress(ValueError):
            self._paths.remove(path.absolute())
            self._untell(f"path {path.absolute()}", {"free": str(path.absolute())})

    def arm(self, key: str, method: str, url: str, body: str = "") -> None:
        """A request that heals something, to be sent by the watchdog should this worker die before `disarm(key)`."""
        self._tell(f"heal {key}", {"heal": key, "request": [method, url, body]})

    def disarm(self, key: str) -> None:
        """It was healed."""
        self._untell(f"heal {key}", {"healed": key})

    def heals(self, ledger: Path, of: str) -> None:
        """The watchdog heals what this ledger holds of the worker `of`, should this process die. See `chaos.ledger`."""
        self._tell(f"ledger {ledger}", {"ledger": str(ledger.absolute()), "of": of})

    def forget(self, process: Process) -> None:
        """For `Process`: it has ended for good."""
        with self._lock, suppress(ValueError):
            self._processes.remove(process)
            self._untell(f"pid {process.pid}", {"gone": process.pid})

    def close(self) -> None:
        """Stops every process in reverse order and removes what is owned. Idempotent.

        Raises CleanupFailed at the end, after everything was tried.
        """
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        failures: list[str] = []
        for process in reversed(list(self._processes)):
            try:
                process.stop()
            except CleanupFailed as error:
                failures.append(error.what)
        if left := watchdog.sweep(set(), self.mark, seconds=5):
            failures.append(f"still running: pid {', '.join(map(str, sorted(left)))}")
        failures += [f"could not be removed: {path}" for path in reversed(self._paths) if not watchdog.remove(str(path))]
        self._dismiss_watchdog(clean=not failures)
        if failures:
            raise CleanupFailed("; ".join(failures), remedy="end and remove these by hand", where="clean-up")

    def __enter__(self) -> Reaper:  # noqa: PYI034  # Self would be the same: it is not meant to be subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_watchdog(self) -> None:
        argv = [sys.executable, "-I", "-S", watchdog.__file__, self.mark, str(os.getpid())]
        env = {key: value for key, value in os.environ.items() if key != watchdog.VARIABLE}  # an outer run must not end it
        self._told.popen = subprocess.Popen(
            [*argv, str(self._runner)] if self._runner else argv,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

    def _tell(self, key: str, entry: dict[str, object]) -> None:
        self._told.entries[key] = entry
        self._write([entry])

    def _untell(self, key: str, entry: dict[str, object]) -> None:
        self._told.entries.pop(key, None)
        self._write([entry])

    def _write(self, entries: list[dict[str, object]]) -> None:
        with self._lock:
            for _ in range(2):
                try:
                    os.write(self._pipe().fileno(), b"".join(json.dumps(entry).encode() + b"\n" for entry in entries))
                except OSError:  # somebody ended the watchdog: a new one is told everything
                    self._reap_watchdog()
                    self._start_watchdog()
                    entries = list(self._told.entries.values())
                else:
                    return

    def _pipe(self) -> IO[bytes]:
        assert self._told.popen is not None
        assert self._told.popen.stdin is not None
        return self._told.popen.stdin

    def _reap_watchdog(self) -> None:
        assert self._told.popen is not None
        with suppress(OSError):
            self._pipe().close()
        try:
            self._told.popen.wait(15)
        except subprocess.TimeoutExpired:
            self._told.popen.kill()
            self._told.popen.wait()

    def _dismiss_watchdog(self, *, clean: bool) -> None:
        if clean:
            with suppress(OSError, ValueError):  # it was ended
                os.write(self._pipe().fileno(), b'{"bye": true}\n')
        self._reap_watchdog()


def _resolve(program: str, *, env: Mapping[str, str], cwd: Path) -> str:
    """The program's path, as exec would find it; raises FileNotFoundError, NotADirectoryError or PermissionError."""
    if not cwd.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(cwd))
    if os.sep in program:
        found = shutil.which(str(cwd / program))
        exists = (cwd / program).exists()
    else:
        found = shutil.which(program, path=env.get("PATH", os.defpath))
        exists = False
    if found:
        return found
    number = errno.EACCES if exists else errno.ENOENT
    raise OSError(number, os.strerror(number), program)


def _on_parent_death(number: int) -> list[str]:
    """A prefix that has the process signalled when this thread ends (Linux). `setpriv` is part of util-linux.

    Not `preexec_fn`: that forks a copy of a large process with threads in it, which Python 3.12 warns about with reason.
    """
    if not watchdog.LINUX or threading.current_thread() is not threading.main_thread():
        return []
    tool = shutil.which("setpriv", path="/usr/bin:/bin")
    return [tool, "--pdeathsig", signal.Signals(number).name.removeprefix("SIG"), "--"] if tool else []


_claims: dict[int, socket.socket | None] = {}


def free_port() -> int:
    """A TCP port that is free on 127.0.0.1 and ::1, given to nobody else on this machine while this process lives.

    It is taken from below the range of outgoing connections where there is room, so that none of those sits on it when a server
    starts a second time.
    """
    last = _LAST_PORT
    with suppress(OSError, ValueError):
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
        last = low - 1 if low > _FIRST_PORT + 5_000 else last
    chooser = random.SystemRandom()
    for _ in range(2_000):
        port = chooser.randint(_FIRST_PORT, last)
        if port not in _claims and _is_free(port) and _claim(port):
            return port
    raise EnvironmentFault(
        f"no free TCP port on loopback between {_FIRST_PORT} and {last}",
        remedy="end what listens on so many ports",
        where="ports",
    )


def _is_free(port: int) -> bool:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno == errno.EADDRINUSE:
                return False  # any other error on ::1: this machine has no IPv6
    return True


def _claim(port: int) -> bool:
    """Claims it among all workers by a name in Linux's abstract socket space, which leaves no file and ends with the process."""
    claim: socket.socket | None = None
    if watchdog.LINUX:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0chaos-gate-port-{port}")
        except OSError:
            claim.close()
            return False
    _claims[port] = claim
    return True
