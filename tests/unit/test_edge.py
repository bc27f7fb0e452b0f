"""The edge experiment's parts: the relay, HTTP/2 as it is sent, requests translated to it, and the judgement of what was recorded."""

import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from chaos.cases import due, select
from chaos.certs import Authority, Entry
from chaos.checks import Limits, judge
from chaos.checks import edge as check
from chaos.environments.local import front
from chaos.errors import PartFailed, TargetFailed
from chaos.experiment import edge as edge_experiment
from chaos.model import History, Kind, Layer, Operation, Outcome
from chaos.processes import Reaper, free_port
from chaos.traffic import edge as through
from chaos.traffic import http2, poison
from chaos.traffic.host_names import HostNames
from chaos.traffic.http2 import Http2Request
from chaos.traffic.layers import Learned
from chaos.traffic.raw import RawAnswer, exchange, exchange_many
from chaos.traffic.relay import ASK, Relay

NAMES = HostNames(allowed=("api.example.test", "www.example.test"), seo=("*.landing.example.test",))


class Origin(BaseHTTPRequestHandler):
    """Serves the listed names, and says what it was asked with."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = (self.headers.get("host") or "").partition(":")[0].lower()
        good = name in NAMES.allowed or name.endswith(".landing.example.test")
        body = b'{"host": "%s"}' % name.encode() if good else b'{"title": "Unknown host", "status": 400}'
        self.send_response(200 if good else 400)
        self.send_header("Content-Type", "application/json" if good else "application/problem+json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    def log_message(self, *_):
        pass


@pytest.fixture
def origin():
    with ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def reaper():
    with Reaper("unit-edge") as made:
        yield made


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    authority = Authority.create(tmp_path_factory.mktemp("edge") / "certs")
    names = ("dns:api.example.test", "dns:*.landing.example.test", "dns:localhost")
    return authority.issue(Entry(name="edge", row="accept", must="connect", why="the edge's own", names=names))


@pytest.fixture
def edge(origin, reaper, identity, tmp_path):
    """Our Caddy before a relay before the origin."""
    with Relay(origin) as relay:
        running = front.caddy(relay.port, identity, reaper=reaper, directory=tmp_path)
        yield through.Edge(address=("127.0.0.1", running.port), relay=relay, learned=Learned())
        running.stop()


def get(host, *more, end="Connection: close\r\n"):
    return ("\r\n".join(["GET /one HTTP/1.1", f"Host: {host}", *more]) + f"\r\n{end}\r\n").encode()


# -- the relay --------------------------------------------------------------------------------------------------------------------


def test_the_relay_changes_nothing_and_keeps_both_sides(origin):
    with Relay(origin) as relay:
        one = get("api.example.test", f"{ASK}: h1.1", "X-Forwarded-Host: a, b", end="")
        two = get("evil.example", f"{ASK}: h1.2")
        answers = exchange_many(("127.0.0.1", relay.port), (one, two), timeout=5)
        seen = relay.asked()
    assert [answer.status for answer in answers] == [200, 400]
    assert [bytes(each.request) for each in relay.exchanges()] == [one, two]
    assert (seen["h1.1"].values("Host"), seen["h1.1"].start_line) == (("api.example.test",), "GET /one HTTP/1.1")
    assert seen["h1.1"].values("x-forwarded-host") == ("a, b",)
    assert [(each.answered().status, each.answered().body) for each in seen.values()] == [
        (answer.status, answer.body) for answer in answers
    ]


def test_the_relay_passes_on_what_is_no_http(origin):
    with Relay(origin) as relay, socket.create_connection(("127.0.0.1", relay.port), timeout=5) as plain:
        plain.sendall(b"\x00\x01\x02\r\n\r\n")
        said = plain.recv(4096)
    assert b"400" in said
    assert relay.exchanges()[0].answered().status in {None, 400}


def test_the_relay_ends_a_connection_whose_origin_is_not_there():
    with Relay(("127.0.0.1", free_port())) as relay:
        answer = exchange(("127.0.0.1", relay.port), get("api.example.test"), timeout=5)
    assert answer.error in {"closed", "reset"}
    assert relay.exchanges() == ()


def test_the_relay_leaves_no_thread(origin):
    before = threading.active_count()
    with Relay(origin) as relay:
        held = socket.create_connection(("127.0.0.1", relay.port), timeout=5)
        held.sendall(b"GET /one HTTP/1.1\r\n")
        time.sleep(0.05)
    held.close()
    end = time.monotonic() + 5
    while threading.active_count() > before + 1 and time.monotonic() < end:  # the origin's own may take a moment
        time.sleep(0.02)
    assert not [one for one in threading.enumerate() if one.name == "relay"]


def test_interim_answers_are_passed_over():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            plain, _ = listening.accept()
            plain.recv(4096)
            plain.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
            plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with Relay(listening.getsockname()) as relay:
            exchange(("127.0.0.1", relay.port), get("a"), timeout=5)
        thread.join()
    answered = relay.exchanges()[0].answered()
    assert (answered.status, answered.body) == (404, b"no")


# -- HTTP/2 -----------------------------------------------------------------------------------------------------------------------


def test_http2_says_what_http1_said():
    said = through.as_http2(
        b"POST /a?b HTTP/1.1\r\nHost: g\r\nX-One: 1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: e\r\n\r\n"
    )
    assert said == Http2Request(
        headers=((":method", "POST"), (":scheme", "https"), (":authority", "g"), (":path", "/a?b"), ("x-one", "1")),
        trailers=(("host", "e"),),
    )


def test_a_body_stays_one(edge):
    said = through.as_http2(b"POST /a HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nbody")
    assert (said.headers[-1], said.body, said.trailers) == (("content-length", "4"), b"body", ())
    http2.exchange_many(edge.address, [replace(said, headers=tuple(said.headers))], timeout=5, context=edge.h2)
    assert bytes(edge.relay.exchanges()[-1].request).endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: g\r\nHost: e\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: g\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : g\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\tg\t\r\n\r\n",
        b"GET http://g/ HTTP/1.1\r\nHost: g\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: g\n\n",
        b"GET / HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_what_http2_has_no_word_for_is_not_sent(request_):
    assert through.as_http2(request_) is None


def ask2(edge, *headers):
    request = Http2Request(headers=((":method", "GET"), (":scheme", "https"), *headers))
    return http2.exchange_many(edge.address, (request,), timeout=5, context=edge.h2, server_name="api.example.test")[0]


def test_http2_sends_what_no_library_would(edge):
    assert ask2(edge, (":authority", "api.example.test"), (":path", "/one")).status == 200
    assert ask2(edge, (":authority", "evil.example"), (":path", "/one")).status == 400
    two = ask2(edge, (":authority", "api.example.test"), (":authority", "evil.example"), (":path", "/one"))
    assert (two.status, two.error) == (None, "stream PROTOCOL_ERROR")
    assert ask2(edge, (":authority", "api.example.test"), (":path", "/one"), ("host", "evil.example")).status != 200
    assert ask2(edge, (":path", "/one")).status == 400
    assert [one.values("host") for one in edge.relay.exchanges()] == [("api.example.test",), ("evil.example",)]


def test_http2_keeps_a_connection(edge):
    asked = [
        Http2Request(headers=((":method", "GET"), (":scheme", "https"), (":authority", name), (":path", "/one")))
        for name in ("api.example.test", "evil.example", "www.example.test")
    ]
    answers = http2.exchange_many(edge.address, asked, timeout=5, context=edge.h2, server_name="api.example.test")
    assert [one.status for one in answers] == [200, 400, 200]


def test_no_http2_is_told(origin, edge):
    """A server that speaks no TLS at all, and one that was offered HTTP/1.1 only."""
    refused = http2.exchange_many(("127.0.0.1", free_port()), [Http2Request(headers=())], timeout=5, context=edge.h2)
    assert refused[0].error == "refused"
    plain = http2.exchange_many(origin, [Http2Request(headers=())], timeout=5, context=edge.h2)
    assert plain[0].error in {"tls", "reset"}
    other = http2.context()
    other.set_alpn_protocols(["http/1.1"])
    answers = http2.exchange_many(edge.address, [Http2Request(headers=())], timeout=5, context=other)
    assert answers[0].error == "no h2"


# -- an edge that does not come up ------------------------------------------------------------------------------------------------


def test_an_edge_that_ends_or_speaks_no_tls_is_said_with_its_last_words(origin, reaper, tmp_path):
    given = {"reaper": reaper, "cwd": tmp_path, "env": {}, "log": tmp_path / "log"}
    with pytest.raises(TargetFailed, match=r"chaos\.toml:7: the edge ended: exit status 3"):
        front.Front(["/bin/sh", "-c", "exit 3"], port=free_port(), where="chaos.toml:7", **given)
    with pytest.raises(PartFailed, match="does not speak TLS on .* after 0.3 s: no TLS"):
        front.Front(["/bin/sleep", "30"], port=origin[1], patience=0.3, **given)


# -- judged -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def history(edge):
    """The whole experiment against a healthy origin behind our own Caddy."""
    words = through.words_for(NAMES, seed=1, path="/one", headers=(), others=(), health=())
    found = [*through.observe(edge, words, "h1", per_class=7), *through.observe(edge, words, "h2", per_class=7)]
    facts = {"edge.h1.adds": through.own_forwarding(found, edge.relay), "edge.per_class": "7"}

    def ask(request):
        return edge.ask_raw(request, "api.example.test")

    found += poison.attempts(ask, words, "h1")
    found += [replace(one, client="origin") for one in poison.attempts(ask, words, "origin")]
    return History(experiment="edge", started=0.0, operations=tuple(found), facts=facts)


def outcomes(history, *wanted):
    found = {one.check: one for one in check.judge(history)}
    return {name: found[name].outcome for name in wanted}


def changed(history, which, **to):
    """The history with the operations that `which(operation)` names replaced."""
    return replace(history, operations=tuple(replace(one, **to) if which(one) else one for one in history.operations))


def test_a_healthy_edge_passes_and_each_lie_fails_its_own_check(history):
    found = {one.check: one for one in check.judge(history)}
    bad = {name: one for name, one in found.items() if one.outcome in {Outcome.FAIL, Outcome.INCONCLUSIVE}}
    # This origin takes what the edge makes of odd requests for what it is; nothing of that is the edge's.
    assert not {name for name in bad if found[name].gate == "sec.waf"}, bad
    for version in ("h1", "h2"):
        for name in ("H73", "forwarded", "signal", "served"):
            assert found[f"edge.{version}.{name}"].outcome is Outcome.PASS
            assert found[f"edge.{version}.{name}"].n > 0
        assert found[f"edge.{version}.H01"].outcome is Outcome.PASS
        assert found[f"edge.{version}.H61"].outcome is Outcome.PASS
    assert found["edge.h2.H45"].outcome is Outcome.PASS
    assert found["edge.origin.H47"].outcome is found["edge.h1.H47"].outcome is Outcome.PASS

    def unknown(one):
        return one.row == "H01" and one.client.startswith("h2.")

    rewritten = changed(history, lambda one: one.client.startswith("wire.h1.") and one.row == "H61", sample="127.0.0.1:80")
    assert outcomes(rewritten, "edge.h1.H73", "edge.h2.H73") == {"edge.h1.H73": Outcome.FAIL, "edge.h2.H73": Outcome.PASS}
    hidden = changed(history, unknown, layer=Layer.EDGE, status=403)
    assert outcomes(hidden, "edge.h2.signal", "edge.h2.H01", "edge.h1.signal") == {
        "edge.h2.signal": Outcome.FAIL,
        "edge.h2.H01": Outcome.PASS,
        "edge.h1.signal": Outcome.PASS,
    }
    served = changed(history, unknown, layer=Layer.EDGE, status=200)
    assert outcomes(served, "edge.h2.H01", "edge.h2.signal") == {"edge.h2.H01": Outcome.FAIL, "edge.h2.signal": Outcome.PASS}
    turned = changed(history, lambda one: one.row == "H65" and one.client.startswith("h1."), layer=Layer.EDGE, status=404)
    assert outcomes(turned, "edge.h1.served", "edge.h2.served") == {
        "edge.h1.served": Outcome.FAIL,
        "edge.h2.served": Outcome.PASS,
    }
    passed = changed(history, lambda one: one.row == "H35" and one.client.startswith("wire."), error="x-forwarded-host")
    assert outcomes(passed, "edge.h1.forwarded", "edge.h2.forwarded") == dict.fromkeys(
        ("edge.h1.forwarded", "edge.h2.forwarded"), Outcome.FAIL
    )
    mute = replace(passed, facts={**history.facts, "edge.h1.adds": ""})  # an edge that never says it: nothing to mistake
    assert outcomes(mute, "edge.h1.forwarded") == {"edge.h1.forwarded": Outcome.NOT_APPLICABLE}
    poisoned = changed(history, lambda one: one.row == "H47" and one.client == "origin", error="poisoned in link: x")
    assert outcomes(poisoned, "edge.origin.H47", "edge.h1.H47") == {"edge.origin.H47": Outcome.FAIL, "edge.h1.H47": Outcome.PASS}
    kept = changed(history, lambda one: one.row == "H47" and one.client == "h1" and one.path == "/one", status=400)
    assert outcomes(kept, "edge.h1.H47") == {"edge.h1.H47": Outcome.FAIL}


def test_what_says_nothing_is_no_pass(history):
    """An edge that cannot reach the origin; an edge that sends users of a listed host's connection away; no HTTP/2."""
    no_answer = changed(history, lambda one: one.client.startswith("h1."), layer=Layer.EDGE, status=502)
    without = replace(no_answer, operations=tuple(one for one in no_answer.operations if not one.client.startswith("wire.h1.")))
    found = {
        one.check: one.outcome for one in check.judge(without) if one.check.startswith("edge.h1.") and "H47" not in one.check
    }
    assert Outcome.FAIL not in found.values()
    assert found["edge.h1.H73"] is found["edge.h1.signal"] is found["edge.h1.served"] is Outcome.INCONCLUSIVE
    sent_away = changed(history, lambda one: one.row in {"SNI1", "SNI4"}, layer=Layer.EDGE, status=421)
    assert outcomes(sent_away, "edge.h1.signal") == {"edge.h1.signal": Outcome.PASS}
    assert outcomes(replace(history, facts={**history.facts, "edge.h2": "no"}), "edge.h2.H73") == {
        "edge.h2.H73": Outcome.NOT_APPLICABLE
    }
    nothing = replace(history, operations=())
    assert {one.outcome for one in check.judge(nothing)} == {Outcome.INCONCLUSIVE}


def test_few_of_a_class_settle_no_rate_and_many_do(history):
    name = "edge.h1.400.unknown"
    assert outcomes(history, name) == {name: Outcome.NOT_APPLICABLE}
    one = next(one for one in history.operations if one.row == "H01" and one.client.startswith("h1."))
    many = [replace(one, client=f"h1.m{number}") for number in range(320)]
    full = replace(history, operations=(*history.operations, *many), facts={**history.facts, "edge.per_class": "320"})
    assert outcomes(full, name) == {name: Outcome.PASS}
    wrong = changed(full, lambda one: one.client.startswith("h1.m"), status=404, layer=Layer.APPLICATION)
    assert outcomes(wrong, name) == {name: Outcome.FAIL}


def test_a_cache_is_seen_through(origin):
    """A cache that keys by path alone in front of an application that builds a link from X-Forwarded-Host."""
    kept = {}

    def ask(request):
        lines = request.decode().split("\r\n")
        named = next((line.partition(": ")[2] for line in lines if line.startswith("X-Forwarded-Host")), "api.example.test")
        answer = RawAnswer(status=200, headers=(("link", f"<https://{named}/>"),))
        return kept.setdefault(lines[0], answer), Layer.APPLICATION

    words = through.words_for(NAMES, seed=1, path="/one", headers=(), others=(), health=())
    tried = poison.attempts(ask, words, "origin")
    judged = next(one for one in check.judge(History(experiment="edge", started=0.0, operations=tried)) if "origin" in one.check)
    assert (judged.outcome, judged.gate) == (Outcome.FAIL, "sec.pentest")
    assert "X-Forwarded-Host" in judged.examples[0]
    assert {one.kind for one in tried} == {Kind.HOST}
    assert all(isinstance(one, Operation) for one in tried)


# -- named ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("edge", {"edge"}),
        ("edge-full", {"edge-full"}),
        ("edge.h1.H73", {"edge"}),
        ("edge.origin.H47", {"edge"}),
        ("edge.h2.400.bad", {"edge", "edge-full"}),
        ("sec.waf", {"edge"}),
    ],
)
def test_what_only_takes(name, cases):
    assert {case.id for case in select((name,)) if due(case, (name,), "quick")} == cases


def test_a_night_runs_all_of_each_class():
    assert {case.id for case in select(()) if case.family == "edge" and due(case, (), "nightly")} == {"edge", "edge-full"}
    assert {case.id for case in select(()) if case.family == "edge" and due(case, (), "quick")} == {"edge"}


def test_every_row_of_its_own_is_sent_and_judged(history):
    """No row of edge.toml is only written down."""
    asked = {one.row for one in history.operations}
    assert {row.id for row in check.own_rows()} <= asked
    found = {one.check for one in check.judge(history)}
    assert all({f"edge.h1.{row.id}", f"edge.h2.{row.id}"} & found for row in check.own_rows())


def test_what_runs_elsewhere_is_not_applicable_and_says_so():
    case = next(case for case in select(("edge",)))
    facts = {"gate": case.gate, "family": case.family}
    recording = SimpleNamespace(facts=facts, history=lambda: History(experiment=case.id, started=0.0, facts=facts))
    rig = SimpleNamespace(ours=False)
    (found,) = judge(edge_experiment.edge(rig, case, recording), Limits())
    assert (found.outcome, found.gate) == (Outcome.NOT_APPLICABLE, "sec.waf")
    assert "[target] url" in found.detail
