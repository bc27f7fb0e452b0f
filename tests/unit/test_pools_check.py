"""Dead connections and failed queries: what the checks make of what was recorded; and the wire that lets connections die."""

import json
import socket
import threading

import pytest

from chaos.checks import backoff, judge
from chaos.checks.limits import Limits
from chaos.faults.wire import Wire
from chaos.model import Connection, Effect, History, Kind, Operation, Outcome, Rung, Window


def history(family, facts=None, operations=(), connections=(), **more):
    return History(
        experiment=f"pool.{family}",
        started=0.0,
        windows=(Window(fault="x", scope="1", injected=1.0, healed=9.0, effect=Effect(took=True, seen="")),),
        operations=tuple(operations),
        connections=tuple(connections),
        facts={"gate": "res.pool", "family": family, **(facts or {})},
        **more,
    )


def read(at, seconds, status=200, **more):
    return Operation(
        kind=Kind.READ,
        method="GET",
        path="/",
        sample="read[0]",
        started=at,
        finished=at + seconds,
        status=status,
        ok=status == 200,
        **more,
    )


def first(*args, **more):
    return judge(history(*args, **more), Limits())[0]


def drains(**changes):
    one = {"died": 3, "failed": 1, "slowest": 0.5, "again": 0.6, "longest": 11.0, "at_once": 3}
    return {"drains": json.dumps([one | changes]), "how": "rst"}


def test_a_drain():
    assert first("stale", drains()).outcome is Outcome.PASS
    assert first("stale", drains(again=-1.0)).outcome is Outcome.FAIL
    assert first("stale", drains(), operations=[read(2.0, 7.0)]).outcome is Outcome.FAIL
    assert first("stale", drains(), exited="exit status 1").outcome is Outcome.FAIL
    assert first("stale", {}).outcome is Outcome.INCONCLUSIVE


def rounds(*counts, sick="", stuck=()):
    told = [
        {"sessions": {"idle": count, "idle in transaction": (stuck or [0] * 9)[number]}, "sick": sick, "cancelled": 6}
        for number, count in enumerate(counts)
    ]
    return {"rounds": json.dumps(told)}


def test_a_leak():
    assert first("leak", rounds(5, 5, 5, 5)).outcome is Outcome.PASS
    assert first("leak", rounds(1, 4, 5, 5)).outcome is Outcome.PASS, "an elastic pool grows, and stops"
    assert first("leak", rounds(5, 8, 11, 14)).outcome is Outcome.FAIL
    assert first("leak", rounds(5, 5, 5, 5, stuck=(0, 1, 2, 3))).outcome is Outcome.FAIL
    assert first("leak", rounds(5, sick="503")).outcome is Outcome.FAIL
    assert first("leak", rounds(5, 5)).outcome is Outcome.INCONCLUSIVE
    assert first("leak", rounds(5, 5, 5), operations=[read(2.0, 9.0, client="failing")]).outcome is Outcome.FAIL


def refused(each, *, seconds=0.2, requests=6, exited="", **limits):
    operations = [read(2.0 + number, seconds, 503) for number in range(requests)]
    connections = [
        Connection(
            id=0,
            opened=2.0 + number + 0.03 * turn**1.5,
            closed=2.0 + number + 0.03 * turn**1.5 + 0.005,
            behaviour="relay",
            reached=Rung.CLIENT_HELLO,
        )
        for number in range(requests)
        for turn in range(each)
    ]
    made = history("final", {"silences": "1.0-1.9"}, operations, connections, exited=exited)
    return backoff.final(made, Limits(**limits))


def test_an_error_that_no_retry_mends():
    assert refused(1).outcome is Outcome.PASS
    assert refused(0).outcome is Outcome.INCONCLUSIVE
    assert refused(2).outcome is Outcome.NOT_APPLICABLE
    assert refused(2).severity == "medium"
    assert refused(2, policy={"backoff.final": "reject"}).outcome is Outcome.FAIL
    assert refused(5, seconds=0.4).outcome is Outcome.FAIL
    assert refused(1, exited="exit status 1").outcome is Outcome.NOT_APPLICABLE


def test_retries_within_retries():
    asked = [(read(2.0 + number, 0.9, 503), [2.0 + number + 0.02 * turn**1.5 for turn in range(9)]) for number in range(6)]
    made = [
        (one, tuple(Connection(id=0, opened=at, closed=at + 0.005, behaviour="x", reached=Rung.CLIENT_HELLO) for at in times))
        for one, times in asked
    ]
    assert "within retries" in backoff.within_requests(made)
    assert not backoff.within_requests([(one, attempts[:5]) for one, attempts in made])


def _repeat(link):
    while data := link.recv(4096):
        link.sendall(data)


@pytest.fixture
def echo():
    """A server that says everything back, for as long as it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_repeat, args=(link,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()


def test_nothing_that_is_not_established_dies(echo):
    wire = Wire(echo)
    try:
        with socket.create_connection(("127.0.0.1", wire.start())) as link:
            link.sendall(b"x")
            assert link.recv(1) == b"x"
            assert wire.kill("rst", 5) == 0
            assert wire.kill("hole", 5) == 0
            link.sendall(b"y")
            assert link.recv(1) == b"y"
    finally:
        wire.stop()
