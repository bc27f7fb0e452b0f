"""The wire with a real PostgreSQL and real clients: each rung of the ladder is shown by a client that climbs to it."""

import asyncio
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import asyncpg
import psycopg
import pytest

from chaos.certs import Zoo
from chaos.errors import PartFailed, UsageError
from chaos.faults.wire import Impostor, Refuse, Relay, Stall, Wire
from chaos.faults.wire.protocol import SSL_REQUEST
from chaos.model import Rung, now
from tests.unit import wire_postgres

ENTRIES = [entry for entry in Zoo.load().entries if entry.role == "server"]
LIBPQ = {  # where libpq does otherwise than a client must, or a policy is asked for
    "cn-only": "connect",
    "cn-right-san-ip": "connect",
    "ip-in-dns": "connect",
    "ip-in-cn": "connect",
    "trailing-dot": "reject",
    "many-names": "reject",
    "revoked": "connect",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with wire_postgres.running(tmp_path_factory.mktemp("wire")) as running:
        yield running


@pytest.fixture
def wire(server):
    wire = Wire(("127.0.0.1", server.postgres.port))
    wire.start()
    yield wire
    wire.stop()
    assert wire.errors == ()


@pytest.fixture
def connect(server, wire):
    """Connect through the wire with psycopg, ask one question: 'ok', or the error."""

    def connect(**parameters):
        try:
            with psycopg.connect(server.conninfo(wire.port, **parameters)) as session:
                session.execute("SELECT 1")
        except psycopg.Error as error:
            return str(error)
        return "ok"

    return connect


def settled(wire, since=0.0, seconds=5.0):
    """The connections, once all are closed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = wire.connections(since)
        if found and all(one.closed for one in found):
            return found
        time.sleep(0.005)
    return wire.connections(since)


def only(wire, since=0.0):
    (one,) = settled(wire, since)
    return one


# -- relay ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_relayed_session_is_established(wire, connect, version):
    assert connect(ssl_min_protocol_version=version, ssl_max_protocol_version=version) == "ok"
    one = only(wire)
    assert (one.behaviour, one.reached, one.established, one.tls, one.plaintext) == (
        "relay",
        Rung.CLIENT_HELLO,
        True,
        True,
        False,
    )
    assert one.sni == "localhost"
    assert one.ended_by == "client"
    assert one.bytes_up > 500
    assert one.bytes_down > 500


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"host": "other.example.test"}, "does not match host name"),
        ({"sslrootcert": "system"}, "certificate verify failed"),
        ({"dbname": "x" * 60}, "does not exist"),
        ({"user": "u" * 63, "dbname": "d" * 50}, "authentication failed"),
    ],
    ids=["password", "host", "ca", "database", "long-names"],
)
def test_a_relayed_session_that_fails_is_not_established(wire, connect, version, parameters, why):
    assert why in connect(ssl_min_protocol_version=version, ssl_max_protocol_version=version, **parameters)
    one = only(wire)
    assert not one.established
    assert not one.cancel
    assert one.reached is Rung.CLIENT_HELLO


def test_a_session_is_established_before_its_first_query(server, wire):
    with psycopg.connect(server.conninfo(wire.port)):
        (one,) = wire.connections()
        assert one.established
        assert one.closed == 0.0
        assert one.ended_by == ""


def test_tls12_shows_the_alert(server, wire, connect):
    connect(ssl_max_protocol_version="TLSv1.2", sslrootcert=server.authority.issue("untrusted-ca").ca_file)
    assert only(wire).alert == "unknown ca"


def test_direct_tls(wire, connect):
    assert connect(sslnegotiation="direct") == "ok"
    one = only(wire)
    assert one.established
    assert any("postgresql" in what for _, what in one.steps)
    assert not any("SSL_REQUEST" in what for _, what in one.steps)


def test_asyncpg_through_the_relay(server, wire):
    assert asyncio.run(_asyncpg(server, wire.port, server.authority.ca_file)) == "ok"
    one = only(wire)
    assert one.established
    assert one.reached is Rung.CLIENT_HELLO


def test_plaintext_to_the_real_server_is_read(wire, connect):
    assert "no encryption" in connect(mode="disable", sslrootcert=None)
    one = only(wire)
    assert (one.plaintext, one.reached, one.established, one.tls) == (True, Rung.STARTUP, False, False)


def test_server_without_tls(server, wire, connect):
    server.postgres.tls(enabled=False)
    try:
        assert "does not support SSL" in connect()
        assert only(wire).reached is Rung.SSL_REQUEST
        since = now()
        assert connect(mode="prefer", sslrootcert=None) == "ok"
        one = only(wire, since)
        assert (one.plaintext, one.established, one.tls, one.reached) == (True, True, False, Rung.QUERY)
    finally:
        server.postgres.tls(enabled=True)


CANCELLER = """
import sys, threading, psycopg
with psycopg.connect(sys.argv[1]) as session:
    threading.Timer(0.3, getattr(session, sys.argv[2])).start()
    try:
        session.execute("SELECT pg_sleep(20)")
    except psycopg.errors.QueryCanceled:
        print("cancelled")
"""


@pytest.mark.parametrize("how", ["cancel", "cancel_safe"])
def test_cancel(server, wire, how):
    """In a process of its own: cancel() holds the interpreter's lock until the server has answered, and the wire needs it."""
    argv = [sys.executable, "-c", CANCELLER, server.conninfo(wire.port), how]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout == "cancelled\n"
    session, cancel = settled(wire)
    assert session.established
    assert not session.cancel
    assert cancel.cancel
    assert not cancel.plaintext
    assert cancel.tls is (how == "cancel_safe")
    assert not cancel.established


def test_postgres_is_away_and_moves(server, connect, wire):
    wire.upstream = ("127.0.0.1", 1)
    assert connect() != "ok"  # an RST, which libpq words as it happens to meet it
    assert settled(wire)[0].ended_by == "server"
    wire.upstream = ("127.0.0.1", server.postgres.port)
    assert connect() == "ok"


def test_a_server_that_dies_ends_its_connections(server, wire):
    with psycopg.connect(server.conninfo(wire.port), autocommit=True) as session:
        with psycopg.connect(server.postgres.admin_conninfo, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
        _until(lambda: wire.connections()[0].closed)
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            session.execute("SELECT 1")
    assert only(wire).ended_by == "server"


# -- impostor -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_libpq_and_the_zoo(server, wire, connect, entry):
    host = server.authority.host(entry)
    wire.behave(Impostor(server.authority.issue(entry), label=entry.row))
    why = connect(host=host)
    one = only(wire)
    assert one.behaviour == f"impostor:{entry.row}"
    assert one.tls
    if LIBPQ.get(entry.name, entry.must) == "connect":
        assert "not accepting connections" in why
        assert one.reached is Rung.STARTUP
        assert one.alert == ""
    else:
        assert one.reached is Rung.CLIENT_HELLO, why
        assert one.ended_by == "client"
        assert "not accepting" not in why


@pytest.mark.parametrize(
    ("name", "alert"),
    [("expired", "certificate expired"), ("untrusted-ca", "unknown ca"), ("wrong-host", ""), ("client-use-only", "")],
)
def test_alerts(server, wire, connect, name, alert):
    wire.behave(Impostor(server.authority.issue(name)))
    for version in ("TLSv1.2", "TLSv1.3"):
        since = now()
        connect(ssl_max_protocol_version=version)
        assert alert in only(wire, since).alert


def test_libpq_refuses_a_key_that_others_can_read(server, wire, connect):
    for name, words in (("client-key-readable", "permissions|group or world access"), ("client", "not accepting connections")):
        identity = server.authority.issue(name)
        wire.behave(Impostor(server.authority.issue("valid")))
        assert re.search(words, connect(sslcert=identity.chain_file, sslkey=identity.key_file))


@pytest.mark.parametrize("then", ["close", "ask", "relay"])
def test_a_careless_client_climbs(server, wire, connect, then):
    wire.behave(Impostor(server.authority.issue("untrusted-ca"), then))
    why = connect(mode="require", sslrootcert=None, channel_binding="disable")
    one = only(wire)
    assert one.reached is {"close": Rung.STARTUP, "ask": Rung.SCRAM_PROOF, "relay": Rung.QUERY}[then]
    assert (why == "ok") is (then == "relay")
    assert one.established is (then == "relay")
    assert one.ended_by == ("client" if then == "relay" else "wire")
    assert not one.plaintext


def test_channel_binding_sees_through_another_certificate(server, wire, connect):
    wire.behave(Impostor(server.authority.issue("rotated-leaf"), "relay"))
    assert "channel binding check failed" in connect()
    assert only(wire).reached is Rung.SCRAM_PROOF


def test_channel_binding_holds_with_the_servers_certificate(server, wire, connect):
    wire.behave(Impostor(server.authority.issue("valid"), "relay"))
    assert connect(channel_binding="require") == "ok"
    one = only(wire)
    assert (one.reached, one.established, one.plaintext) == (Rung.QUERY, True, False)
    assert connect(sslnegotiation="direct", channel_binding="require") == "ok"


def test_wrong_password_through_the_impostor(server, wire, connect):
    wire.behave(Impostor(server.authority.issue("valid"), "relay"))
    assert "password authentication failed" in connect(password="wrong")
    one = only(wire)
    assert (one.reached, one.established) == (Rung.SCRAM_PROOF, False)
    assert one.ended_by in {"server", "client"}  # the client closes when it has read the FATAL, and so does PostgreSQL: a race


def test_cancel_through_the_impostor(server, wire):
    wire.behave(Impostor(server.authority.issue("valid"), "relay"))
    with psycopg.connect(server.conninfo(wire.port)) as session:
        since = now()
        threading.Timer(0.3, session.cancel_safe).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT pg_sleep(20)")
    one = only(wire, since)
    assert one.cancel
    assert one.tls
    assert one.reached is Rung.CLIENT_HELLO


def test_plaintext_to_an_impostor(server, wire, connect):
    wire.behave(Impostor(server.authority.issue("valid"), "ask"))
    connect(mode="disable", sslrootcert=None)
    one = only(wire)
    assert (one.plaintext, one.tls, one.reached) == (True, False, Rung.SCRAM_PROOF)
    wire.behave(Impostor(server.authority.issue("valid"), "relay"))
    since = now()
    assert connect(mode="disable", sslrootcert=None) == "ok"
    one = only(wire, since)
    assert (one.plaintext, one.established, one.reached) == (True, True, Rung.QUERY)


def test_asyncpg_and_the_impostor(server, wire):
    ca = server.authority.ca_file
    wire.behave(Impostor(server.authority.issue("wrong-host"), "ask"))
    assert asyncio.run(_asyncpg(server, wire.port, ca)) != "ok"
    assert {one.reached for one in settled(wire)} == {Rung.CLIENT_HELLO}
    since = now()
    assert asyncio.run(_asyncpg(server, wire.port, None)) != "ok"
    assert only(wire, since).reached is Rung.SCRAM_PROOF
    wire.behave(Impostor(server.authority.issue("valid"), "relay"))
    since = now()
    assert asyncio.run(_asyncpg(server, wire.port, ca)) == "ok"
    assert only(wire, since).reached is Rung.QUERY


def test_nothing_secret_is_kept(server, wire, connect):
    password = server.postgres.app_password
    wire.behave(Impostor(server.authority.issue("untrusted-ca"), "ask"))
    connect(mode="require", sslrootcert=None)
    with socket.create_connection(("127.0.0.1", wire.port)) as raw:  # a client that sends its password without being asked
        startup, secret = b"\0\x03\0\0user\0app\0\0", password.encode() + b"\0"
        raw.sendall(struct.pack("!I", len(startup) + 4) + startup + b"p" + struct.pack("!I", 4 + len(secret)) + secret)
        raw.recv(100)
        raw.recv(1000)
    assert password not in repr(settled(wire))


# -- refuse and stall -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [b"N", b"E", b"X", "eof", "rst"])
def test_refusals_and_verify_full(wire, connect, answer):
    wire.behave(Refuse(answer))
    assert connect() != "ok"
    (one,) = settled(wire)
    assert one.behaviour == f"refuse:{answer if isinstance(answer, str) else answer.decode()}"
    assert (one.reached, one.plaintext, one.tls) == (Rung.SSL_REQUEST, False, False)


def test_prefer_goes_on_in_plaintext(wire, connect):
    wire.behave(Refuse(b"N"))
    assert connect(mode="prefer", sslrootcert=None) != "ok"
    one = settled(wire)[-1]
    assert (one.reached, one.plaintext) == (Rung.STARTUP, True)


def test_an_error_packet_is_not_shown(wire, connect):
    """CVE-2024-10977: the text of an unauthenticated server must not reach the user. libpq keeps it."""
    wire.behave(Refuse(b"E"))
    assert "must not reach" not in connect()


@pytest.mark.parametrize(
    ("where", "rung"),
    [
        ("accept", Rung.SSL_REQUEST),
        ("after_S", Rung.CLIENT_HELLO),
        ("in_tls", Rung.CLIENT_HELLO),
        ("after_startup", Rung.STARTUP),
    ],
)
def test_stalls(server, wire, where, rung):
    """A client that waits is seen waiting, and its end is seen."""
    wire.behave(Stall(where, server.authority.issue("valid")))
    link = psycopg.pq.PGconn.connect_start(server.conninfo(wire.port).encode())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        link.connect_poll()
        if wire.connections() and wire.connections()[0].reached is rung:
            break
        time.sleep(0.005)
    time.sleep(0.05)
    (one,) = wire.connections()
    assert one.reached is rung
    assert one.closed == 0.0
    link.finish()
    one = only(wire)
    assert (one.ended_by, one.reached, one.established) == ("client", rung, False)


def test_what_makes_no_sense_is_refused_at_once(server, wire):
    with pytest.raises(UsageError):
        Stall("in_tls")
    with pytest.raises(UsageError):
        Stall("nowhere")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Refuse(b"")
    with pytest.raises(UsageError):
        Refuse("later")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="key-mismatch"):
        wire.behave(Impostor(server.authority.issue("key-mismatch")))
    assert wire._playing[0] == Relay()


# -- control --------------------------------------------------------------------------------------------------------------------


def test_behaviour_holds_for_new_connections_only(server, wire, connect):
    with psycopg.connect(server.conninfo(wire.port), autocommit=True) as old:
        wire.behave(Refuse(b"N"))
        assert connect() != "ok"
        assert old.execute("SELECT 42").fetchone() == (42,)
        wire.behave(Relay())
        assert connect() == "ok"
    assert [one.behaviour for one in settled(wire)] == ["relay", "refuse:N", "relay"]


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_sever(server, wire, how):
    sessions = [psycopg.connect(server.conninfo(wire.port), autocommit=True) for _ in range(3)]
    raw = socket.create_connection(("127.0.0.1", wire.port))
    raw.sendall(SSL_REQUEST)
    assert raw.recv(1) == b"S"
    assert wire.sever(how) == 4
    assert wire.sever(how) == 0
    with raw:
        if how == "rst":
            with pytest.raises(ConnectionResetError):
                raw.recv(1)
        else:
            assert raw.recv(1) == b""
    for session in sessions:
        with session, pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert {one.ended_by for one in wire.connections()} == {"wire"}
    assert all(one.closed for one in wire.connections())


def test_sever_reaches_those_who_wait_for_a_deaf_client(wire):
    wire.behave(Stall("accept"))
    raw = socket.create_connection(("127.0.0.1", wire.port))
    _until(lambda: len(wire.connections()) == 1)
    assert wire.sever("fin") == 1
    with raw:
        assert raw.recv(1) == b""


def test_stop_start_stop(connect, wire):
    port = wire.port
    assert connect() == "ok"
    wire.stop()
    wire.stop()
    assert "refused" in connect()
    assert wire.sever() == 0
    assert wire.start() == port
    assert wire.start() == port
    assert connect() == "ok"
    assert len(wire.connections()) == 2


def test_a_port_that_is_taken_is_said_so(wire):
    other = Wire(("127.0.0.1", 1))
    other.port = wire.port
    with pytest.raises(PartFailed, match="cannot listen"):
        other.start()
    other.stop()


def test_since(connect, wire):
    connect()
    middle = now()
    connect()
    assert len(settled(wire)) == 2
    assert [one.id for one in wire.connections(middle)] == [2]
    assert wire.connections(now()) == ()


def test_an_rst_stays_an_rst(wire):
    raw = socket.create_connection(("127.0.0.1", wire.port))
    raw.sendall(SSL_REQUEST)
    raw.recv(1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()
    one = only(wire)
    assert one.ended_by == "client"
    assert any("RST" in what for _, what in one.steps)


def test_a_stop_leaves_nothing_open(server):
    before = _descriptors()
    wire = Wire(("127.0.0.1", server.postgres.port))
    wire.start()
    sessions = [psycopg.connect(server.conninfo(wire.port)) for _ in range(5)]
    wire.stop()
    for session in sessions:
        session.close()
    assert _descriptors() == before
    assert all(one.closed for one in wire.connections())


def _descriptors():
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - Linux and macOS


def _until(true, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert true()


async def _asyncpg(server, port, ca):
    """'ok' or the error's text. Without `ca` it verifies nothing."""
    context = ssl.create_default_context(cafile=ca)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    p = server.postgres
    try:
        session = await asyncpg.connect(
            host="localhost",
            port=port,
            user=p.app_user,
            password=p.app_password,
            database=p.app_database,
            ssl=context,
            timeout=10,
        )
        try:
            await session.fetchval("SELECT 1")
        finally:
            await session.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return str(error)
    return "ok"
