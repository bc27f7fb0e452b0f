"""The reference service while its database is away: bounded answers, the right class of answer, recovery, no leak, no hot loop.

Bounds on time are those that chaos.toml promises (fail_fast, recovery), not what a quiet machine shows; that is in the guide.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.unit.reference_service import Answer, Lab, Service, lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAIL_FAST = RECOVERY = 5.0  # seconds, as in chaos/targets/reference/chaos.toml


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("reference")) as made:
        yield made


@pytest.fixture(scope="module")
def running(room: Lab) -> Service:
    return room.start()


@pytest.fixture
def service(running: Service) -> Service:
    running.wait()
    time.sleep(
        1.1
    )  # a failure sooner than that would belong to the outage before (pool.PROVEN_AFTER), and its backoff would go on
    return running


def admin(room: Lab) -> psycopg.Connection:
    return psycopg.connect(room.environment.postgres.admin_conninfo, autocommit=True, dbname="app")


def write(service: Service, name: str, *, key: bool = True) -> Answer:
    return service.ask("/api/items", "POST", json_body={"name": name}, headers={"Idempotency-Key": name} if key else {})


def applied(room: Lab, name: str) -> int:
    with admin(room) as session:
        row = session.execute("SELECT count(*) FROM item_ledger WHERE name = %s", [name]).fetchone()
    assert row
    return int(row[0])


def terminate_in_commit(room: Lab) -> bool:
    """Whether a session was ended while its COMMIT was under way; waits for one."""
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'"
    end = time.monotonic() + 5.0
    with admin(room) as session:
        while time.monotonic() < end:
            row = session.execute(query).fetchone()
            if row and row[0]:
                return True
            time.sleep(0.02)
    return False


def terminate(room: Lab) -> int:
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'reference'"
    with admin(room) as session:
        row = session.execute(query).fetchone()
    assert row
    return int(row[0])


def outage(service: Service, *, seconds: float = 3.0) -> list[Answer]:
    """What is answered meanwhile: reads and writes by six callers, invalid requests and liveness beside them."""
    until = time.monotonic() + seconds

    def caller(number: int) -> list[Answer]:
        answers = []
        while time.monotonic() < until:
            answers.append(service.ask("/api/items/1") if number % 2 else write(service, uuid.uuid4().hex))
            time.sleep(0.05)
        return answers

    with ThreadPoolExecutor(7) as pool:
        callers = [pool.submit(caller, number) for number in range(6)]
        while time.monotonic() < until:
            assert service.ask("/api/items/x").status == 400
            assert service.ask("/api/items", "POST", json_body={"name": ""}).status == 422
            assert service.ask("/healthz").status == 200
            time.sleep(0.1)
        return [answer for caller_ in callers for answer in caller_.result()]


def check(answers: list[Answer]) -> None:
    """An answer to each, in time, 2xx or an honest 503."""
    assert {answer.status for answer in answers} <= {200, 201, 503}
    assert max(answer.seconds for answer in answers) < FAIL_FAST
    for answer in answers:
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.code in {"database_unavailable", "database_timeout", "database_busy", "overloaded", "outcome_unknown"}


@pytest.mark.parametrize("fault", ["refused", "black_hole", "reset", "hung"])
def test_an_outage_of_the_network(service: Service, room: Lab, fault: str) -> None:
    faults: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
        "refused": room.proxy.refusing,
        "black_hole": room.proxy.black_hole,
        "reset": lambda: room.proxy.toxic("reset_peer", "downstream", timeout=0),
        "hung": lambda: room.proxy.toxic("timeout", "downstream", timeout=0),
    }
    attempts = service.metric("database_connection_attempts_total")
    with faults[fault]():
        answers = outage(service)
    assert service.wait() < RECOVERY
    check(answers)
    assert any(answer.status == 503 for answer in answers)
    # Growing from 0.02 s to 1.5 s, about 9 attempts in 3 s, and 5 to fill the pool again. A hot loop makes hundreds.
    assert service.metric("database_connection_attempts_total") - attempts < 40


def test_slow_is_not_broken(service: Service, room: Lab) -> None:
    with room.proxy.toxic("latency", "downstream", latency=100):
        answers = outage(service, seconds=1.5)
    assert {answer.status for answer in answers} == {200, 201}


def test_killed_sessions_cost_nobody_a_request(service: Service, room: Lab) -> None:
    assert terminate(room) == 5
    time.sleep(0.2)  # they were idle: the pool notices by itself
    assert service.metric('database_connections_lost_total{reason="idle_closed"}') >= 5
    check(answers := outage(service, seconds=0.5))
    assert {answer.status for answer in answers} == {200, 201}


def test_postgresql_stopped_and_started(service: Service, room: Lab) -> None:
    room.environment.postgres.stop("fast")
    try:
        answers = outage(service)
        assert service.ask("/readyz").status == 503
    finally:
        room.environment.postgres.start()
    assert service.wait() < RECOVERY
    check(answers)


def test_a_swapped_certificate_is_never_talked_to(service: Service, room: Lab) -> None:
    authority, postgres = room.environment.authority, room.environment.postgres
    wrong, good = authority.issue("wrong-host"), authority.issue("valid")
    postgres.use_certificate(wrong.chain_file, wrong.key_file)
    try:
        terminate(room)
        answers = outage(service, seconds=2.0)
    finally:
        postgres.use_certificate(good.chain_file, good.key_file)
    assert service.wait() < RECOVERY
    check(answers)
    assert service.metric('database_connection_failures_total{class="tls"') >= 2
    assert {answer.status for answer in answers[-6:]} == {503}


def test_locks_exhaust_neither_the_pool_nor_the_callers_patience(service: Service, room: Lab) -> None:
    with admin(room) as session, session.transaction():
        session.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(60) as pool:
            answers = list(pool.map(lambda _: service.ask("/api/items/1"), range(60)))
    assert service.wait() < RECOVERY
    check(answers)
    codes = [answer.code for answer in answers]
    assert {"database_busy", "overloaded"} <= set(codes)  # the queue is short: who finds it full is told at once
    assert min(answer.seconds for answer, code in zip(answers, codes, strict=True) if code == "overloaded") < 1.0
    time.sleep(1.2)
    assert service.metric("database_pool_connections{") == 5
    assert service.metric('database_pool_connections{state="busy"}') == 0
    with admin(room) as session:
        stuck = session.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    assert stuck == (0,)


def fill(room: Lab, held: list[psycopg.Connection]) -> None:
    """Take every connection that the server has left."""
    with contextlib.suppress(psycopg.OperationalError):
        while True:
            held.append(psycopg.connect(room.environment.postgres.admin_conninfo, autocommit=True))


def test_a_server_without_room_is_not_hammered(service: Service, room: Lab) -> None:
    held: list[psycopg.Connection] = []
    try:
        fill(room, held)
        held[0].execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'reference' LIMIT 3")
        fill(room, held)
        attempts = service.metric("database_connection_attempts_total")
        check(outage(service, seconds=2.0))
        assert service.metric("database_connection_attempts_total") - attempts < 40
    finally:
        for connection in held:
            connection.close()
    assert service.wait() < RECOVERY


def test_a_commit_nobody_saw_is_unknown_and_the_key_makes_it_safe(service: Service, room: Lab) -> None:
    """A deferred trigger holds COMMIT open in the server; there the session is killed. The transaction is then rolled back."""
    with admin(room) as session:
        session.execute(
            """CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                   $$ BEGIN IF NEW.name LIKE 'held%' THEN PERFORM pg_sleep(0.6); END IF; RETURN NULL; END $$;
               CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED
                   FOR EACH ROW EXECUTE FUNCTION hold()"""
        )
    try:
        for key in (False, True):
            name = f"held-{uuid.uuid4().hex}"
            done: list[Answer] = []
            thread = threading.Thread(target=lambda name=name, key=key, done=done: done.append(write(service, name, key=key)))
            thread.start()
            assert terminate_in_commit(room)
            thread.join()
            if key:  # tried again by the service itself, under the same key; by its caller, where the deadline came first
                answer = done[0] if done[0].status != 503 else write(service, name)
                assert answer.status == 201
                assert applied(room, name) == 1
            else:
                assert (done[0].status, done[0].code) == (503, "outcome_unknown")
                assert applied(room, name) == 0
    finally:
        with admin(room) as session:
            session.execute("DROP TRIGGER hold ON items; DROP FUNCTION hold()")


def test_nothing_acknowledged_is_lost_and_nothing_is_applied_twice(service: Service, room: Lab) -> None:
    names: dict[str, int] = {}
    stop = threading.Event()

    def writer() -> None:
        while not stop.is_set():
            name = uuid.uuid4().hex
            names[name] = write(service, name).status
            time.sleep(0.01)

    threads = [threading.Thread(target=writer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        time.sleep(0.2)
        terminate(room)
    stop.set()
    for thread in threads:
        thread.join()
    assert sum(status == 201 for status in names.values()) > 50
    for name, status in names.items():
        count = applied(room, name)
        assert count == 1 if status == 201 else count <= 1, (name, status)


def test_the_database_may_be_away_at_the_start(room: Lab) -> None:
    with room.proxy.refusing():
        service = room.start(ready=False)
        service.wait("/healthz")
        assert (service.ask("/readyz").status, service.ask("/readyz").code) == (503, "pool_cold")
        assert service.ask("/api/items").status == 503
    assert service.wait() < RECOVERY
    assert service.stop() == 0


def test_it_stops_at_once_in_an_outage_too(room: Lab) -> None:
    service = room.start()
    with room.proxy.black_hole(), ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(service.ask, "/api/items") for _ in range(6)]
        time.sleep(0.5)
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 4  # about 1.3 on an idle machine: requests under way get a second
        assert all(answer.result().status in (0, 503) for answer in waiting)
