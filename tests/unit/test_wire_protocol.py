"""The wire's parsers: the same result however the bytes are cut, and never an exception whatever they are."""

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.certs import Identity
from chaos.faults.wire import Impostor, Refuse, Relay, Stall, protocol
from chaos.faults.wire.observer import BURST, Observer
from chaos.faults.wire.protocol import Ladder, Packet, Splitter, message
from chaos.faults.wire.record import Ledger, Record
from chaos.faults.wire.tls_records import Hello, RecordScanner, parse_hello
from chaos.model import Connection, Rung, now

STARTUP = struct.pack("!II", 25, 196608) + b"user\0app\0" + b"x\0y\0" + b"\0\0\0\0"
GSS = struct.pack("!II", 8, 80877104)
CANCEL = struct.pack("!IIII", 16, 80877102, 1, 2)


def cut(data, sizes):
    """`data` in portions of these sizes, over and over."""
    at, n = 0, 0
    while at < len(data):
        size = sizes[n % len(sizes)]
        yield data[at : at + size]
        at, n = at + size, n + 1


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def client_hello(host="db.example.test", alpn=("postgresql",)):
    """A real one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's roots, which take 40 ms to load
    if alpn:
        context.set_alpn_protocols(list(alpn))
    out = ssl.MemoryBIO()
    end = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=host)
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    return out.read()


def server_hello(*, tls13=True):
    extension = struct.pack("!HHH", 43, 2, 0x0304) if tls13 else b""
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\x13\x01\0" + struct.pack("!H", len(extension)) + extension
    return tls(22, b"\x02" + len(body).to_bytes(3, "big") + body)


def tls(kind, body):
    return bytes([kind, 3, 3]) + struct.pack("!H", len(body)) + body


def scan(data, sizes):
    seen = []
    scanner = RecordScanner(on_record=lambda *a: seen.append(a), on_hello=seen.append, on_alert=seen.append)
    for part in cut(data, sizes):
        scanner.feed(part)
    return seen, scanner.broken


# -- packets and messages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (protocol.SSL_REQUEST, Packet.SSL_REQUEST),
        (GSS, Packet.GSSENC_REQUEST),
        (CANCEL, Packet.CANCEL),
        (STARTUP, Packet.STARTUP),
        (struct.pack("!II", 8, 0x00030002), Packet.STARTUP),
        (struct.pack("!II", 8, 77), Packet.GARBAGE),
    ],
)
def test_packets(packet, kind):
    assert protocol.packet_kind(packet) is kind
    assert protocol.packet_length(packet) == len(packet) or kind is Packet.STARTUP


@given(st.lists(st.tuples(st.sampled_from([b"Q", b"p", b"X", b"d"]), st.binary(max_size=60)), max_size=8), sizes)
def test_messages_however_they_are_cut(messages, sizes):
    splitter = Splitter(8)
    data = b"".join(message(*one) for one in messages)
    found = [one for part in cut(data, sizes) for one in splitter.feed(part)]
    assert found == [(kind, body[:8]) for kind, body in messages]


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_nothing_that_is_fed_raises(parts):
    record = Record(1, "relay")
    observer, ladder, splitter = Observer(record), Ladder(record), Splitter()
    for n, part in enumerate(parts):
        (observer.up if n % 3 else observer.down)(part)
        (ladder.up if n % 2 else ladder.down)(part)
        splitter.feed(part)
    assert isinstance(record.snapshot(), Connection)


@given(st.binary(max_size=3000), sizes)
def test_the_scanner_survives_anything(data, sizes):
    scan(data, sizes)
    scan(b"\x16\x03\x01" + data, sizes)
    parse_hello(b"\x01" + data + b"\0")


@given(st.data())
def test_a_hello_that_was_tampered_with(data):
    hello = bytearray(client_hello()[5:])
    for _ in range(data.draw(st.integers(1, 6))):
        hello[data.draw(st.integers(1, len(hello) - 1))] = data.draw(st.integers(0, 255))
    assert parse_hello(bytes(hello[: data.draw(st.integers(1, len(hello)))])).client


def test_scram_challenge():
    assert protocol.scram_challenge(b"no nonce here") == b""
    answer = protocol.scram_challenge(b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=abcdef")
    assert b"r=abcdef" in answer
    assert answer.endswith(b",i=4096")


def test_without_binding():
    offered = protocol.ask_for_scram(tls=True) + b"more"
    assert protocol.without_binding(offered) == protocol.ask_for_scram(tls=False) + b"more"
    assert protocol.without_binding(b"E\0\0\0\x04") == b"E\0\0\0\x04"


# -- TLS ------------------------------------------------------------------------------------------------------------------------


@given(sizes)
def test_a_hello_however_it_is_cut(sizes):
    seen, broken = scan(client_hello(), sizes)
    assert not broken
    assert seen[1] == Hello(client=True, sni="db.example.test", alpn=("postgresql",), tls13=True)


def test_a_hello_over_several_records():
    body = client_hello()[5:]
    seen, broken = scan(b"".join(tls(22, part) for part in cut(body, [100])), [7])
    assert not broken
    assert [one.sni for one in seen if isinstance(one, Hello)] == ["db.example.test"]


def test_alerts_in_the_clear():
    seen, _ = scan(client_hello() + tls(21, b"\x02\x30") + tls(21, b"\x02\xc8") + tls(21, bytes(20)), [3])
    assert [one for one in seen if isinstance(one, str)] == ["unknown ca", "alert 200"]


# -- what is made of a relayed connection ----------------------------------------------------------------------------------------


def relayed(*, tls13):
    """A record, and its observer after SSLRequest and both hellos."""
    record = Record(1, "relay")
    observer = Observer(record)
    observer.up(protocol.SSL_REQUEST)
    observer.down(b"S")
    observer.up(client_hello())
    observer.down(server_hello(tls13=tls13))
    return record, observer


def play(record, observer, turns, *, tls13):
    """Records by their size in the clear: (direction, size)."""
    overhead = 17 if tls13 else 24
    for who, size in turns:
        (observer.up if who == "up" else observer.down)(tls(23, bytes(size + overhead)))
    return record


FINISHED, FLIGHT = ("up", 36), ("down", 900)


@pytest.mark.parametrize(
    ("turns", "established", "cancel"),
    [
        ([], False, False),
        ([("up", 100), ("down", 40), ("up", 60), ("down", 90), ("up", 110), ("down", 450)], True, False),  # SCRAM
        ([("up", 100), ("down", 400)], True, False),  # trust, or a client certificate
        ([("up", 100), ("down", 13), ("up", 41), ("down", 200), ("down", 210)], True, False),  # md5, two records
        ([("up", 100), ("down", 40), ("up", 60), ("down", 90), ("up", 110), ("down", 120)], False, False),  # wrong password
        ([("up", 100), ("down", 250)], False, False),  # no pg_hba.conf entry
        ([("up", 2)], False, False),  # an alert
        ([("up", 16), ("down", 2)], False, True),
        ([("up", 16)], False, True),
        ([("up", 16), ("down", 40), ("up", 60)], False, False),
    ],
)
@pytest.mark.parametrize("tls13", [True, False])
def test_established_is_told_by_lengths(turns, established, cancel, tls13):
    record, observer = relayed(tls13=tls13)
    play(record, observer, [*([FLIGHT, FINISHED] if tls13 else []), *turns], tls13=tls13)
    assert (record.established, record.cancel) == (established, cancel)
    assert record.reached is Rung.CLIENT_HELLO


def test_the_servers_first_flight_and_tickets_are_no_session():
    record, observer = relayed(tls13=True)
    play(record, observer, [FLIGHT, ("down", 5000), FINISHED, ("down", BURST + 500)], tls13=True)
    assert not record.established


@given(sizes)
def test_the_clear_start_however_it_is_cut(sizes):
    record = Record(1, "relay")
    observer = Observer(record)
    for part in cut(GSS, sizes):
        observer.up(part)
    observer.down(b"N")
    for part in cut(protocol.SSL_REQUEST, sizes):
        observer.up(part)
    observer.down(b"N")
    for part in cut(STARTUP, sizes):
        observer.up(part)
    for part in cut(protocol.authentication(0) + message(b"Z", b"I"), sizes):
        observer.down(part)
    for part in cut(message(b"Q", b"SELECT 1\0"), sizes):
        observer.up(part)
    assert (record.plaintext, record.established, record.tls, record.reached) == (True, True, False, Rung.QUERY)


@pytest.mark.parametrize(
    ("code", "rung"),
    [(3, Rung.PASSWORD), (5, Rung.PASSWORD), (10, Rung.STARTUP), (11, Rung.SCRAM_PROOF), (7, Rung.PASSWORD)],
)
def test_what_p_means_depends_on_what_was_asked(code, rung):
    record = Record(1, "x")
    record.reach(Rung.STARTUP)
    ladder = Ladder(record)
    ladder.down(protocol.authentication(code))
    ladder.up(message(b"p", b"anything"))
    assert record.reached is rung


# -- records and behaviours -----------------------------------------------------------------------------------------------------


def test_the_first_end_counts():
    record = Record(1, "relay")
    record.end("server", "FIN")
    record.end("client", "RST")
    record.finish()
    assert record.snapshot().ended_by == "server"
    assert record.snapshot() is record.snapshot()


def test_steps_are_bounded():
    record = Record(1, "relay")
    for n in range(1000):
        record.step(str(n))
    assert len(record.snapshot().steps) < 100


def test_old_records_are_dropped_and_counted_and_open_ones_are_not():
    ledger = Ledger(kept=100)
    first = ledger.open("relay")
    for _ in range(150):
        ledger.open("relay").finish()
    assert ledger.dropped > 0
    found = ledger.since(0.0)
    assert found[0].id == first.id
    assert len(found) + ledger.dropped == 151
    assert ledger.since(now()) == ()


def test_names(tmp_path):
    identity = Identity(name="expired", chain_file=tmp_path, key_file=tmp_path, fingerprint="", ca_file=tmp_path)
    assert [one.name for one in (Relay(), Impostor(identity), Impostor(identity, label="C1"), Stall("after_S"))] == [
        "relay", "impostor:expired", "impostor:C1", "stall:after_S",
    ]  # fmt: skip
    assert [Refuse(answer).name for answer in (b"N", b"Exyz", b"X", b"\xff", "eof")] == [
        "refuse:N", "refuse:E", "refuse:X", "refuse:ff", "refuse:eof",
    ]  # fmt: skip
    assert Refuse(b"N", label="P1").name == "refuse:P1"
