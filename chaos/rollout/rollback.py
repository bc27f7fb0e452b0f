"""Roll back, in one command: `chaos-gate rollback --state FILE`.

The state file is written before a release is put out: where the edge's admin API is (or what the team's own command is), what
was served before, and how to see that it is served again. Nothing else is needed, so the command works when the process that put
the release out is dead.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import httpx

from chaos.environments.local.edge import set_weights
from chaos.errors import ConfigError, EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

IN_A_ROW = 5  # healthy answers that count as steady
LIMIT = 600.0  # s: res.rollback


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a roll-back has to know.

    `upstreams`: release -> loopback port behind the edge; `command`: the team's own tooling instead.
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

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        part.replace(path)

    @classmethod
    def read(cls, path: Path) -> State:
        """ConfigError when there is none, or when it is not one of ours."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**raw, "command": tuple(raw.get("command", ()))})
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
    if state.command:
        _own_command(state)
    else:
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


def _own_command(state: State) -> None:
    command = list(state.command)
    try:
        done = subprocess.run(command, cwd=state.cwd or None, capture_output=True, text=True, timeout=LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(
            f"the roll-back command could not be carried out: {error}",
            remedy="mend `rollback` in [target.deploy]",
            where=" ".join(command),
        ) from error
    if done.returncode:
        raise EnvironmentFault(
            f"the roll-back command ended with status {done.returncode}",
            remedy="run it by hand",
            where=" ".join(command),
            tail=tuple((done.stdout + done.stderr).splitlines()[-8:]),
        )


def _serves(state: State) -> bool:
    try:
        answer = httpx.get(
            state.url + state.path,
            headers={**state.headers, "Connection": "close"},
            timeout=5.0,
            trust_env=False,
            verify=False,  # noqa: S501  (what is asked here is whether the release answers)
        )
    except httpx.HTTPError:
        return False
    if state.version_header and state.version and answer.headers.get(state.version_header) != state.version:
        return False
    return answer.is_success
