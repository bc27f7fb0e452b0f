"""How the share of the candidate is moved: by our own edge's weights, or by the team's own command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import httpx

from chaos.config import expand, names_in
from chaos.environments.local.edge import UPSTREAM
from chaos.errors import TargetFailed
from chaos.model import Kind
from chaos.rollout.rollback import LIMIT, State, roll_back

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chaos.config import Deploy
    from chaos.environments import Edge
    from chaos.rig import Rig

KNOWN = 10  # answers from which is learnt what the baseline calls itself


class Mover(Protocol):
    """`header` names who answered at `url`; `releases` says what its values are called, as far as they are known beforehand.

    `state` is what a roll-back needs; `candidate_url` is where the candidate can be asked by itself ('' when nowhere).
    """

    url: str
    header: str
    releases: Mapping[str, str]
    state: State
    candidate_url: str

    def move(self, weight: int) -> None:
        """So many per cent to the candidate."""

    def back(self) -> float:
        """Everything back to the baseline; seconds until that answers well."""

    def name_of(self, release: str) -> str:
        """'baseline', 'candidate', or '' for what an interval says of who answered."""


def state_of(rig: Rig, url: str) -> State:
    """What a roll-back has to know of the target, whoever moves the weights."""
    driver = rig.driver
    sample = driver.samples[Kind.READ][0]
    values = {**driver.session.values, "unique": "rollback"}
    return State(
        url=url,
        path=expand(sample.request.path, values),
        headers={**driver.session.headers("rollback"), **expand(dict(sample.request.headers), values)},
        good="baseline",
    )


@dataclass(slots=True)
class ByEdge:
    """Caddy's weights. `name` is the upstream that plays the candidate (in the drill another one than afterwards)."""

    edge: Edge
    ports: Mapping[str, int]
    name: str
    state: State
    header: str = UPSTREAM
    url: str = ""
    releases: Mapping[str, str] = field(default_factory=dict)
    candidate_url: str = ""

    @classmethod
    def of(cls, rig: Rig, edge: Edge, ports: Mapping[str, int], name: str) -> ByEdge:
        """Everything to the baseline, to begin with."""
        url = f"http://127.0.0.1:{edge.port}"
        state = replace(state_of(rig, url), admin_url=edge.admin_url, upstreams=dict(ports))
        edge.set_weights({"baseline": 100})
        named = {f"127.0.0.1:{port}": ("baseline" if one == "baseline" else "candidate") for one, port in ports.items()}
        return cls(edge=edge, ports=ports, name=name, state=state, url=url, releases=named)

    def move(self, weight: int) -> None:
        """See `Mover`."""
        self.edge.set_weights({"baseline": 100 - weight, self.name: weight})

    def back(self) -> float:
        """See `Mover`: what `chaos-gate rollback` does, by the same function."""
        return roll_back(self.state)

    def name_of(self, release: str) -> str:
        """See `Mover`."""
        return release


@dataclass(slots=True)
class ByCommand:
    """[target.deploy]: `deploy` for each weight that it takes, `rollback` for the way back. Versions are told by their header."""

    deploy: Deploy
    values: Mapping[str, str]
    cwd: Path
    state: State
    own: frozenset[str]  # what the baseline calls itself
    header: str = ""
    url: str = ""
    releases: Mapping[str, str] = field(default_factory=dict)
    candidate_url: str = ""

    @classmethod
    def of(cls, rig: Rig) -> ByCommand:
        """Learns what the baseline calls itself; TargetFailed when it says nothing."""
        deploy, target = rig.config.target.deploy, rig.config.target
        assert deploy is not None
        values = dict(rig.target.values)
        state = replace(
            state_of(rig, rig.target.base_url),
            command=tuple(expand(deploy.rollback, values)),
            cwd=str(target.cwd),
            version_header=deploy.version_header,
        )
        own = _names(state, deploy.version_header)
        if not own:
            raise TargetFailed(
                f"no answer has the header {deploy.version_header}: who answered cannot be told",
                remedy="let every release answer with it, or mend version_header",
                where=target.where("deploy"),
            )
        version = next(iter(own)) if len(own) == 1 else ""
        known = replace(state, version=version)
        return cls(deploy, values, target.cwd, known, own, header=deploy.version_header, url=rig.target.base_url)

    @property
    def steps(self) -> bool:
        """Whether the command takes a weight; one that does not moves everything at once."""
        return "weight" in names_in(self.deploy.deploy)

    def move(self, weight: int) -> None:
        """See `Mover`. TargetFailed when the command fails."""
        argv = expand(list(self.deploy.deploy), {**self.values, "version": "candidate", "weight": str(weight)})
        try:
            done = subprocess.run(argv, cwd=self.cwd, capture_output=True, text=True, timeout=LIMIT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failed(argv, str(error), ()) from error
        if done.returncode:
            raise _failed(argv, f"exit status {done.returncode}", tuple((done.stdout + done.stderr).splitlines()[-8:]))

    def back(self) -> float:
        """See `Mover`."""
        return roll_back(self.state)

    def name_of(self, release: str) -> str:
        """See `Mover`."""
        return "" if not release else "baseline" if release in self.own else "candidate"


def _failed(argv: list[str], why: str, tail: tuple[str, ...]) -> TargetFailed:
    return TargetFailed(
        f"the deploy command failed: {why}", remedy="mend `deploy` in [target.deploy]", where=" ".join(argv), tail=tail
    )


def _names(state: State, header: str) -> frozenset[str]:
    """What answers are signed with before anything is deployed."""
    found = set()
    with httpx.Client(trust_env=False, verify=False, timeout=5.0) as client:  # noqa: S501  (who answers is asked, not whether TLS is)
        for _ in range(KNOWN):
            try:
                found.add(client.get(state.url + state.path, headers=dict(state.headers)).headers.get(header, ""))
            except httpx.HTTPError:
                continue
    return frozenset(found - {""})
