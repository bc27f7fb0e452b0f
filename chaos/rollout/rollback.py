"""Roll back, in one command: `chaos-gate rollback --state FILE`.

The state file is written before a release is put out: where the edge's admin API is (or what the team's own command is), what
was served before, how it is started where it does not run any more, what undoes the release's migration, and how to see that it is
served again. Nothing else is needed, so the command works when the process that put the release out is dead.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from chaos.environments.local.edge import set_weights
from chaos.errors import ConfigError, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IN_A_ROW = 5  # healthy answers that count as steady
LIMIT = 600.0  # s: res.rollback
COMING_UP = 60.0  # s for a release that was started again, before it gets requests in any case


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a roll-back has to know. The file may hold secrets, as its headers and `env` do: nobody but its owner may read it.

    `upstreams`: release -> loopback port behind the edge; `command`: the team's own tooling instead. `start` is how the good release
    is started where nothing listens on its port any more, its output appended to `log` and its pid written beside it ('.pid'). `undo`
    are commands that put schema and data back, carried out first. All commands run in `cwd`, with `env` on top of the caller's.
    `method`, `path`, `headers` and `body` are the request that shows whether it serves.
    """

    url: str
    path: str
    headers: Mapping[str, str]
    good: str
    admin_url: str = ""
    upstreams: Mapping[str, int] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    cwd: str = ""
    version_header: str = ""
    version: str = ""
    start: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    log: str = ""
    undo: tuple[tuple[str, ...], ...] = ()
    method: str = "GET"
    body: str = ""

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            json.dump(asdict(self), stream, indent=1)
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> State:
        """ConfigError when there is none, or when it is not one of ours."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            lists = {key: tuple(raw.get(key, ())) for key in ("command", "start")}
            return cls(**{**raw, **lists, "undo": tuple(tuple(one) for one in raw.get("undo", ()))})
        except FileNotFoundError as error:
            raise ConfigError(
                "no roll-out is recorded here",
                remedy="name the roll-out's state with --state FILE (a run keeps it as rollout.json in its evidence directory)",
                where=str(path),
            ) from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"not a roll-out's state: {error}", remedy="name the right file with --state FILE", where=str(path)
            ) from error


def roll_back(state: State, *, limit: float = LIMIT) -> float:
    """Put the good release back and wait until it answers `IN_A_ROW` times in a row; seconds from the call to the first of them."""
    started = time.monotonic()
    for command in state.undo:
        _carry_out(
            state, command, "a command that undoes the release's migration", "put the schema back by hand, then run this again"
        )
    if state.command:
        _carry_out(state, state.command, "the roll-back command", "mend `rollback` in [target.deploy]")
    else:
        _start(state)
        _edge(state)
    good, first = 0, 0.0
    while time.monotonic() - started < limit:
        at = time.monotonic()
        if _serves(state):
            first = first or at
            good += 1
            if good >= IN_A_ROW:
                return first - started
        else:
            good, first = 0, 0.0
        time.sleep(0.05)
    raise EnvironmentFault(
        f"release {state.good!r} was put back, but did not answer well {IN_A_ROW} times in a row within {limit:g} s",
        remedy="look at the release itself: the roll-back was carried out",
        where=state.url,
    )


def _edge(state: State) -> None:
    set_weights(state.admin_url, state.upstreams, {name: 100 if name == state.good else 0 for name in state.upstreams})


def _start(state: State) -> None:
    """The good release, where it does not run any more; it gets requests when it answers, or after `COMING_UP` seconds."""
    port = state.upstreams.get(state.good, 0)
    if not state.start or _listens(port):
        return
    log = Path(state.log or os.devnull)
    try:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                state.start,
                cwd=state.cwd or None,
                env={**os.environ, **state.env},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it outlives this command
            )
        if state.log:
            Path(f"{state.log}.pid").write_text(str(process.pid), encoding="ascii")
    except OSError as error:
        raise EnvironmentFault(
            f"release {state.good!r} could not be started: {error}",
            remedy="start it by hand, then run this again",
            where=state.start[0],
        ) from error
    end = time.monotonic() + COMING_UP
    while time.monotonic() < end and not _serves(state, f"http://127.0.0.1:{port}"):
        if process.poll() is not None:
            raise EnvironmentFault(
                f"release {state.good!r} was started, and ended with status {process.returncode}",
                remedy="start it by hand, then run this again",
                where=str(log),
                tail=tuple(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]) if state.log else (),
            )
        time.sleep(0.05)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _carry_out(state: State, command: Sequence[str], what: str, remedy: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=state.cwd or None,
            env={**os.environ, **state.env},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{what} could not be carried out: {error}", remedy=remedy, where=" ".join(command)) from error
    if done.returncode:
        raise EnvironmentFault(
            f"{what} ended with status {done.returncode}",
            remedy=remedy,
            where=" ".join(command),
            tail=tuple((done.stdout + done.stderr).splitlines()[-8:]),
        )


def _serves(state: State, url: str = "") -> bool:
    try:
        answer = httpx.request(
            state.method,
            (url or state.url) + state.path,
            headers={**state.headers, "Connection": "close"},
            content=state.body.encode() or None,
            timeout=5.0,
            trust_env=False,
            verify=False,  # noqa: S501  (what is asked here is whether the release answers)
        )
    except httpx.HTTPError:
        return False
    if state.version_header and state.version and answer.headers.get(state.version_header) != state.version:
        return False
    return answer.is_success
