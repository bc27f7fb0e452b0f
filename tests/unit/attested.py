"""Bundles made by the run's own controller from made-up histories, in a second: nothing is started, everything else is real."""

from dataclasses import replace

from chaos import attestation
from chaos.checks import judge
from chaos.collector import Collector, Request
from chaos.evidence.store import SEGMENTS, Segment
from chaos.model import Connection, Effect, Finding, History, Kind, Operation, Outcome, Rung, Window, now

ALWAYS = {"once.write[0]": "1"}


def asked(kind, at, *, ok=True, status=None, seconds=0.01, **more):
    status = status if status is not None else 200 if ok else 503
    body = "" if status < 400 else f'{{"title":"no","status":{status}}}'
    media = "application/problem+json" if body else ""
    paths = {Kind.READ: "/items/1", Kind.WRITE: "/items", Kind.INVALID: "/items/x", Kind.LIVE: "/healthz"}
    return Operation(
        kind=kind, method="POST" if kind is Kind.WRITE else "GET", path=paths.get(kind, "/items"), sample=f"{kind}[0]", planned=at,
        started=at, finished=at + seconds, status=status, ok=ok, body=body, media_type=media, **more,
    )  # fmt: skip


def outage(begin, **more):
    """Refused for two seconds, back half a second later, with writes and requests that deserve a 4xx all along."""
    injected, healed = begin + 1.0, begin + 3.0
    operations = []
    for turn in range(60):
        at = begin + turn * 0.1
        down = injected <= at < healed + 0.5
        operations.append(asked(Kind.READ, at, ok=not down))
        operations.append(asked(Kind.LIVE, at + 0.01))
        operations.append(asked(Kind.INVALID, at + 0.02, ok=True, status=400))
        operations.append(asked(Kind.WRITE, at + 0.03, ok=not down, unique=f"u{turn}"))
    backs = [
        asked(Kind.READ_BACK, begin + 6.5 + turn * 0.01, unique=f"u{turn}", occurrences=int(not 10 <= turn < 35))
        for turn in range(60)
    ]
    return History(
        experiment="network.refused.pooled",
        started=begin,
        finished=begin + 8.0,
        windows=(
            Window(
                fault="refused",
                scope="pooled",
                injected=injected,
                healed=healed,
                effect=Effect(took=True, seen="6 of 6", count=6),
            ),
        ),
        operations=(*operations, *backs),
        logs=("a line", "ano\udc80ther"),
        facts={"family": "network", "gate": "res.network", "title": "refused", **ALWAYS},
        **more,
    )


def steady(begin):
    load = tuple(asked(Kind.READ, begin + turn * 0.01, seconds=0.005, client="load") for turn in range(1200))
    links = tuple(
        Connection(id=i, opened=begin, behaviour="relay", reached=Rung.CLIENT_HELLO, tls=True, established=True) for i in range(5)
    )
    return History(
        experiment="steady", started=begin, finished=begin + 12.0, operations=load, connections=links,
        facts={"family": "steady", "gate": "rel.availability", "title": "load", "busy": "0.1", "log.tls": "5", "log.plain": "0"},
    )  # fmt: skip


def impostor(begin):
    met = tuple(
        Connection(
            id=i, opened=begin + i, behaviour="impostor:C1", reached=Rung.CLIENT_HELLO, tls=False, alert="certificate expired",
            steps=((begin + i, "SSLRequest"), (begin + i + 0.1, "ClientHello")),
        )
        for i in range(9)
    )  # fmt: skip
    facts = {
        "family": "reconnect", "gate": "sec.verify_full", "title": "expired", "behaviour": "impostor:C1", "presented": "an expired one",
        "must": "reject", "row": "C1", "why": "RFC 5280", "until": "STARTUP", "back": "after 1 s", "pair": "after 1 s",
    }  # fmt: skip
    window = Window(fault="C1", scope="new", injected=begin, healed=begin + 9.0, effect=Effect(took=True, seen="met it", count=9))
    return History(
        experiment="C1.reconnect", started=begin, finished=begin + 10.0, windows=(window,), connections=met, facts=facts
    )


def histories(begin=None):
    begin = begin or now()
    return [outage(begin), steady(begin + 20.0), impostor(begin + 40.0)]


def bundle(
    directory,
    *,
    recorded=None,
    judged=None,
    extra=(),
    profile="quick",
    only=("network.refused.pooled", "steady", "C1.reconnect"),
    settles=(),
    seal=True,
):
    """The evidence of a run of these histories. `recorded` are written; the findings are made of `judged` (a forger's differ)."""
    recorded = histories() if recorded is None else recorded
    judged = recorded if judged is None else judged
    request = Request(
        evidence=str(directory), seed=1, only=() if settles else only, settles=settles, profile=profile, command="chaos-gate run"
    )
    collector = Collector.prepare(request, screen=None)
    try:
        collector.fix([(name, 1) for name in only])
        with Segment(directory / SEGMENTS / "gw0.sqlite") as one, Segment(directory / SEGMENTS / "gw1.sqlite") as two:
            for number, (kept, seen) in enumerate(zip(recorded, judged, strict=True)):
                found = judge(seen, collector.limits)
                (one if number % 2 else two).append(kept, found)
                collector.findings += found
        collector.findings += list(extra)
        collector.done = set(only)
        return collector.conclude()[0]
    finally:
        collector.run_dir.rmdir()


def believed(directory, results):
    """What a forger's own run says of itself."""
    return Finding(
        check=attestation.CHECK, gate=attestation.GATE, outcome=Outcome.PASS, detail="fine", expected="-", rerun="-", n=1
    )


def changed(history, kind, **values):
    """The history with these values in its first operation of this kind."""
    operations = list(history.operations)
    index = next(number for number, one in enumerate(operations) if one.kind is kind)
    operations[index] = replace(operations[index], **values)
    return replace(history, operations=tuple(operations))
