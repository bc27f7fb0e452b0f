"""What findings must say, counted again from the raw rows of their history: operations, connections, windows.

Each function here reads one history and says which check must have found what: `n`, `bad`, `measured`, and the outcome where the rows
alone decide it. It follows docs/attestation.md, and shares no code with `chaos.checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.verify import rows_of_errors, rows_of_hosts, rows_of_outages, rows_of_writes
from chaos.verify.expected import Expected
from chaos.verify.numbers import below, dependence, quantile

if TYPE_CHECKING:
    from chaos.verify.gates import Policy
    from chaos.verify.records import Record, Row
    from chaos.verify.result import Step

LOOKED = {
    "slots",
    "restart",
    "stall",
    "schedule",
    "cross",
    "flapping",
    "bouncer",
    "locks",
    "slow",
    "network",
    "certificate",
    "tls-off",
}
OUTAGES = LOOKED | {"replica"}
WORKED = OUTAGES | {"life", "cancel", "recovery"}
RUNGS = ("NOTHING", "SSL_REQUEST", "CLIENT_HELLO", "STARTUP", "SCRAM_PROOF", "PASSWORD", "QUERY")
HELLO, QUERY = 2, 6
SEND_LAG, BUSY = 0.010, 0.85  # s (P99) and share of CPU time beyond which a stretch says nothing about the target


def _steady(record: Record, policy: Policy) -> Iterator[Expected]:
    """Availability and latency of open-loop load: what failed, and what took longer than the limit, from when it was due."""
    load = [one for one in record.tables["operation"] if one["client"] == "load" and one["kind"] in {"read", "write"}]
    reads = [one for one in load if one["kind"] == "read"]
    slipped = quantile((one["started"] - one["planned"] for one in load), 990) > SEND_LAG
    grey = slipped or float(record.facts.get("busy", "0")) > BUSY
    bad = sum(not one["ok"] for one in load)
    deff = dependence((int(one["started"]), not one["ok"]) for one in load)
    name = record.experiment
    for check in ("availability", "budget"):
        outcome = _outcome(bad, len(load), 0.05, grey=grey)
        yield Expected(f"{check}.{name}", n=0 if grey else len(load), bad=0 if grey else bad, deff=deff, outcome=outcome)
    seconds = [one["finished"] - (one["planned"] or one["started"]) for one in reads]
    for check, per_mille in (("p95", 950), ("p99", 990)):
        limit = policy["limits"]["seconds"].get(f"rel.{check}", 0.0)
        if reads and limit:
            over = sum(one > limit for one in seconds)
            outcome = _outcome(over, len(reads), (1000 - per_mille) / 1000, grey=grey)
            n, k = (0, 0) if grey else (len(reads), over)
            yield Expected(f"{check}.{name}", n=n, bad=k, measured=quantile(seconds, per_mille), outcome=outcome)


def _outcome(bad: int, n: int, limit: float, *, grey: bool) -> str:
    if grey or n == 0:
        return "inconclusive"
    return "fail" if below(bad, n) > limit else "pass"


def _invalid(record: Record, policy: Policy) -> Iterator[Expected]:
    """Requests that deserve a 4xx, from the fault on: how many of those that were answered got a 5xx."""
    del policy
    asked = [one for one in record.tables["operation"] if one["kind"] == "invalid"]
    if not asked:
        return
    windows = record.tables["window"]
    answered = [one for one in asked if one["status"] is not None and (not windows or one["started"] >= windows[0]["injected"])]
    flipped = sum(one["status"] >= 500 for one in answered)
    served = sum(one["status"] < 400 for one in answered)
    unknown = not answered or (served == len(answered) and not windows)
    outcome = "fail" if flipped else "inconclusive" if unknown else "pass"
    yield Expected(f"invalid.{record.experiment}", n=len(answered), bad=flipped, outcome=outcome)


def _handshakes(record: Record, policy: Policy) -> Iterator[Expected]:
    """TLS handshakes with the right server outside of fault windows, as the wire saw them and as the server's log has them."""
    margin = policy["limits"]["recovery"]
    quiet = [
        one
        for one in record.tables["connection"]
        if one["behaviour"] == "relay"
        and not one["cancel"]
        and one["reached"] >= HELLO
        and (one["established"] or one["alert"] or one["ended_by"] == "server")
        and not any(_near(one["opened"], window, margin) for window in record.tables["window"])
    ]
    if quiet:
        bad = max(sum(not one["established"] for one in quiet), int(record.facts.get("log.refused", "0")))
        yield Expected(f"handshakes.{record.experiment}", n=max(len(quiet), bad), bad=bad)


def _near(at: float, window: Row, margin: float) -> bool:
    return bool(at >= window["injected"] - 1.0 and (not window["healed"] or at <= window["healed"] + margin))


def _sessions(record: Record, policy: Policy) -> Iterator[Expected]:
    """Sessions that the server itself let in, by its own log."""
    del policy
    if "log.tls" in record.facts:
        tls, plain = int(record.facts["log.tls"]), int(record.facts["log.plain"])
        outcome = "not_applicable" if not tls + plain else "fail" if plain else "pass"
        yield Expected(f"sessions.{record.experiment}", n=tls + plain, bad=plain, outcome=outcome)


def _plaintext(record: Record, policy: Policy) -> Iterator[Expected]:
    """A StartupMessage without TLS to the real server."""
    del policy
    bare = [one for one in record.tables["connection"] if one["behaviour"] == "relay" and one["plaintext"] and not one["cancel"]]
    if bare:
        yield Expected(f"plaintext.{record.experiment}", n=len(bare), bad=len(bare), outcome="fail")


def _impostor(record: Record, policy: Policy) -> Iterator[Expected]:
    """A wrong server: how many connections the target opened to it, and how many went as far as they must not."""
    del policy
    facts = record.facts
    met = [one for one in record.tables["connection"] if one["behaviour"] == facts["behaviour"] and not one["cancel"]]
    attempts = [one for one in met if one["reached"] >= 1 or one["plaintext"]]
    until = RUNGS.index(facts.get("until", "STARTUP"))
    plain = [one for one in attempts if one["plaintext"]]
    wrong = plain or [one for one in attempts if one["reached"] >= until]
    name = record.experiment
    if plain or (wrong and facts["must"] == "reject"):
        yield Expected(name, n=len(attempts), bad=len(wrong), outcome="fail")
    elif not attempts:
        yield Expected(name, n=0, bad=0, outcome="inconclusive")
    elif facts["must"] == "reject" and facts["row"] != "A7":
        # a pass also needs an acceptance beside it; without one it is inconclusive, and counts nothing
        paired = all(facts.get(proof, "yes") not in {"", "refused"} for proof in ("back", "pair"))
        yield Expected(name, n=len(attempts) if paired else 0, bad=0, outcome="pass" if paired else "inconclusive")
    elif facts["must"] == "connect" and facts["row"] == "valid":
        served = any(one["tls"] and one["reached"] >= QUERY for one in attempts)
        answered = facts.get("ready") == "yes" or any(one["ok"] and one["kind"] == "read" for one in record.tables["operation"])
        yield Expected(name, n=0, bad=0, outcome="pass" if served and answered else "inconclusive")


def _rollback(record: Record, policy: Policy) -> Iterator[Expected]:
    """How long a roll-back took, and whether anything of it went wrong."""
    del policy
    facts, operations = record.facts, record.tables["operation"]
    done = {one["unique"] for one in operations if one["kind"] == "write" and one["ok"]}
    lost = any(one["kind"] == "read_back" and one["occurrences"] == 0 and one["unique"] in done for one in operations)
    steady = float(facts["steady.after"]) if facts.get("steady.after") else None
    failed = lost or steady is None or facts.get("exit") != "0"
    yield Expected(record.experiment, n=1, bad=int(failed), measured=steady, outcome="fail" if failed else "")


Count = Callable[["Record", "Policy"], Iterable[Expected]]


@dataclass(frozen=True, slots=True)
class Counted:
    """What is counted again in the histories of these families (None: of all). `whatever`: also when the control was sick."""

    families: frozenset[str] | None
    count: Count
    whatever: bool = False


COUNTED: Sequence[Counted] = (
    Counted(frozenset({"steady"}), _steady),
    Counted(frozenset(WORKED | {"reconnect", "steady"}), _invalid),
    Counted(frozenset(WORKED | {"steady"}), rows_of_writes.writes),
    Counted(frozenset({"commit-cut"}), rows_of_writes.cut),
    Counted(frozenset(OUTAGES), rows_of_outages.outage),
    Counted(frozenset({"recovery"}), rows_of_outages.outages),
    Counted(frozenset({"steady"}), _handshakes),
    Counted(frozenset({"steady"}), _sessions),
    Counted(frozenset({"reconnect", "start"}), _impostor),
    Counted(frozenset(WORKED | {"reconnect", "start", "starting", "stale", "leak", "commit-cut", "steady"}), _plaintext),
    Counted(frozenset({"hosts"}), rows_of_hosts.hosts),
    Counted(None, rows_of_errors.errors, whatever=True),
    Counted(frozenset({"rollback"}), _rollback),
)


def expected(record: Record, policy: Policy) -> Iterator[Expected]:
    """All that must have been found in one history."""
    facts = record.facts
    if facts.get("absent"):
        return
    for counted in COUNTED:
        of_it = counted.families is None or facts.get("family") in counted.families
        if of_it and (counted.whatever or not (record.history and record.history["control"])):
            yield from counted.count(record, policy)


def compare(record: Record, policy: Policy, step: Step, file: str) -> list[str]:
    """Hold a history's findings against its rows; the gate of each finding whose counts were made again."""
    by_check = {one["check"]: one for one in record.tables["finding"]}
    idle = any(not one for one in record.effects)
    gates: list[str] = []
    for one in expected(record, policy):
        found = by_check.get(one.check)
        where = f"{file}, {record.name}, finding {one.check}"
        if found is None:
            if one.required:
                step.wrong(where, "is missing, though the rows it is made of are there")
            continue
        gates.append(found["gate"])
        vacuous = idle and record.facts.get("family") != "rollback"
        for column, wanted in one.values(found, vacuous=vacuous):
            step.expect(f"{where}, {column}", found[column], wanted)
    _proofs(record, step, file)
    return gates


def _proofs(record: Record, step: Step, file: str) -> None:
    """That no pass stands on a sick control, or on a fault that did not take effect; and that each finding names its own fault."""
    history, windows = record.history, record.tables["window"]
    assert history is not None
    effects = record.effects
    for one in record.tables["finding"]:
        where = f"{file}, {record.name}, finding {one['check']}"
        census = one["check"].startswith("errors.")
        if one["outcome"] == "pass" and history["control"] and not census:
            step.wrong(f"{where}, outcome", "is a pass, though the control before it was sick")
        if one["outcome"] == "pass" and not all(effects) and record.facts.get("family") != "rollback" and not census:
            step.wrong(f"{where}, outcome", "is a pass, though a fault did not take effect")
        step.expect(f"{where}, experiment", one["experiment"], history["experiment"])
        step.expect(f"{where}, fault", one["fault"], windows[0]["fault"] if windows else "")
        took = one["took_effect"]
        step.expect(f"{where}, took_effect", None if took is None else bool(took), effects[0] if windows else None)
        if not 0 <= one["bad"] <= max(one["n"], one["bad"] if one["outcome"] == "fail" else 0) or one["deff"] < 1:
            step.wrong(f"{where}, bad, n, deff", f"{one['bad']} of {one['n']}, DEFF {one['deff']} cannot be")
        if one["outcome"] == "pass" and one["bad"] and one["gate"] in ZERO:
            step.wrong(f"{where}, outcome", f"is a pass with {one['bad']} that are bad")


ZERO = {"sec.unknown_host_2xx", "sec.host_allowlist", "sec.verify_full", "rel.no_400_to_500", "res.durability"}
