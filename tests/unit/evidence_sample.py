"""A made-up run that holds every verdict, with some 20,000 requests behind it: what the evidence's tests and their author look at.

python -m tests.unit.evidence_sample DIRECTORY [no-go|clear|go|inconclusive|environment] [dot]
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from chaos import gates
from chaos.evidence.record import HostFacts, Run
from chaos.evidence.store import SEGMENTS, Segment, Store, merge
from chaos.model import Connection, Effect, Finding, GateResult, History, Kind, Layer, Operation, Outcome, Rung, Verdict, Window

START = 1_795_478_400.0  # 2026-11-23T23:20:00Z
SECRET = "hunter2-of-the-sample"
FAULTS = (
    ("network.refused", "connections refused"),
    ("network.reset", "connections reset"),
    ("network.blackhole", "black hole"),
    ("network.slow", "200 ms latency"),
    ("network.cut", "cut in mid-stream"),
    ("tls.expired", "PostgreSQL serves an expired certificate"),
    ("tls.off", "PostgreSQL offers no TLS"),
    ("pool.locks", "pool held by waiting queries"),
    ("pool.slots", "max_connections reached"),
    ("restart.fast", "PostgreSQL restarted"),
    ("C1.reconnect", "an expired certificate, on reconnect"),
    ("C3.reconnect", "a certificate for another host, on reconnect"),
)


def operation(rng: random.Random, at: float, kind: Kind, *, broken: bool, mode: str) -> Operation:
    base = rng.lognormvariate(math.log(0.006), 0.35) + (0.03 * rng.random() if rng.random() < 0.02 else 0)
    status: int | None = 200 if kind is Kind.READ else 201
    error, seconds = "", base
    if broken and mode == "network.slow":
        seconds = 0.2 + base * 3
    elif broken and mode in {"network.blackhole", "pool.locks"}:
        status, seconds = 503, 2.0 + rng.random() * 0.05
        if mode == "network.blackhole" and rng.random() < 0.06:
            status, error, seconds = None, "timeout", 5.0
    elif broken:
        status, seconds = 503, base * 0.7
    ok = status is not None and status < 300
    return Operation(
        kind=kind,
        method="GET" if kind is Kind.READ else "POST",
        path="/api/items/1" if kind is Kind.READ else "/api/items",
        sample="read[0]" if kind is Kind.READ else "write[0]",
        planned=at,
        started=at + 0.0002,
        finished=at + 0.0002 + seconds,
        status=status,
        error=error,
        ok=ok,
        unique="" if kind is Kind.READ else f"u{rng.getrandbits(40):x}",
        media_type="" if ok else "application/problem+json",
        body="" if ok else '{"title":"Service Unavailable","status":503}',
        layer=Layer.APPLICATION if status else Layer.NOBODY,
        client=f"c{rng.randrange(4)}",
    )


def history(name: str, title: str, start: float, rng: random.Random, *, rate: float = 45.0, never: bool = False) -> History:
    """Steady for 0.5 s, broken for 1.5 to 3 s, and recovered a little later (`never`: not within the history)."""
    injected, healed = start + 0.5, start + 2.0 + rng.random() * 1.5
    lag = {"network.blackhole": 1.4, "restart.fast": 0.9, "pool.slots": 0.3}.get(name, 0.15) * (0.5 + rng.random())
    end = healed + lag + 2.0
    operations, at = [], start
    while at < end:
        kind = Kind.WRITE if rng.random() < 0.2 else Kind.READ
        broken = injected <= at < healed + lag or (never and at > injected)
        operations.append(operation(rng, at, kind, broken=broken, mode=name))
        at += rng.expovariate(rate)
    wire = "impostor:C1" if name.startswith("C") else "relay"
    connections = [
        Connection(id=i, opened=start - 1 + i * 0.01, closed=injected + 0.1, behaviour="relay", reached=Rung.CLIENT_HELLO, tls=True,
                   established=True, sni="localhost", ended_by="wire", bytes_up=4000, bytes_down=9000)
        for i in range(5)
    ]  # fmt: skip
    gap, at = 0.05, injected + 0.15
    while at < healed:
        connections.append(
            Connection(id=len(connections), opened=at, closed=at + 0.02, behaviour=wire, reached=Rung.CLIENT_HELLO, tls=True,
                       alert="certificate expired", ended_by="client", steps=((at, "SSLRequest"), (at + 0.01, "ClientHello")))
        )  # fmt: skip
        at += gap * (0.5 + rng.random())
        gap = min(gap * 1.9, 1.0)
    connections += [
        Connection(
            id=len(connections) + i, opened=healed + lag, behaviour="relay", reached=Rung.CLIENT_HELLO, tls=True, established=True
        )
        for i in range(5)
    ]
    took = name != "network.cut"
    return History(
        experiment=f"{name}.pooled" if name.startswith("network") else name,
        started=start,
        finished=end,
        windows=(
            Window(
                fault=name,
                scope="pooled",
                injected=injected,
                healed=healed,
                effect=Effect(took=took, seen="6 of 6 probes failed" if took else "0 of 6 probes failed", count=6),
            ),
        ),  # fmt: skip
        operations=tuple(operations),
        connections=tuple(connections),
        logs=(f'{{"event":"retry","dsn":"postgresql://app:{SECRET}@localhost:5432/app"}}',) if never else (),
        facts={"title": title, "family": name.split(".")[0], "gate": "res.network"},
    )


def histories(*, workers: int = 4, rounds: int = 2, rate: float = 45.0, seed: int = 1) -> Iterator[tuple[str, History]]:
    rng = random.Random(seed)
    clock = [START + 1.0 + index * 0.1 for index in range(workers)]
    for number, (name, title) in enumerate(FAULTS * rounds):
        worker = number % workers
        recorded = history(name, title, clock[worker], rng, rate=rate, never=name == "pool.slots" and number < len(FAULTS))
        clock[worker] = recorded.finished + 0.3
        yield f"gw{worker}", recorded


def findings(*, failing: bool = True) -> tuple[Finding, ...]:
    def one(check: str, gate: str, outcome: Outcome, detail: str, **more: object) -> Finding:
        defaults: dict[str, object] = {"experiment": check, "rerun": f"chaos-gate run --only {check} --seed 81723"}
        return Finding(check=check, gate=gate, outcome=outcome, detail=detail, **(defaults | more))  # type: ignore[arg-type]

    good = [
        one("C1.reconnect", "sec.verify_full", Outcome.PASS, "refused an expired certificate in all 9 connections", n=9,
            fault="an expired certificate, on reconnect", took_effect=True),
        one("C3.reconnect", "sec.verify_full", Outcome.PASS, "refused a certificate for another host in all 66 connections", n=66,
            fault="a certificate for another host, on reconnect", took_effect=True),
        one("network.refused.pooled", "res.network", Outcome.PASS, "44 requests during the fault, 44 failed; serving again 0.15 s after",
            n=1, measured=0.15, fault="connections refused", took_effect=True),
        one("errors.network.refused.pooled", "rel.error_schema", Outcome.PASS, "612 error answers, all in the schema", n=612),
        one("H07", "sec.unknown_host_2xx", Outcome.PASS, "duplicate Host lines refused with 400", n=412),
        one("steady", "rel.availability", Outcome.PASS, "0 of 18,000 requests failed", n=18_000),
        one("rollback", "res.rollback", Outcome.PASS, "steady 4.2 s after the command was given", n=1, measured=4.2),
        one("writes.pool.locks", "res.durability", Outcome.PASS, "1,204 acknowledged writes, all there once", n=1204),
        one("network.cut.pooled", "res.network", Outcome.INCONCLUSIVE, "the fault did not take effect: 0 of 6 probes failed", n=1,
            fault="cut in mid-stream", took_effect=False),
        one("audit", "sec.audit_log", Outcome.NOT_APPLICABLE, "no [target.logs] in chaos.toml"),
    ]  # fmt: skip
    bad = [
        one("pool.slots", "res.pool", Outcome.FAIL, "not serving again 10 s after the fault had gone (212 requests failed); "
            "63 requests during the fault, 63 of them failed", n=1, bad=1, fault="max_connections reached", took_effect=True,
            expected="success holds from recovery = 10 s after the fault has gone (chaos.toml [target.database])",
            examples=("GET /api/items/1 (read[0]): answered 503 after 0.01 s",
                      f"log: could not connect: postgresql://app:{SECRET}@localhost:5432/app",
                      "log: FATAL:  sorry, too many clients already <script>alert(1)</script>")),
        one("invalid.pool.locks", "rel.no_400_to_500", Outcome.FAIL, "12 of 340 requests that deserve a 4xx were answered 5xx",
            n=340, bad=12, fault="pool held by waiting queries", took_effect=True,
            expected="a request that is wrong in itself is refused before the database is asked (RFC 9110, section 15.5)",
            examples=("GET /api/items/not-a-number (invalid[0]): answered 503 after 2.01 s, expected 400",)),
    ]  # fmt: skip
    return tuple(good + (bad if failing else []))


def results(*, failing: bool = True) -> tuple[GateResult, ...]:
    judged = gates.judge(
        findings(failing=failing),
        gates.load(),
        absent={"sec.audit_log": "no [target.logs] in chaos.toml", "roll.safeguards": "no [target.flags] in chaos.toml"},
        waivers={"rep.documents": "the review board, until 2026-12-31"},
    )
    return judged


def run(kind: str = "no-go") -> Run:
    """The run with this verdict; its histories come from the store that `store` writes."""
    judged = results(failing=kind == "no-go")
    if kind in {"clear", "go"}:
        keep = {"rel.availability", "rel.p95", "rel.p99", "sec.tls_handshake", "rep.go"} if kind == "clear" else set()
        judged = tuple(
            replace(one, outcome=Outcome.PASS, n=one.n or 40, reason="4 of 4 demonstrated")
            if one.outcome is Outcome.INCONCLUSIVE and one.id not in keep
            else one
            for one in judged
        )
    verdicts = {"no-go": Verdict.NO_GO, "clear": Verdict.CLEAR, "go": Verdict.GO}
    return Run(
        version="0.1.0",
        target="reference",
        profile="soak" if kind == "go" else "quick",
        scope="soak" if kind == "go" else "smoke",
        seed=81723,
        verdict=verdicts.get(kind, Verdict.INCONCLUSIVE),
        started=START,
        finished=START + 71.5,
        workers=4,
        parts={"PostgreSQL": "17.10 (TLS 1.3)", "Toxiproxy": "2.12.0", "Caddy": "2.11.7"},
        gates=judged,
        findings=findings(failing=kind == "no-go"),
        command="chaos-gate run --profile quick --seed 81723",
        environment_error="postgres: the server ended with signal SIGKILL\n    | FATAL:  out of memory\n  -> free memory and run again"
        if kind == "environment"
        else "",
        host=HostFacts(cores=2, kernel="Linux 6.1", python="3.11.2", machine="x86_64"),
        recovery_limit=10.0,
    )


def store(directory: Path, *, rounds: int = 2, rate: float = 45.0) -> Store:
    segments: dict[str, Segment] = {}
    told = {one.experiment: one for one in findings()}
    for worker, recorded in histories(rounds=rounds, rate=rate):
        segment = segments.setdefault(worker, Segment(directory / SEGMENTS / f"{worker}.sqlite"))
        found = told.get(recorded.experiment)
        segment.append(recorded, [found] if found else [])
    for segment in segments.values():
        segment.close()
    return merge(directory)


def main() -> None:
    from chaos.evidence import bundle
    from chaos.terminal import Screen

    directory = Path(sys.argv[1])
    kind = sys.argv[2] if len(sys.argv) > 2 else "no-go"
    made = run(kind)
    bundle.write(directory, made, store(directory, rounds=4, rate=90.0))
    screen = Screen()
    screen.header(target=made.target, profile=made.profile, seed=made.seed, workers=made.workers)
    screen.phase("environment", "PostgreSQL 17.10 (TLS 1.3) \N{MIDDLE DOT} Toxiproxy 2.12.0", 0.4)
    for item in made.failures:
        screen.failure(item)
    screen.summary(made, directory)


if __name__ == "__main__":
    main()
