"""Rows M1 to M6, where they apply: a PostgreSQL that asks for client certificates refuses the wrong ones, and libpq an open key."""

import time

import psycopg
import pytest

from tests.unit import wire_postgres

ROWS = {
    "client-expired": "expired",
    "client-other-ca": "unknown ca",
    "client-server-use": "unsupported certificate",
    "client-other-user": "authentication failed",
    "client-key-readable": "group or world access",
    "": "requires a valid client certificate",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with wire_postgres.running(tmp_path_factory.mktemp("clients")) as running:
        postgres = running.postgres
        postgres._write("client-ca.crt", running.authority.ca_file.read_bytes())
        with psycopg.connect(postgres.admin_conninfo, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET ssl_ca_file = 'client-ca.crt'")
            rules = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\n"
            postgres._write("pg_hba.conf", rules.encode())
            admin.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + 5
        while "requires a valid client certificate" not in attempt(running, "") and time.monotonic() < end:
            time.sleep(0.05)
        yield running


def attempt(server, entry):
    """'ok', or libpq's words."""
    more = {"sslcert": "/nonexistent/client.crt", "sslkey": "/nonexistent/client.key"}
    if entry:
        identity = server.authority.issue(entry)
        more = {"sslcert": identity.chain_file, "sslkey": identity.key_file}
    try:
        with psycopg.connect(server.conninfo(server.postgres.port, **more)) as session:
            session.execute("SELECT 1")
    except psycopg.Error as error:
        return str(error)
    return "ok"


def test_the_right_one_is_accepted(server):
    assert attempt(server, "client") == "ok"


@pytest.mark.parametrize("entry", ROWS)
def test_a_wrong_one_is_refused(server, entry):
    words = attempt(server, entry)
    assert any(part in words for part in ROWS[entry].split("|")), words


def test_the_servers_log_tells_of_each(server):
    offset = server.postgres.log_offset()
    attempt(server, "")
    attempt(server, "client-expired")
    end, lines = time.monotonic() + 5, ""
    while time.monotonic() < end and "could not accept SSL connection" not in lines:
        lines = "\n".join(server.postgres.log_since(offset))
        time.sleep(0.05)
    assert "requires a valid client certificate" in lines
    assert "could not accept SSL connection" in lines
