"""Bad releases of anybody's service, as data: what is wrong with each, how it is made of the target, from where it is rolled back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.cases import Case
from chaos.faults.schema import CHANGES
from chaos.rollout.drill import wrong_ca

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.config import Target
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

NOBODY = "not-the-host.invalid"
FAMILY = "rollback-drill"
GATES = ("res.rollback", "res.durability", "rel.api_contract")
STEPS = (5, 25, 50, 100)  # roll.canary's


def wrong_hosts(rig: Rig) -> CommandTarget | str:
    """An instance whose settings name another host in place of the real one; why not, where its settings do not name it."""
    target = rig.config.target
    if target.hosts is None:
        return "no [target.hosts]"
    changed = _without(target, target.host)
    if changed is None:
        return f"neither start nor env names {target.host}: how the target is given its hosts is not known"
    return rig.second_instance("bad-hosts", path=rig.path, release=changed)


def _without(target: Target, host: str) -> Target | None:
    """The target with another host where its own settings name this one; None where they do not."""
    env = {name: value.replace(host, NOBODY) for name, value in target.env.items()}
    start = tuple(part.replace(host, NOBODY) for part in target.start) if target.start else None
    if env == dict(target.env) and start == target.start:
        return None
    flag = target.flags.host_allowlist if target.flags else None
    return target.model_copy(update={"env": {**env, **({flag.env: flag.on} if flag else {})}, "start": start})


@dataclass(frozen=True, slots=True)
class Kind:
    """What is wrong with a release. `change` is the migration that it brings: a key of CHANGES, or 'candidate' for its `setup`."""

    title: str
    make: Callable[[Rig], CommandTarget | str] = wrong_ca
    change: str = ""


KINDS: Mapping[str, Kind] = {
    "ca": Kind("a wrong CA file"),
    "hosts": Kind("an allow-list without the real host", make=wrong_hosts),
    "rename": Kind(f"a wrong CA file, and {CHANGES['rename'].title}", change="rename"),
    "expand": Kind(f"a wrong CA file, and {CHANGES['expand'].title}", change="expand"),
    "candidate": Kind("a wrong CA file, and the candidate's own migration ([target.candidate] setup)", change="candidate"),
}


@dataclass(frozen=True, slots=True)
class Drill:
    """A kind of release, the per cent of requests that it had got, and whether the old one had been stopped by then."""

    kind: str
    percent: int = 100
    stopped: bool = False

    @property
    def id(self) -> str:
        """'rollback.ca.25', 'rollback.ca.100.stopped', 'rollback.deploy'."""
        if self.kind == "deploy":
            return "rollback.deploy"
        return f"rollback.{self.kind}.{self.percent}{'.stopped' if self.stopped else ''}"

    @property
    def case(self) -> Case:
        """As experiments have it."""
        if self.kind == "deploy":
            title = "the candidate, put out and rolled back by the team's own commands"
        else:
            where = f"{self.percent} %" + (", the old release stopped" if self.stopped else "")
            title = f"rolled back from {where}: {KINDS[self.kind].title}"
        return Case(id=self.id, family=FAMILY, title=title, gates=GATES)


DRILLS = tuple(
    Drill(kind, percent, stopped) for kind in KINDS for percent, stopped in (*((one, False) for one in STEPS), (100, True))
)
DEPLOY = Drill("deploy")


def known() -> frozenset[str]:
    """All that names drills: their ids, and the beginnings of them ('rollback.ca')."""
    every = {one.id for one in (*DRILLS, DEPLOY)}
    return frozenset(".".join(one.split(".")[:depth]) for one in every for depth in range(1, one.count(".") + 2))


def chosen(target: Target, only: tuple[str, ...]) -> tuple[Drill, ...]:
    """The drills that this target is put through: its own tooling where it has some, else the table."""
    return _named((DEPLOY,) if target.deploy else DRILLS, only)


def others(target: Target, only: tuple[str, ...]) -> tuple[tuple[Drill, ...], str]:
    """What was named and does not apply, and why."""
    if target.deploy:
        return _named(DRILLS, only), "[target.deploy] takes the place of the suite's edge"
    return _named((DEPLOY,), only), "no [target.deploy]"


def _named(drills: tuple[Drill, ...], only: tuple[str, ...]) -> tuple[Drill, ...]:
    return tuple(one for one in drills if not only or any(one.id == name or one.id.startswith(f"{name}.") for name in only))


def planned(drills: tuple[Drill, ...], times: int) -> tuple[Drill, ...]:
    """Each at least once, and so many in all; a candidate's migration, which nobody undoes, comes last, and only once a step."""
    again = [one for one in drills if one.kind != "candidate"]
    more = [again[turn % len(again)] for turn in range(max(0, times - len(drills)))] if again else []
    order = [*KINDS, "deploy"]
    return tuple(sorted([*drills, *more], key=lambda one: order.index(one.kind)))
