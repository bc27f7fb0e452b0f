"""What a case is: one experiment, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.cases.abilities import ABILITIES, lacking

if TYPE_CHECKING:
    from chaos.config import Config

LISTS = {"read", "write", "invalid", "prepare"}
ALWAYS = ("rel.no_400_to_500", "rel.error_schema", "res.durability", "sec.tls_handshake")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One experiment. `family` names its runner in chaos.experiment; `gates` are all that its checks speak for, its own one first.

    `needs` are tables of chaos.toml ('read', 'write', 'hosts', ...); `injects` whether something is broken, for which the environment
    has to have an ability (see `chaos.cases.abilities`). `what` is the wire's row, the network fault's id, ... as the family has it.
    Of the tables in `either` one is enough. `nightly` ones are left out of a quick run unless they are named. `reason` says why it
    applies to no target at all.
    """

    id: str
    family: str
    title: str
    gates: tuple[str, ...]
    what: str = ""
    scope: str = ""
    needs: tuple[str, ...] = ("read",)
    injects: bool = True
    nightly: bool = False
    reason: str = ""
    either: tuple[str, ...] = ()

    @property
    def gate(self) -> str:
        """The gate that the experiment itself is for."""
        return self.gates[0]

    @property
    def ability(self) -> str:
        """What the environment has to be able to do; '' for what only looks."""
        return ABILITIES.get(self.family, "server") if self.injects else ""

    def absent(self, config: Config) -> str:
        """Why this case does not apply to a target; '' when it does."""
        if self.reason:
            return self.reason
        for table in self.needs:
            if not getattr(config.target, table):
                return f"no {'[[target.' + table + ']]' if table in LISTS else '[target.' + table + ']'}"
        if self.either and not any(getattr(config.target, one) for one in self.either):
            return f"no {' and no '.join(f'[target.{one}]' for one in self.either)}"
        return lacking(config).get(self.ability, "")
