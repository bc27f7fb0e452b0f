"""Every row of the catalogue, played to libpq with a real PostgreSQL behind it: the oracle tells right from wrong."""

import socket
import ssl
import struct
import time
import warnings
from pathlib import Path

import psycopg
import pytest

from chaos.faults.wire import Wire
from chaos.faults.wire.protocol import SSL_REQUEST, authentication
from chaos.faults.wire.rows import BY_ID, ROWS, twin
from chaos.model import Rung, now
from tests.unit import wire_postgres

# What libpq does at sslmode=verify-full and nothing else, where that is not what a row asks for.
LIBPQ = {
    "C6": "goes on", "C8": "goes on", "C11": "goes on", "C12": "goes on", "P11": "goes on",
    "A1": "goes on", "A2": "goes on", "A3": "goes on", "A4": "goes on", "A5": "goes on",
    "C14": "gives up", "C22": "gives up", "C27": "gives up", "C27.names": "gives up",
}  # fmt: skip
ASKED = [row for row in ROWS if not row.when and row.must != "bounded" and row.id not in {"C24", "C26", "A7", "P14"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with wire_postgres.running(tmp_path_factory.mktemp("rows")) as running:
        yield running


@pytest.fixture
def wire(server):
    wire = Wire(("127.0.0.1", server.postgres.port))
    wire.start()
    yield wire
    wire.stop()
    assert wire.errors == ()


def furthest(wire, since):
    end = time.monotonic() + 5
    while time.monotonic() < end and not all(one.closed for one in wire.connections(since)):
        time.sleep(0.005)
    met = wire.connections(since)
    assert met
    return max(one.reached for one in met), any(one.plaintext for one in met)


def play(server, wire, row, *, make=None, **more):
    """How far a verify-full libpq goes, and whether it ever did so in plaintext."""
    host = server.authority.host(row.pair if make else row.entry)
    files = {"crl": server.authority.crl(), "stale_crl": server.authority.crl(stale=True), "no_crl": "/nonexistent/crl.pem"}
    options = {key: value.format_map(files) for key, value in row.client.items()}
    wire.behave((make or row.make)(server.authority.issue))
    since = now()
    try:
        with psycopg.connect(
            server.conninfo(wire.port, host=host, connect_timeout=3, **options, **more), autocommit=True
        ) as link:
            link.execute("SELECT 1")
    except psycopg.Error:
        pass
    return furthest(wire, since)


@pytest.mark.parametrize("row", ASKED, ids=lambda row: row.id)
def test_libpq(server, wire, row):
    reached, plaintext = play(server, wire, row)
    goes_on = LIBPQ.get(row.id, "goes on" if row.must == "connect" else "gives up") == "goes on"
    assert (reached >= row.until) == goes_on
    assert not plaintext


@pytest.mark.parametrize("row", [row for row in ASKED if row.pair != "valid" and row.must != "connect"], ids=lambda row: row.id)
def test_the_pair_of_each_row_is_accepted(server, wire, row):
    assert play(server, wire, row, make=twin(row))[0] >= Rung.STARTUP


STARTUP = struct.pack("!II", 18, 196608) + b"user\0app\0\0"


def sloppy(port):
    """A client that takes any TLS there is, and plaintext where there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=3) as link:
            link.sendall(SSL_REQUEST)
            if link.recv(1) == b"S":
                with context.wrap_socket(link, server_hostname="localhost") as secure:
                    secure.sendall(STARTUP)
                    secure.recv(1000)
                    return
    except OSError:
        pass
    with socket.create_connection(("127.0.0.1", port), timeout=3) as link:
        link.sendall(STARTUP)
        link.recv(1000)


REJECTED = [row for row in ROWS if row.must == "reject" and row.until is Rung.STARTUP and row.id not in {"C25", "P14"}]


@pytest.mark.parametrize("row", REJECTED, ids=lambda row: row.id)
def test_a_client_that_takes_anything_is_seen(server, wire, row):
    """Each row is one that such a client fails, so a pass is worth something."""
    wire.behave(row.make(server.authority.issue))
    since = now()
    sloppy(wire.port)
    assert furthest(wire, since)[0] >= row.until


@pytest.mark.parametrize("row", ["P5", "P6"])
def test_a_client_that_obeys_injected_bytes_is_seen(server, wire, row):
    """CVE-2021-23222, as it was: what came in the clear is taken for an answer to what goes out inside TLS."""
    wire.behave(BY_ID[row].make(server.authority.issue))
    context = ssl.create_default_context(cafile=server.authority.ca_file)
    since = now()
    with socket.create_connection(("127.0.0.1", wire.port), timeout=3) as link:
        link.sendall(SSL_REQUEST)
        time.sleep(0.1)
        assert link.recv(100) == b"S" + authentication(3)
        with context.wrap_socket(link, server_hostname="localhost") as secure:
            secure.sendall(STARTUP)
            secure.sendall(b"p" + struct.pack("!I", 11) + b"secret\0")
            secure.recv(1000)
    assert furthest(wire, since)[0] is Rung.PASSWORD
    assert "secret" not in repr(wire.connections())


@pytest.mark.parametrize(
    ("row", "options", "reached"),
    [
        ("A1", {"require_auth": "scram-sha-256"}, Rung.STARTUP),
        ("A2", {"require_auth": "scram-sha-256"}, Rung.STARTUP),
        ("A3", {"require_auth": "scram-sha-256"}, Rung.STARTUP),
        ("A4", {"channel_binding": "require"}, Rung.STARTUP),
    ],
)
def test_what_a_policy_row_asks_for_exists(server, wire, row, options, reached):
    assert play(server, wire, BY_ID[row], **options)[0] is reached


def test_rows_are_well_formed():
    assert len(BY_ID) == len(ROWS)
    for row in ROWS:
        assert row.why
        assert row.title
        assert bool(row.severity) == (row.must in {"policy", "bounded"}), row.id
    bases = {row.base for row in ROWS}
    assert {f"C{n}" for n in range(1, 28)} <= bases
    assert {f"P{n}" for n in range(1, 17)} - bases == {"P7"}  # the server's own: experiment 'P7'
    assert {f"A{n}" for n in range(1, 9)} <= bases


def test_the_document_has_every_row():
    text = (Path(__file__).parents[2] / "docs" / "hostile-postgresql.md").read_text(encoding="utf-8")
    for row in ROWS:
        if row.id != "valid":
            assert f"| `{row.id}` | {row.title} | " in text
            assert f" | {row.why} |" in text
