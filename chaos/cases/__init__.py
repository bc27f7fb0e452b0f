"""Every experiment of the suite, as data: what is broken, under which id, for which gate. `chaos-gate faults` prints this table."""

from __future__ import annotations

import re

from chaos.cases.abilities import lacking
from chaos.cases.case import ALWAYS, LISTS, Case
from chaos.cases.wire import SITUATIONS, WIRE
from chaos.faults.network import NETWORK

HOST_ROW = re.compile(r"H\d\d|hosts\.400\.\w+|audit\.hosts")  # checks of the one experiment 'hosts'


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
    *(
        Case(id=f"backoff.{name}", family="final", title=title, gates=("res.backoff",), what=code, nightly=code == "3D000")
        for name, title, code in (
            ("password", "its password is refused: an error that no retry mends (28P01)", "28P01"),
            ("database", "its database is not there: an error that no retry mends (3D000)", "3D000"),
        )
    ),
    Case(
        id="backoff.replicas",
        family="replicas",
        title="how several instances knock in a long outage: growth, jitter, cap, herd",
        gates=("res.backoff",),
        what="untrusted-ca",
        nightly=True,
    ),
    Case(id="pool.locks", family="locks", title="pool held by waiting queries", gates=("res.pool", *ALWAYS)),
    Case(id="pool.slow", family="slow", title="pool held by slow queries", gates=("res.pool", *ALWAYS), scope="pooled"),
    Case(id="pool.slots", family="slots", title="max_connections reached", gates=("res.pool", *ALWAYS)),
    *(
        Case(
            id=f"pool.{name}",
            family=family,
            title=title,
            gates=("res.pool", "rel.error_schema"),
            what=what,
            nightly=name != "stale",
        )
        for name, family, title, what in (
            ("stale", "stale", "all idle connections reset", "rst"),
            ("stale.each", "stale", "1, 2, ... of the idle connections reset", "rst"),
            ("stale.hole", "stale", "1, 2, ... of the idle connections turned into black holes", "hole"),
            ("leak", "leak", "rounds of queries that fail: does an error keep a connection from its pool", ""),
        )
    ),
    Case(id="restart.fast", family="restart", title="PostgreSQL restarted", gates=("res.network", *ALWAYS), what="fast"),
    Case(
        id="restart.immediate",
        family="restart",
        title="PostgreSQL crashes and comes back",
        gates=("res.network", *ALWAYS),
        what="immediate",
    ),
    *(
        Case(
            id=name,
            family="commit-cut",
            title=f"the answer cut right after COMMIT, {times} times",
            gates=("res.durability", "rel.error_schema"),
            what=str(times),
            needs=("read", "write"),
            nightly=nightly,
        )
        for name, times, nightly in (("commit-cut", 6, False), ("commit-cut-59", 59, True))
    ),
    *WIRE,
    Case(
        id="rollback",
        family="rollback",
        title="a bad release behind the edge, rolled back by one command",
        gates=("res.rollback",),
    ),
    Case(
        id="rotation",
        family="rotation",
        title="the certificate rotation SOP, carried out under load",
        gates=("sec.cert_rotation",),
        nightly=True,
    ),
    Case(
        id="expiry",
        family="expiry",
        title="the alert before a certificate ends, in Prometheus",
        gates=("sec.cert_expiry",),
        needs=(),
        injects=False,
        nightly=True,
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
    if name in {case.id, *case.gates} or case.id.startswith(f"{name}.") or name.endswith(f".{case.id}"):
        return True
    row, _, situation = name.rpartition(".")  # 'P8.start' is all forms of P8 at start; 'C13.start' is a case of its own
    return situation in SITUATIONS and name not in BY_ID and case.id.startswith(f"{row}.") and case.id.endswith(f".{situation}")


def known_names() -> set[str]:
    """All that `--only` takes beside the ids of single checks."""
    prefixes = {".".join(case.id.split(".")[:depth]) for case in CASES for depth in range(1, case.id.count(".") + 2)}
    prefixes |= {f"{case.id.partition('.')[0]}.{case.id.rpartition('.')[2]}" for case in WIRE}
    return prefixes | {gate for case in CASES for gate in case.gates}


def due(case: Case, names: tuple[str, ...], profile: str) -> bool:
    """Whether a run of this profile runs it: one of the night runs in a shorter one only where it is named.

    To name its gate is enough where only night runs speak for that gate.
    """
    if not case.nightly or profile != "quick":
        return True
    return any(_named(case, name) and (name not in case.gates or _by_night(name)) for name in names)


def _by_night(gate: str) -> bool:
    return all(one.nightly for one in CASES if gate in one.gates)


__all__ = ["ALWAYS", "BY_ID", "CASES", "LISTS", "Case", "due", "known_names", "lacking", "select"]
