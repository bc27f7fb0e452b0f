"""Every experiment of the suite, as data: what is broken, under which id, for which gate. `chaos-gate faults` prints this table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.faults.network import NETWORK

if TYPE_CHECKING:
    from chaos.config import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One experiment. `family` names its runner in chaos.experiment; `gates` are all that its checks speak for, its own one first.

    `needs` are tables of chaos.toml ('read', 'write', 'hosts', ...); `injects` whether something is broken (never on a remote
    target without a proxy). `what` is the zoo's certificate, the network fault's id, ... as the family has it.
    """

    id: str
    family: str
    title: str
    gates: tuple[str, ...]
    what: str = ""
    scope: str = ""
    needs: tuple[str, ...] = ("read",)
    injects: bool = True

    @property
    def gate(self) -> str:
        """The gate that the experiment itself is for."""
        return self.gates[0]

    def absent(self, target: Target) -> str:
        """Why this case does not apply to a target; '' when it does."""
        for table in self.needs:
            if not getattr(target, table):
                return f"no {'[[target.' + table + ']]' if table in LISTS else '[target.' + table + ']'}"
        if self.injects and target.url is not None:
            return "the target runs elsewhere and no proxy in front of its database is known"
        return ""


HOST_ROW = re.compile(r"H\d\d|hosts\.400\.\w+|audit\.hosts")  # checks of the one experiment 'hosts'
LISTS = {"read", "write", "invalid", "prepare"}
ALWAYS = ("rel.no_400_to_500", "rel.error_schema", "res.durability", "sec.tls_handshake")


def _network() -> list[Case]:
    return [
        Case(
            id=f"network.{fault.id}.{scope}",
            family="network",
            title=f"{fault.title}, {'established' if scope == 'pooled' else 'new'} connections",
            gates=("res.network", *ALWAYS),
            what=fault.id,
            scope=scope,
        )
        for fault in NETWORK
        for scope in ("pooled", "new")
    ]


WRONG = {
    "C1": ("expired", "an expired certificate"),
    "C2": ("not-yet-valid", "a certificate that is not valid yet"),
    "C3": ("wrong-host", "a certificate for another host"),
    "C16": ("untrusted-ca", "a certificate of an unknown authority"),
    "C17": ("self-signed", "a self-signed certificate"),
    "C18": ("missing-intermediate", "a chain without its intermediate"),
    "P1": ("refuse", "a server that answers N to the SSLRequest"),
    "valid": ("valid", "the right certificate (control)"),
}


def _wire() -> list[Case]:
    return [
        Case(
            id=f"{row}.{situation}",
            family=situation,
            title=f"{title}, {'at start' if situation == 'start' else 'on reconnect'}",
            gates=("sec.verify_full", *(ALWAYS if situation == "reconnect" else ())),
            what=what,
            needs=("read",),
        )
        for row, (what, title) in WRONG.items()
        for situation in ("start", "reconnect")
    ]


def _tls() -> list[Case]:
    rows = {"expired": "expired", "untrusted": "untrusted-ca", "wrong-host": "wrong-host"}
    served = [
        Case(
            id=f"tls.{name}",
            family="certificate",
            title=f"PostgreSQL itself serves a bad certificate: {name}",
            gates=("res.backoff", *ALWAYS),
            what=entry,
        )
        for name, entry in rows.items()
    ]
    off = Case(id="tls.off", family="tls-off", title="PostgreSQL offers no TLS", gates=("res.backoff", *ALWAYS))
    return [*served, off]


CASES: tuple[Case, ...] = (
    Case(
        id="steady",
        family="steady",
        title="open-loop load with nothing broken",
        gates=("rel.availability", "rel.error_budget", "rel.p95", "rel.p99", *ALWAYS),
        injects=False,
    ),
    Case(
        id="hosts",
        family="hosts",
        title="Host validation, as raw bytes",
        gates=("sec.unknown_host_2xx", "sec.unknown_host_400", "sec.host_allowlist", "sec.audit_log", "rel.error_schema"),
        needs=("hosts",),
        injects=False,
    ),
    Case(
        id="server",
        family="server",
        title="what PostgreSQL shows: no plaintext, all sessions TLS",
        gates=("sec.verify_full",),
    ),
    *_network(),
    *_tls(),
    Case(
        id="backoff.tls",
        family="backoff",
        title="how the target knocks at a database that it cannot verify",
        gates=("res.backoff",),
        what="untrusted-ca",
    ),
    Case(id="pool.locks", family="locks", title="pool held by waiting queries", gates=("res.pool", *ALWAYS)),
    Case(id="pool.slow", family="slow", title="pool held by slow queries", gates=("res.pool", *ALWAYS), scope="pooled"),
    Case(id="pool.slots", family="slots", title="max_connections reached", gates=("res.pool", *ALWAYS)),
    Case(id="restart.fast", family="restart", title="PostgreSQL restarted", gates=("res.network", *ALWAYS), what="fast"),
    Case(
        id="restart.immediate",
        family="restart",
        title="PostgreSQL crashes and comes back",
        gates=("res.network", *ALWAYS),
        what="immediate",
    ),
    *_wire(),
    Case(
        id="rollback",
        family="rollback",
        title="a bad release behind the edge, rolled back by one command",
        gates=("res.rollback",),
    ),
)
BY_ID = {case.id: case for case in CASES}


def select(names: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases that `--only` names: by their own id, a prefix of it ('network', 'C1'), one of their checks' ids, or a gate's id."""
    if not names:
        return CASES
    return tuple(case for case in CASES if any(_named(case, name) for name in names))


def _named(case: Case, name: str) -> bool:
    if case.family == "hosts" and HOST_ROW.fullmatch(name):
        return True
    return name in {case.id, *case.gates} or case.id.startswith(f"{name}.") or name.endswith(f".{case.id}")


def known_names() -> set[str]:
    """All that `--only` takes beside the ids of single checks."""
    prefixes = {".".join(case.id.split(".")[:depth]) for case in CASES for depth in range(1, case.id.count(".") + 2)}
    return prefixes | {gate for case in CASES for gate in case.gates}
