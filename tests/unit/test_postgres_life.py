"""What can be done to a PostgreSQL of ours beyond connecting: each by real means, and undone."""

import time
from pathlib import Path

import psycopg
import pytest

from chaos import watchdog
from chaos.environments.local import LocalEnvironment, bouncer, room
from chaos.faults.probe import connect
from chaos.processes import Reaper


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with Reaper("life-test") as reaper:
        made = LocalEnvironment(reaper=reaper, run_dir=tmp_path_factory.mktemp("life"))
        made.start()
        with psycopg.connect(made.postgres.admin_conninfo, autocommit=True) as session:
            session.execute("CREATE TABLE kept AS SELECT 7 AS n")
        yield made
        made.stop()


@pytest.fixture
def postgres(environment):
    yield environment.postgres
    assert ask(environment.postgres, "SELECT n FROM kept") == 7
    assert ask(environment.postgres, "SHOW transaction_read_only") == "off"
    environment.check()


def ask(server, query):
    with psycopg.connect(server.admin_conninfo, autocommit=True) as session:
        return session.execute(query).fetchone()[0]


def write(server):
    with psycopg.connect(server.admin_conninfo, autocommit=True) as session:
        for _ in range(200):
            session.execute("SELECT pg_logical_emit_message(false, 'x', repeat('y', 262144))")


def conninfo(server, port=None):
    return f"{server.database_url(port)}&hostaddr=127.0.0.1"


def test_a_crash_leaves_no_backend(postgres):
    with psycopg.connect(postgres.admin_conninfo, autocommit=True) as session:
        pid = session.info.backend_pid
        postgres.crash()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert watchdog.start_time(pid) == ""
    postgres.start()


def test_a_recovery_lasts_until_it_is_let_end(postgres):
    postgres.crash()
    postgres.recover_slowly()
    deadline = time.monotonic() + 5
    while (seen := connect(conninfo(postgres))).how != "57P03" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert seen.how == "57P03"
    time.sleep(0.5)
    assert connect(conninfo(postgres)).how == "57P03"
    postgres.recovered()
    assert connect(conninfo(postgres)).how == "answer"


def test_places_are_changed_and_changed_back(postgres):
    standby = postgres.follower("standby")
    assert ask(standby, "SHOW transaction_read_only") == "on"
    postgres.stop()
    standby.promote()
    with psycopg.connect(standby.admin_conninfo, autocommit=True) as session:
        session.execute("UPDATE kept SET n = 8")
    postgres.follow(standby)
    assert ask(postgres, "SHOW transaction_read_only") == "on"
    with (
        psycopg.connect(postgres.admin_conninfo, autocommit=True) as session,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        session.execute("UPDATE kept SET n = 9")
    postgres.rebuild(standby)
    with psycopg.connect(standby.admin_conninfo, autocommit=True) as session:
        session.execute("UPDATE kept SET n = 7")
    standby.stop("fast")
    postgres.promote()
    standby.discard()


@pytest.mark.skipif(bool(room.lacking()), reason=room.lacking())
def test_a_disk_that_is_full_is_nobody_else_s(postgres):
    disk = postgres.small_disk()
    assert ask(postgres, "SELECT n FROM kept") == 7
    offset = postgres.log_offset()
    assert disk.fill() > 1 << 20
    with pytest.raises(psycopg.OperationalError):
        write(postgres)
    assert any("No space left on device" in line for line in postgres.log_since(offset))
    postgres.usual_disk()
    assert "chaos-pg" not in Path("/proc/mounts").read_text(encoding="utf-8")


@pytest.mark.skipif(bool(bouncer.lacking()), reason=bouncer.lacking())
def test_pgbouncer_verifies_what_is_behind_it(environment, postgres):
    between = environment.bouncer(postgres.port)
    between.start()
    try:
        assert connect(conninfo(postgres, between.port)).how == "answer"
        bad = environment.authority.issue("untrusted-ca")
        good = environment.authority.issue("valid")
        postgres.use_certificate(bad.chain_file, bad.key_file)
        with psycopg.connect(postgres.admin_conninfo, autocommit=True) as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        assert connect(conninfo(postgres, between.port)).how != "answer"
        postgres.use_certificate(good.chain_file, good.key_file)
    finally:
        between.stop()
