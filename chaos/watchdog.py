"""What cleans up after a worker that died without a word. Run as a file of its own, standard library only: it starts at once.

    python -I -S watchdog.py TOKEN WORKER_PID [RUNNER_PID]

It reads one JSON object a line from standard input, which the worker holds open:

    {"pid": 7, "start": "8812", "signal": 9}   a process (and its group), when it started, and the signal that ends it
    {"gone": 7}                                that process was stopped
    {"path": "/tmp/x"}  {"free": "/tmp/x"}     must not exist in the end; no longer ours
    {"heal": "k", "request": ["POST", "http://127.0.0.1:8474/reset", ""]}  {"healed": "k"}
    {"ledger": "/x/faults.jsonl", "of": "ab12.gw0"}   where the worker's faults are written down: see chaos.ledger
    {"bye": true}                              all is well, nothing is left: go

At the end of input without 'bye', when the worker is no longer its parent, or two seconds after the runner died, it undoes what the
ledger holds, sends the heal requests, ends the processes with everything that descends from them, removes their shared memory and
the paths, and exits.
A pid counts only together with its start time, so that a reused pid is never hit.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

VARIABLE = "CHAOS_RUN_ID"
LINUX = sys.platform.startswith("linux")
PROC = Path("/proc")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: state, ppid, pgrp, session, ...; empty when there is none."""
    try:
        return (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _ps(*fields: str, pid: int = 0) -> list[list[str]]:
    """Rows of `ps` where there is no /proc (macOS)."""
    import subprocess  # noqa: PLC0415  # start-up time

    which = ["-p", str(pid)] if pid else ["-A"]
    argv = ["ps", *which, "-ww", *(part for field in fields for part in ("-o", f"{field}="))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return [line.split(None, len(fields) - 1) for line in done.stdout.splitlines() if line.strip()]


def start_time(pid: int) -> str:
    """When the process started, in whatever unit the system has; '' when it is gone or only waits to be reaped."""
    if LINUX:
        fields = _stat(pid)
        return "" if not fields or fields[0] in "ZX" else fields[19]
    rows = _ps("state", "lstart", pid=pid)
    return "" if not rows or rows[0][0].startswith("Z") else rows[0][-1]


def table() -> dict[int, tuple[int, int]]:
    """Every living process: pid -> (parent's pid, process group). Those that wait to be reaped are left out."""
    found: dict[int, tuple[int, int]] = {}
    if not LINUX:
        for row in _ps("pid", "ppid", "pgid", "state"):
            if not row[3].startswith("Z"):
                found[int(row[0])] = int(row[1]), int(row[2])
        return found
    for name in os.listdir(PROC):  # noqa: PTH208  # Path.iterdir costs twice the time, and this runs at every stop
        if name.isdigit() and (fields := _stat(int(name))) and fields[0] not in "ZX":
            found[int(name)] = int(fields[1]), int(fields[2])
    return found


def family(pids: set[int]) -> set[int]:
    """All living processes that are one of `pids`, descend from one, or are in the group of one."""
    processes = table()
    members = {pid for pid, (_, group) in processes.items() if pid in pids or group in pids}
    grew = True
    while grew:
        more = {pid for pid, (parent, _) in processes.items() if parent in members} - members
        members |= more
        grew = bool(more)
    return members - {os.getpid()}


def strays(mark: str) -> set[int]:
    """Processes whose environment holds CHAOS_RUN_ID=`mark`, or `mark` followed by '/': also those that left their group."""
    exact, prefix = f"{VARIABLE}={mark}".encode(), f"{VARIABLE}={mark}/".encode()
    found: set[int] = set()
    if LINUX:
        for name in os.listdir(PROC):  # noqa: PTH208  # see table()
            with suppress(OSError):  # another user's, or gone meanwhile
                if name.isdigit() and exact in (data := (PROC / name / "environ").read_bytes()):
                    entries = data.split(b"\0")
                    if any(entry == exact or entry.startswith(prefix) for entry in entries) and start_time(int(name)):
                        found.add(int(name))
    else:
        import subprocess  # noqa: PLC0415  # start-up time

        done = subprocess.run(["ps", "-Axeww", "-o", "pid=", "-o", "command="], capture_output=True, check=False)
        for line in done.stdout.splitlines():
            if any(word == exact or word.startswith(prefix) for word in line.split()):
                found.add(int(line.split()[0]))
    return found - {os.getpid()}


def send(pids: set[int], number: int) -> None:
    """The signal to each; one that is gone or not ours to signal is left to whoever looks again."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)


def sweep(pids: set[int], mark: str, *, seconds: float) -> set[int]:
    """SIGKILL `pids`, their families and the strays of `mark` until none lives or the time is over; those that still live."""
    deadline = time.monotonic() + seconds
    known = set(pids)
    while left := family(known) | strays(mark):
        # A member may have forked while it was looked at: it is looked for again until nothing new turns up.
        known |= left
        if time.monotonic() > deadline:
            break
        send(left, signal.SIGKILL)
        time.sleep(0.01)
    return left


def release_shared_memory(pids: set[int]) -> int:
    """Removes the System V segments that these (dead) processes made: PostgreSQL's interlock survives a SIGKILL. How many."""
    count = 0
    with suppress(OSError):
        for line in (PROC / "sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if int(fields[4]) in pids and fields[6] == "0":  # creator's pid; nobody attached
                import ctypes  # noqa: PLC0415  # 10 ms, and hardly ever needed

                ctypes.CDLL(None).shmctl(int(fields[1]), 0, None)  # IPC_RMID
                count += 1
    return count


def remove(path: str) -> bool:
    """Removes a file or a tree; True when nothing is there any more."""
    import shutil  # noqa: PLC0415  # start-up time

    target = Path(path)
    for _ in range(20):
        if not os.path.lexists(path):
            return True
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # a process in its last moments may still write: hence the loop
        else:
            with suppress(OSError):
                target.unlink()
        if os.path.lexists(path):
            time.sleep(0.05)
    return not os.path.lexists(path)


def heal(method: str, url: str, body: str) -> bool:
    """One request, without proxies or redirects, two seconds at most; True when it was answered with success.

    `http+unix://%2Fpath%2Fto.sock/...` goes to a Unix socket: a container engine's, which may take longer.
    """
    import http.client  # noqa: PLC0415  # start-up time
    from urllib.parse import urlsplit  # noqa: PLC0415  # start-up time

    parts = urlsplit(url)
    if parts.scheme == "http+unix":
        return _ask_engine(method, parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""))
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=2)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, path, body=body.encode(), headers=headers)
        return connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False


def _ask_engine(method: str, netloc: str, path: str) -> bool:
    """A removal, asked again while the engine is still about what stands in its way; True when what it names is gone."""
    import http.client  # noqa: PLC0415  # start-up time
    import socket  # noqa: PLC0415  # start-up time
    from urllib.parse import unquote  # noqa: PLC0415  # start-up time

    deadline = time.monotonic() + 15
    known = False
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(10)
                link.connect(unquote(netloc))
                connection = http.client.HTTPConnection("localhost", timeout=10)
                connection.sock = link
                connection.request(method, path)
                status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return False
        known = known or status != 404
        # A container whose making was under way when the worker died comes into being a moment later.
        if status < 300 or (status == 404 and (known or time.monotonic() > deadline - 14)):
            return True
        time.sleep(0.1)
    return False


class Ledger:
    """What the worker has told so far."""

    def __init__(self) -> None:
        self.processes: dict[int, tuple[str, int]] = {}
        self.paths: list[str] = []
        self.heals: dict[str, list[str]] = {}
        self.ledgers: list[tuple[int, str, Any]] = []  # open from when we were told: their directory may be gone by then
        self.started: set[int] = set()
        self.bye = False

    def note(self, line: bytes) -> None:
        """Takes one line in; a torn last line (the worker died while it wrote) is ignored."""
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if "pid" in entry:
            self.processes[entry["pid"]] = entry["start"], entry["signal"]
            self.started.add(entry["pid"])
        elif "gone" in entry:
            self.processes.pop(entry["gone"], None)
        elif "path" in entry:
            self.paths.append(entry["path"])
        elif "free" in entry and entry["free"] in self.paths:
            self.paths.remove(entry["free"])
        elif "heal" in entry:
            self.heals[entry["heal"]] = entry["request"]
        elif "ledger" in entry:
            with suppress(OSError):
                self.ledgers.append((os.open(entry["ledger"], os.O_RDWR | os.O_APPEND), entry["of"], _healing()))
        elif "healed" in entry:
            self.heals.pop(entry["healed"], None)
        elif "bye" in entry:
            self.bye = True

    def clean(self, mark: str) -> None:
        """Puts everything back: heal, end, free, remove."""
        undone = self._undo()
        # Containers after everything that may have to reach them, and networks after the containers in them.
        for method, url, body in sorted(self.heals.values(), key=lambda one: ("+unix" in one[1], "/networks/" in one[1])):
            heal(method, url, body)
        living = {pid: number for pid, (start, number) in self.processes.items() if start and start_time(pid) == start}
        relatives = family(set(living))
        for pid, number in reversed(living.items()):
            send({pid}, number)
        gentle = {pid for pid, number in living.items() if number != signal.SIGKILL}
        send(relatives - family(gentle), signal.SIGKILL)
        deadline = time.monotonic() + 1.5  # PostgreSQL's immediate shutdown gives its shared memory back: let it
        while gentle and time.monotonic() < deadline and any(start_time(pid) for pid in gentle):
            time.sleep(0.01)
        sweep(set(living) | relatives, mark, seconds=5)
        release_shared_memory(self.started)
        for ledger, line, healing in undone:  # only now has gone as well what ends with the worker
            with suppress(OSError):
                healing.note(ledger, line)
        for path in reversed(self.paths):
            remove(path)

    def _undo(self) -> list[tuple[int, dict[str, object], Any]]:
        """Heals what the ledgers hold, the last fault first; the lines to add to each."""
        lines = []
        for ledger, of, healing in self.ledgers:
            with suppress(OSError):
                left = healing.unhealed(os.pread(ledger, os.fstat(ledger).st_size, 0), of)
                done = [healing.outcome(entry, healing.undo(entry), "watchdog") for entry in reversed(left.values())]
                lines += [(ledger, line, healing) for line in done]
        return lines


def _healing() -> Any:
    """chaos/healing.py. Any: a module; this file has to run where nothing can be imported."""
    import runpy  # noqa: PLC0415  # start-up time
    from types import SimpleNamespace  # noqa: PLC0415  # start-up time

    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("healing.py"))))


def listen(ledger: Ledger, worker: int, runner: int) -> bool:
    """Reads until there is nothing more to hear; True when the worker has to be ended because its runner died."""
    source, pending = sys.stdin.fileno(), b""
    runner_start = start_time(runner) if runner else ""
    runner_died = 0.0
    while not ledger.bye:
        if select.select([source], [], [], 0.25)[0]:
            chunk = os.read(source, 65536)
            if not chunk:
                return False
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                ledger.note(line)
        elif os.getppid() != worker:  # a fork of the worker may still hold the pipe
            return False
        if runner and not runner_died and start_time(runner) != runner_start:
            runner_died = time.monotonic()
        if runner_died and time.monotonic() - runner_died > 2:
            return True
    return False


def main(argv: list[str]) -> int:
    """Listens, and cleans when the worker did not say 'bye'."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whoever stops the worker in this way gets the cleaning at the end of input
    mark, worker, runner = argv[0], int(argv[1]), int(argv[2]) if len(argv) > 2 else 0
    ledger = Ledger()
    if listen(ledger, worker, runner):
        send({worker}, signal.SIGKILL)
    if not ledger.bye:
        ledger.clean(mark)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
