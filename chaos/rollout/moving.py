"""How the share of the candidate is moved: by our own edge's weights, or by the team's own command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from chaos.config import names_in
from chaos.environments.local.edge import UPSTREAM
from chaos.errors import TargetFailed
from chaos.experiment.asking import ask
from chaos.model import Kind
from chaos.rollout.deploying import command_of, env_of, put_out
from chaos.rollout.drill import probe
from chaos.rollout.rollback import State, roll_back

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        state = State(url=url, good="baseline", admin_url=edge.admin_url, upstreams=dict(ports), **probe(rig))
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

    rig: Rig
    deploy: Deploy
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
        own = _names(rig, deploy.version_header)
        if not own:
            raise TargetFailed(
                f"no answer has the header {deploy.version_header}: who answered cannot be told",
                remedy="let every release answer with it, or mend version_header",
                where=target.where("deploy"),
            )
        state = State(
            url=rig.target.base_url,
            good="baseline",
            command=command_of(rig, deploy.rollback, "baseline"),
            cwd=str(target.cwd),
            env=env_of(rig),
            version_header=deploy.version_header,
            version=next(iter(own)) if len(own) == 1 else "",
            **probe(rig),
        )
        return cls(rig, deploy, state, own, header=deploy.version_header, url=rig.target.base_url)

    @property
    def steps(self) -> bool:
        """Whether the command takes a weight; one that does not moves everything at once."""
        return "weight" in names_in(self.deploy.deploy)

    def move(self, weight: int) -> None:
        """See `Mover`. TargetFailed when the command fails."""
        if failed := put_out(self.rig, "candidate", weight):
            raise TargetFailed(failed, remedy="mend `deploy`", where=self.rig.config.target.where("deploy"))

    def back(self) -> float:
        """See `Mover`."""
        return roll_back(self.state)

    def name_of(self, release: str) -> str:
        """See `Mover`."""
        return "" if not release else "baseline" if release in self.own else "candidate"


def _names(rig: Rig, header: str) -> frozenset[str]:
    """What answers are signed with before anything is deployed."""
    driver = rig.driver
    answers = (ask(driver, driver.session, driver.samples[Kind.READ][0], client="canary") for _ in range(KNOWN))
    return frozenset(one.headers.get(header.lower(), "") for one in answers) - {""}
