"""Every experiment of the suite, as data: what is broken, under which id, for which gate. `chaos-gate faults` prints this table."""

from __future__ import annotations

import re

from chaos.cases.abilities import lacking
from chaos.cases.case import ALWAYS, LISTS, Case
from chaos.cases.corpus import CORPUS
from chaos.cases.crossings import PATHS
from chaos.cases.life import LIFE
from chaos.cases.observed import OBSERVED
from chaos.cases.restore import RESTORE
from chaos.cases.safeguards import SAFEGUARDS
from chaos.cases.wire import SITUATIONS, WIRE
from chaos.errors import UsageError
from chaos.faults import schedule
from chaos.faults.network import NETWORK

ATTACK_ROW = re.compile(r"P[BMURSTI]\d\d|pentest\.delta")  # checks of the experiment 'pentest'
WORD = "schedule:"  # what a schedule that is written out begins with
HOST_ROW = re.compile(r"H\d\d[a-z]?|hosts\.400\.\w+|audit\.hosts")  # checks of the one experiment 'hosts'


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


EDGE_ROW = re.compile(r"edge\.(?:h1|h2|origin)\.\w+(?:\.\w+)?")  # checks of the experiments 'edge' and 'edge-full'
RECOVERY = (
    ("network", "res.network", "short network drops"),
    ("tls", "res.backoff", "short TLS failures"),
    ("pool", "res.pool", "short exhaustions of the pool"),
)

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
    *(
        Case(
            id=name,
            family="edge",
            title=f"Host validation through an edge, HTTP/1.1 and HTTP/2{more}",
            gates=("sec.waf", "sec.unknown_host_2xx", "sec.unknown_host_400", "sec.host_allowlist", "sec.pentest"),
            what=str(per_class),
            needs=("hosts",),
            injects=False,
            nightly=per_class > 100,
        )
        for name, per_class, more in (("edge", 7, ""), ("edge-full", 320, ", 320 of each class"))
    ),
    Case(
        id="server",
        family="server",
        title="what PostgreSQL shows: no plaintext, all sessions TLS",
        gates=("sec.verify_full",),
    ),
    *(
        Case(id=name, family="pentest", title=title, gates=("sec.pentest",), scope=scope, injects=False, nightly=not scope)
        for name, scope, title in (
            ("pentest", "", "the pen-test delta: bypass, smuggling, injection, downgrade"),
            ("pentest.sample", "sample", "the pen-test delta, in short: what is refused, in other forms"),
        )
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
    *PATHS,
    *LIFE,
    *(
        Case(
            id=f"recovery.{what}.{turn}",
            family="recovery",
            title=f"{title}, again and again: lengths and phases drawn by the seed",
            gates=(gate, *ALWAYS),
            what=what,
            scope=str(turn),
            nightly=True,
        )
        for what, gate, title in RECOVERY
        for turn in range(1, 5)
    ),
    *(
        Case(
            id=f"schedule.{number}",
            family="schedule",
            title="faults that overlap, drawn by the seed",
            gates=("res.network", *ALWAYS),
            what=str(number),
            nightly=True,
        )
        for number in range(1, 9)
    ),
    *WIRE,
    *CORPUS,
    Case(
        id="rollback",
        family="rollback",
        title="a bad release behind the edge, rolled back by one command",
        gates=("res.rollback",),
    ),
    *RESTORE,
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
    Case(
        id="contract",
        family="contract",
        title="the candidate's API beside the baseline's",
        gates=("rel.api_contract",),
        either=("candidate", "contract"),
        injects=False,
        nightly=True,
    ),
    Case(
        id="shadow",
        family="shadow",
        title="recorded production reads (--shadow), sent again to both releases",
        gates=("rel.api_contract", "rel.no_400_to_500", "rel.availability"),
        injects=False,
        nightly=True,
    ),
    Case(
        id="delta",
        family="delta",
        title="the candidate's latency and throughput beside the baseline's, under one load",
        gates=("rel.delta",),
        needs=("read", "candidate"),
        injects=False,
        nightly=True,
    ),
    Case(
        id="documents",
        family="documents",
        title="the documents that the review asks for",
        gates=("rep.documents",),
        needs=(),
        injects=False,
    ),
    *OBSERVED,
    *SAFEGUARDS,
)
BY_ID = {case.id: case for case in CASES}


def select(names: tuple[str, ...]) -> tuple[Case, ...]:
    """The cases that `--only` names: by their own id, a prefix of it ('network', 'C1'), one of their checks' ids, or a gate's id."""
    if not names:
        return CASES
    written = tuple(scheduled(name) for name in names if name.startswith(WORD))
    return (*written, *(case for case in CASES if any(_named(case, name) for name in names)))


def scheduled(name: str) -> Case:
    """The case of a schedule that is written out: 'schedule:latency@0.0-2.5+reset@1.2-2.0'. UsageError when it cannot be read."""
    word = name.removeprefix(WORD)
    try:
        schedule.read(word)
    except ValueError as error:
        raise UsageError(f"{name}: {error}", remedy="write it as a finding does, for example schedule:latency@0.0-2.5") from error
    return Case(
        id=name, family="schedule", title="faults that overlap, as they are written", gates=("res.network", *ALWAYS), what=word
    )


def case_of(name: str) -> Case | None:
    """The case with this id; None when there is none."""
    return scheduled(name) if name.startswith(WORD) else BY_ID.get(name)


def _named(case: Case, name: str) -> bool:
    if case.family == "hosts" and HOST_ROW.fullmatch(name):
        return True
    if case.id == "pentest" and ATTACK_ROW.fullmatch(name):
        return True
    if case.family == "edge" and EDGE_ROW.fullmatch(name):
        return not case.nightly or ".400." in name
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

    To name its gate is enough where that is its own, and only night runs (and samples of them) are for that gate.
    """
    if not case.nightly or profile != "quick":
        return True
    return any(_named(case, name) and (name not in case.gates or (name == case.gate and _by_night(name))) for name in names)


def _by_night(gate: str) -> bool:
    owned = [one for one in CASES if one.gate == gate]
    return bool(owned) and all(one.nightly or one.scope == "sample" for one in owned)


__all__ = ["ALWAYS", "BY_ID", "CASES", "LISTS", "Case", "case_of", "due", "known_names", "lacking", "scheduled", "select"]
