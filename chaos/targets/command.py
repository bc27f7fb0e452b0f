"""A target that is a command: set up, started on free ports, watched, stopped."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from chaos.config import expand, names_in
from chaos.errors import TargetFailed, UsageError
from chaos.processes import free_port
from chaos.targets.logs import LogFile
from chaos.targets.ready import REFUSED, ask, question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chaos.config import Target

_PAUSE = 0.05  # s between two questions whether it is ready
_PATIENCE = 5.0  # s for one answer
_SETUP = 120.0  # s for one setup command, more when the target itself may take longer: migrations do
_LOOPBACK = {"127.0.0.1": "127.0.0.1", "::1": "[::1]"}  # address -> how a URL writes it
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_TAKEN = re.compile(
    r"address (?:is )?already in use|EADDRINUSE|port \S+ (?:is |was )?already (?:in use|allocated)", re.IGNORECASE
)


class Running(Protocol):
    """A started process, as `chaos.processes.Process` is one."""

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""

    def tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of its log."""

    def stop(self, timeout: float = 5.0) -> None:
        """End it and all that it started."""


class Spawns(Protocol):
    """What starts processes and never forgets one, as `chaos.processes.Reaper` does."""

    def spawn(self, argv: Sequence[str], *, name: str, cwd: Path, env: Mapping[str, str], log: Path) -> Running:
        """Start it, its output appended to `log`; OSError when there is no such program."""


def how_it_ended(status: int | None) -> str:
    """'exit status 3', 'signal SIGKILL', or '' for None.

    128 + 9 and 128 + 15 are how shells pass on that their child was killed (POSIX.1, Exit Status for Commands).
    """
    if status is None:
        return ""
    number = _signal(status)
    if number is None:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"signal {signal.Signals(number).name}"
    return f"signal {number}"


def _signal(status: int) -> int | None:
    if status < 0:
        return -status
    return status - 128 if status in {128 + signal.SIGKILL, 128 + signal.SIGTERM} else None


class CommandTarget:
    """`start = [...]`: one instance of the target, on ports of its own, logging below `work_dir`.

    With `image = "..."` the `reaper` is what runs that image; then nothing of the caller's own environment is passed on.

    `placeholders` are the values that come from the environment (database_url, ca_file, ...); `extra_env` goes on top of the
    target's own env. `values` holds all of them and the ports, for whoever sends requests. The ports stay the same over restarts.
    """

    def __init__(
        self,
        target: Target,
        *,
        placeholders: Mapping[str, str],
        reaper: Spawns,
        work_dir: Path,
        extra_env: Mapping[str, str] | None = None,
    ) -> None:
        self.target = target
        self._reaper = reaper
        self._work_dir = work_dir
        self._extra_env = dict(extra_env or {})
        self._process: Running | None = None
        self._host = "127.0.0.1"
        wanted = names_in(target.model_dump(exclude={"candidate"}))
        ports = {name: str(free_port()) for name in sorted(wanted | {"port"}) if name.partition(":")[0] == "port"}
        known = ports | {"work_dir": str(work_dir), **placeholders}
        self._output, log_file, self._log = self._logs(known)
        self.values: Mapping[str, str] = {"log_file": str(log_file), **known}

    def _logs(self, known: Mapping[str, str]) -> tuple[LogFile, Path, LogFile]:
        """Where output goes, what {log_file} is, and which of the two is the target's log.

        A program that was told {log_file} writes it itself, perhaps truncating it: its output then goes to a file of its own.
        """
        named = self.target.logs.file if self.target.logs else None
        told = "log_file" in names_in((self.target.start, self.target.env, self.target.setup))
        log_file = self._work_dir / "target.log"
        if named and named != "{log_file}":
            log_file = self.target.cwd / expand(named, {"log_file": str(log_file), **known})
            told = True
        output = LogFile(self._work_dir / "target.out" if told else log_file)
        return output, log_file, LogFile(log_file) if named else output

    # -- where it is ----------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for raw sockets. ::1 when the target was found to listen only there."""
        return self._host, int(self.values["port"])

    @property
    def base_url(self) -> str:
        """Scheme, host and port; no slash at the end."""
        return f"http://{_LOOPBACK[self._host]}:{self.values['port']}"

    @property
    def pid(self) -> int | None:
        """Of its first process, while it runs here; None where it runs in a container."""
        return getattr(self._process, "pid", None) if self.target.image is None else None

    # -- its life -------------------------------------------------------------------------------------------------------------

    def prepare_database(self) -> None:
        """Run the `setup` commands, in order, in the target's environment. Once for each database: the caller knows when."""
        limit = max(_SETUP, self.target.startup_timeout)
        for number, command in enumerate(self.target.setup):
            argv = expand(command, self.values)
            process = self._spawn(argv, key="setup", name=f"setup[{number}]", log=self._work_dir / f"setup-{number}.out")
            end = time.monotonic() + limit
            while (status := process.poll()) is None and time.monotonic() < end:
                time.sleep(0.01)
            tail = process.tail()
            process.stop()  # and whatever it left running
            if status != 0:
                ended = how_it_ended(status) or f"still running after {limit:g} s"
                raise TargetFailed(
                    f"setup failed: `{shlex.join(command)}`: {ended}",
                    remedy="mend the command, or run it by hand against an empty database",
                    where=self.target.where("setup"),
                    tail=tail,
                )

    def start(self) -> None:
        """See `TargetHandle`. Raises UsageError when there is no such program, TargetFailed when a port is taken."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        for name, port in self.values.items():
            if name.partition(":")[0] == "port" and _listening(int(port)):
                raise self._taken(int(port), tail=())
        self._process = self._spawn(
            expand(self.target.start or (), self.values),
            key="image" if self.target.image else "start",
            name="target",
            log=self._output.path,
        )

    def wait_ready(self, timeout: float) -> float:
        """See `TargetHandle`."""
        begun = time.monotonic()
        while True:
            self._see_it_alive()
            answer = self._ask(min(_PATIENCE, max(0.5, begun + timeout - time.monotonic())))
            self._see_it_alive()  # an answer of somebody else's on that port is none
            if not answer:
                return time.monotonic() - begun
            if time.monotonic() >= begun + timeout:
                raise self._late(timeout, answer)
            time.sleep(_PAUSE)

    def recipe(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """The command that starts it, and the environment that it needs on top of the caller's: for whoever starts it by hand."""
        return tuple(expand(self.target.start or (), self.values)), self._env()

    def stop(self) -> None:
        """See `TargetHandle`."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def exited(self) -> str:
        """See `TargetHandle`."""
        return how_it_ended(self._process.poll()) if self._process else ""

    def killed_from_outside(self) -> bool:
        """Ended by SIGKILL, SIGTERM, SIGINT or SIGHUP that this object did not send."""
        status = self._process.poll() if self._process else None
        return status is not None and _signal(status) in _FROM_OUTSIDE

    # -- its log --------------------------------------------------------------------------------------------------------------

    def log_offset(self) -> int:
        """See `LogSource`."""
        return self._log.offset()

    def log_lines(self, since: int = 0) -> tuple[str, ...]:
        """See `LogSource`."""
        return self._log.lines(since, ended=self._process is None or self._process.poll() is not None)

    def log_tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of its output; of its log file when it printed nothing."""
        return self._output.tail(lines) or self._log.tail(lines)

    # -- within ---------------------------------------------------------------------------------------------------------------

    def _spawn(self, argv: Sequence[str], *, key: str, name: str, log: Path) -> Running:
        own = {} if self.target.image else os.environ
        env = {**own, **self._env()}
        self._work_dir.mkdir(parents=True, exist_ok=True)
        try:
            return self._reaper.spawn(argv, name=name, cwd=self.target.cwd, env=env, log=log)
        except OSError as error:
            if error.filename == str(self.target.cwd):
                what, remedy = f"cwd cannot be entered: {self.target.cwd}", "mend cwd"
            elif isinstance(error, FileNotFoundError | NotADirectoryError):
                what, remedy = f"no such program: {argv[0]}", "name one that is on PATH, or its path relative to cwd"
            else:
                what, remedy = f"{argv[0]} cannot be run: {error.strerror}", f"make it executable: chmod +x {argv[0]}"
            raise UsageError(
                f"{key}: {what}", remedy=f"{remedy} (cwd is {self.target.cwd})", where=self.target.where(key)
            ) from None

    def _env(self) -> dict[str, str]:
        return {**expand(dict(self.target.env), self.values), **self._extra_env}

    def _ask(self, timeout: float) -> str:
        """Whether it is ready; looks for it on ::1 too (what `localhost` is to some runtimes)."""
        answer = self._ask_at(self._host, timeout)
        if answer == REFUSED:
            other = next(host for host in _LOOPBACK if host != self._host)
            if _listening(int(self.values["port"]), host=other):
                self._host = other
                return self._ask_at(other, timeout)
        return answer

    def _ask_at(self, host: str, timeout: float) -> str:
        base_url = f"http://{_LOOPBACK[host]}:{self.values['port']}"
        url, headers = question(self.target, self.values, base_url)
        return ask(url, headers, timeout=timeout)

    def _see_it_alive(self) -> None:
        """Raises TargetFailed when it is not, in the words that help most."""
        if self._process is None:
            raise TargetFailed("the target was not started", remedy="call start() before wait_ready()", where=self.target.name)
        status = self._process.poll()
        if status is None:
            return
        tail = self.log_tail()
        if _TAKEN.search("\n".join(tail)):
            raise self._taken(int(self.values["port"]), tail=tail)
        remedy = f"run it by hand: {self.target.image or shlex.join(self.target.start or ())}"
        if status == 0:
            remedy = "it must stay in the foreground: leave out the option that makes it a daemon"
        elif status == -signal.SIGKILL:
            remedy = "nobody here killed it: look for the out-of-memory killer (dmesg)"
        raise TargetFailed(
            f"{self.target.name} ended before it was ready: {how_it_ended(status)}",
            remedy=remedy,
            where=self.target.where("start"),
            tail=tail or ("(it printed nothing)",),
        )

    def _taken(self, port: int, *, tail: tuple[str, ...]) -> TargetFailed:
        return TargetFailed(
            f"a port {self.target.name} wants is taken (it was given {port})",
            remedy="run again when that was a coincidence; otherwise see that every port it opens is a {port} or a {port:name}",
            where=self.target.where("start"),
            tail=tail,
        )

    def _late(self, timeout: float, answer: str) -> TargetFailed:
        url, _ = question(self.target, self.values, self.base_url)
        remedy = "mend it, or raise startup_timeout"
        if answer == REFUSED and not _listening(int(self.values["port"])):
            remedy = (
                f"nothing listens on port {self.values['port']}: see that it listens on {{port}} of 127.0.0.1, or give it time"
            )
        elif self.target.image and answer.startswith("none"):
            remedy = "see that it listens on {port} of every address (0.0.0.0): it is reached through a published port"
        elif answer.startswith("404"):
            remedy = "see that `ready` (or `live`) in chaos.toml is a path it serves"
        elif answer.startswith(("400", "403", "421")):
            sent = f"Host {self.target.host}" if self.target.host else "no Host of yours"
            remedy = f"it may have refused the Host (it was sent {sent}): set [target.hosts] allowed"
        return TargetFailed(
            f"{self.target.name} is not ready after {timeout:g} s; the last answer of {url}: {answer}",
            remedy=remedy,
            where=self.target.where("ready" if self.target.ready else "live"),
            tail=self.log_tail() or ("(it printed nothing)",),
        )


def _listening(port: int, *, host: str | None = None) -> bool:
    """Whether somebody accepts connections on that port of loopback."""
    for address in [host] if host else _LOOPBACK:
        with suppress(OSError), socket.create_connection((address, port), timeout=1.0):
            return True
    return False
