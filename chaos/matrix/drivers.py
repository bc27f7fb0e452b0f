"""Which drivers there are, as data, and how one is talked to."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIENTS = Path(__file__).with_name("clients")
READY = 20.0  # s for a driver to say that it is ready


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """`modes`: setting -> what is added to the URL. `knows`: libpq's options that it takes beyond sslmode and sslrootcert."""

    name: str
    command: tuple[str, ...]
    modes: Mapping[str, Mapping[str, str]]
    knows: frozenset[str] = frozenset()


def bundled() -> tuple[Driver, ...]:
    """Those of drivers.toml."""
    raw = tomllib.loads(files("chaos.matrix").joinpath("drivers.toml").read_text(encoding="utf-8"))
    places = {"{python}": sys.executable, "{clients}": str(CLIENTS)}
    return tuple(
        Driver(
            name=one["name"],
            command=tuple(_filled(part, places) for part in one["command"]),
            modes=raw[one["like"]]["modes"],
            knows=frozenset(one.get("knows", raw[one["like"]]["knows"])),
        )
        for one in raw["driver"]
    )


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def given(text: str) -> Driver:
    """`NAME=COMMAND`, as --driver has it; UsageError when it is not of that form. It is asked what any driver is."""
    name, equals, command = text.partition("=")
    argv = shlex.split(command)
    if not (name.strip() and equals and argv):
        raise UsageError(f"{text!r} is no NAME=COMMAND", remedy="write --driver 'pgx=./pgx-client'", where="--driver")
    return Driver(name=name.strip(), command=tuple(argv), modes=next(one.modes for one in bundled() if one.name == "asyncpg"))


@dataclass(slots=True)
class Client:
    """A driver's process. One question at a time; one that does not answer in time is ended, and started again when it is needed."""

    driver: Driver
    env: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    said: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _rest: bytes = b""

    def start(self) -> bool:
        """Whether it is there, and said so. `said` is its last word when it is not."""
        if self._process is not None and self._process.poll() is None:
            return True
        self.stop()
        try:
            self._process = subprocess.Popen(
                self.driver.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **self.env},
                start_new_session=True,
            )
        except OSError as error:
            self.said = f"{self.driver.command[0]}: {error.strerror}"
            return False
        line = self._line(READY)
        if line is None or not line.startswith("ready"):
            assert self._process.stderr is not None
            self._end()
            last = self._process.stderr.read().decode(errors="replace").strip().splitlines()[-1:] or [line or "it said nothing"]
            self.said = last[0]
            self.stop()
            return False
        self.version = line.removeprefix("ready").strip()
        return True

    def ask(self, question: str, seconds: float) -> str | None:
        """Its answer: 'ok' or 'error WHY'; None when there was none in time, and it was ended."""
        if not self.start():
            return f"error {self.said}"
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(question.encode() + b"\n")
            self._process.stdin.flush()
        answer = self._line(seconds)
        if answer is None:
            ended = self._process.poll()
            self.stop()
            return None if ended is None else f"error it ended with status {ended}"
        return answer

    def _line(self, seconds: float) -> str | None:
        assert self._process is not None
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                return None
            data = os.read(self._process.stdout.fileno(), 65_536)
            if not data:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(1.0)
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _end(self) -> None:
        assert self._process is not None
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(5.0)

    def stop(self) -> None:
        """End it, with all that it started."""
        if self._process is None:
            return
        self._end()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._process, self._rest = None, b""
