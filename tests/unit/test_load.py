"""The open loop in parts: arrivals, records, the crawler's walk, the client's connections, the requests of a mix."""

import asyncio
import gzip
import itertools
import json
import random
import ssl
from dataclasses import replace
from types import SimpleNamespace

import pytest
import trustme
import yaml

from chaos import gates as policy
from chaos.config import Target
from chaos.errors import ChaosError, UsageError
from chaos.histogram import Histogram, merged
from chaos.model import Interval, Kind
from chaos.traffic.load import LoadPlan, Mix, provider_keys
from chaos.traffic.load.arrivals import Arrivals
from chaos.traffic.load.client import Client
from chaos.traffic.load.crawl import AGAIN, PAGE, ROBOTS, SITEMAP, Crawl, Robots
from chaos.traffic.load.locustfile import locustfile, manifest
from chaos.traffic.load.merging import Merging
from chaos.traffic.load.plan import HOST, UNIQUE, orders
from chaos.traffic.load.recording import KEPT, Recorder, Tally
from chaos.traffic.load.requests import Requests
from chaos.traffic.load.sender import Sender


def target(**more):
    keys = {
        "name": "orders",
        "url": "http://127.0.0.1:1",
        "live": "/live",
        "read": [{"path": "/items/1"}],
        "hosts": {"allowed": ["api.example.test"], "seo": ["*.landing.example.test"]},
    }
    return Target.model_validate(keys | more)


def taken(arrivals, until):
    found = []
    while arrivals.due < until:
        found.append(arrivals.take())
    return found


# -- arrivals ---------------------------------------------------------------------------------------------------------------------


def test_arrivals_are_the_same_for_the_same_seed_and_come_at_the_rate():
    one, two = (Arrivals(seed=5, weights=[3, 1], rate=100, start=10.0) for _ in range(2))
    found = taken(one, 110.0)
    assert found == taken(two, 110.0)
    assert 9_600 < len(found) < 10_400  # four standard deviations
    assert 0.72 < sum(which == 0 for _, which in found) / len(found) < 0.78
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(found)]
    assert 0.9 < sum(gap > 0.01 for gap in gaps) / len(gaps) / 0.3679 < 1.1  # exponential: exp(-1) of them exceed the mean


def test_several_senders_of_one_seed_send_each_arrival_once_also_after_another_rate():
    whole = Arrivals(seed=9, weights=[1, 1, 1], rate=50, start=0.0)
    parts = [Arrivals(seed=9, weights=[1, 1, 1], rate=50, start=0.0, turn=(i, 3)) for i in range(3)]
    assert sorted(itertools.chain(*(taken(one, 20.0) for one in parts))) == taken(whole, 20.0)
    for one in (whole, *parts):
        one.change(200, 20.0)
    assert sorted(itertools.chain(*(taken(one, 25.0) for one in parts))) == taken(whole, 25.0)


def test_a_rate_of_zero_stops_and_what_is_skipped_is_counted():
    arrivals = Arrivals(seed=1, weights=[1], rate=10, start=0.0, paced=True)
    assert [at for at, _ in taken(arrivals, 0.35)] == pytest.approx([0.1, 0.2, 0.3])
    assert arrivals.skip(1.05) == 7
    arrivals.change(0, 2.0)
    assert arrivals.due == float("inf")
    arrivals.change(2, 5.0)
    assert arrivals.due == pytest.approx(5.5)


# -- records ----------------------------------------------------------------------------------------------------------------------


def recorder(**more):
    return Recorder(**({"started": 100.0, "every": 10.0, "origin": 0.0, "limits": (0.12, 0.3), "machine": "m", "seed": 1} | more))


def sent(made, at, *, latency=0.01, good=True, status="200", lag=0.001):
    home = made.settled(made.due(at))
    made.count(made.cell(home, "read[0]", Kind.READ), status=status, good=good, latency=latency, lag=lag)


def finished(made, now):
    return [one for stretch, ends in (*made.over(now), *made.last(now)) for one in made.intervals(stretch, ends)]


def test_a_tally_holds_what_the_histogram_holds():
    dice, tally, whole = random.Random(3), Tally(), Histogram()
    for _ in range(5_000):
        value = dice.lognormvariate(-4, 2)
        tally.record(value)
        whole.record(value)
    assert Histogram(tally.text()).quantile(0.5) == whole.quantile(0.5)
    assert tally.text() == whole.text()


def test_requests_belong_to_the_stretch_they_were_due_in_and_limits_count_exactly():
    made = recorder()
    slow = made.due(109.9)
    sent(made, 111.0, latency=0.12)
    sent(made, 111.1, latency=0.1200001, good=False, status="timeout")
    assert not [*made.over(115.0)]  # one of the first stretch is under way
    made.count(made.cell(made.settled(slow), "read[0]", Kind.READ), status="200", good=True, latency=4.0, lag=0.0)
    first, second = finished(made, 120.0)
    assert (first.started, first.seconds, first.planned, first.over) == (100.0, 10.0, 1, {"0.12": 1, "0.3": 1})
    assert (second.planned, second.sent, second.good, second.statuses) == (2, 2, 1, {"200": 1, "timeout": 1})
    assert second.over == {"0.12": 1, "0.3": 0}
    assert merged([first.latency]).quantile(1.0) == pytest.approx(4.0, rel=0.001)


def test_what_is_under_way_when_something_breaks_belongs_to_the_fault_and_not_the_other_way_round():
    made = recorder()
    hit = made.due(103.0)
    made.mark("fault", 104.0)
    late = made.due(104.5)
    made.mark("steady", 106.0)
    for one in (hit, late):
        made.count(made.cell(made.settled(one), "read[0]", Kind.READ), status="timeout", good=False, latency=5.0, lag=0.0)
    sent(made, 107.0)
    found = {(one.stratum, one.started): (one.seconds, one.planned, one.good) for one in finished(made, 110.0)}
    assert found == {("steady", 100.0): (4.0, 0, 0), ("fault", 104.0): (2.0, 2, 0), ("steady", 106.0): (4.0, 1, 1)}


def test_what_was_not_sent_is_dropped_and_where_nobody_was_is_not_covered():
    made = recorder(origin=95.0)
    made.drop(101.0, "read[0]", Kind.READ, "too many under way", 3)
    made.away(104.0, 106.0)
    first, second = finished(made, 110.0)
    assert (first.started, first.seconds) == (100.0, 5.0)  # intervals are counted from the origin
    assert (first.planned, first.sent, first.dropped, first.good) == (3, 0, 3, 0)
    assert first.covered == pytest.approx(0.8)
    assert (second.planned, second.covered) == (0, pytest.approx(0.8))


def test_a_stretch_keeps_a_bounded_choice():
    made = recorder()
    for number in range(1_000):
        made.now.failed.offer(lambda number=number: number)
    assert len(made.now.failed.kept) == KEPT
    assert max(made.now.failed.kept) > 500  # not the first ones only


# -- the crawler ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("User-agent: *\nDisallow: /", "/a", False),
        ("User-agent: *\nDisallow: /\nAllow: /a", "/a/b", True),  # the longest match decides
        ("User-agent: *\nDisallow: /a\nAllow: /a", "/a", True),  # of two as long ones the one that allows
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/x/y.pdf?z", True),
        ("User-agent: *\nDisallow:", "/a", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: chaosgatebot\nDisallow: /b", "/a", True),  # its own group, and no other
        ("User-agent: other\nUser-agent: ChaosGateBot\nDisallow: /b # all of it", "/b", False),
        ("User-agent: other\nDisallow: /", "/a", True),
        ("User-agent: *\nDisallow: /caf%C3%A9", "/café", False),
        ("<html>no robots</html>", "/a", True),
    ],
)
def test_robots_txt_is_read_as_rfc_9309_has_it(text, path, allowed):
    assert Robots(text, "Mozilla/5.0 (compatible; ChaosGateBot/1.0)").allows(path) is allowed


class Site:
    """Answers by path; counts what is asked."""

    def __init__(self, **answers):
        self.answers = {path.replace("__", "/"): answer for path, answer in answers.items()}
        self.asked = []

    def walk(self, crawl, steps, now=0.0):
        good = []
        for _ in range(steps):
            step = crawl.next(now)
            status, body, *headers = self.answers.get(step.path, (404, b""))
            self.asked.append((step.site.host, step.path, step.what))
            good.append(crawl.done(step, status, headers[0] if headers else {}, body, now))
        return good


def crawl_of(*hosts):
    return Crawl(hosts=hosts or ("a.landing.example.test",), patterns=("*.landing.example.test",), agent="ChaosGateBot/1.0")


def test_a_crawler_walks_robots_sitemap_index_and_pages_and_stays_on_the_targets_hosts():
    index = b"<?xml version='1.0'?><sitemapindex><sitemap><loc>https://a.landing.example.test/one.xml.gz</loc></sitemap></sitemapindex>"
    places = ["https://a.landing.example.test/p?x=1&amp;y=2", "https://b.landing.example.test/", "https://elsewhere.example/no"]
    urls = "".join(
        f"<url><loc> {place}\n</loc></url>" for place in [*places, "https://a.landing.example.test/private/x"]
    ).encode()
    site = Site(
        **{
            "/robots.txt": (200, b"User-agent: *\nDisallow: /private\nSitemap: https://a.landing.example.test/index.xml"),
            "/index.xml": (200, index),
            "/one.xml.gz": (200, gzip.compress(b"<urlset>" + urls + b"</urlset>")),
            "/p?x=1&y=2": (200, b"page"),
            "/": (200, b"home"),
        }
    )
    assert all(site.walk(crawl_of(), 20))
    hosts = {host for host, _, _ in site.asked}
    assert hosts == {"a.landing.example.test", "b.landing.example.test"}
    paths = {(path, what) for _, path, what in site.asked}
    assert {
        ("/robots.txt", ROBOTS),
        ("/index.xml", SITEMAP),
        ("/one.xml.gz", SITEMAP),
        ("/p?x=1&y=2", PAGE),
        ("/", PAGE),
    } <= paths
    assert not any(path.startswith("/private") or path == "/no" for path, _ in paths)
    for host in hosts:
        assert next(what for asked, _, what in site.asked if asked == host) == ROBOTS  # before anything else of that host


def test_a_page_that_never_was_accuses_nobody_and_one_that_was_does():
    site = Site(**{"/robots.txt": (404, b""), "/sitemap.xml": (404, b""), "/": (404, b"")})
    crawl = crawl_of()
    assert all(site.walk(crawl, 6))
    assert [path for _, path, _ in site.asked].count("/") == 1  # and then never again
    site = Site(**{"/robots.txt": (404, b""), "/": (200, b"")})
    crawl = crawl_of()
    assert all(site.walk(crawl, 4))
    site.answers["/"] = (404, b"")
    assert not any(site.walk(crawl, 2))
    site.answers["/"] = (503, b"")
    assert not any(site.walk(crawl, 2))


@pytest.mark.parametrize("status", [None, 500, 503, 400])
def test_without_robots_txt_nothing_else_is_asked_and_what_was_read_holds(status):
    site = Site(**{"/robots.txt": (status, b""), "/": (200, b"")})
    crawl = crawl_of()
    assert not any(site.walk(crawl, 4))
    assert {path for _, path, _ in site.asked} == {"/robots.txt"}
    site.answers["/robots.txt"] = (200, b"User-agent: *\nDisallow: /secret")
    site.walk(crawl, 3)
    site.answers["/robots.txt"] = (status, b"")
    site.asked.clear()
    site.walk(crawl, 6, now=AGAIN + 1)
    assert "/" in {path for _, path, _ in site.asked}


def test_a_robots_txt_that_moves_about_and_a_bomb_end():
    site = Site(**{"/robots.txt": (301, b"", {"location": "/robots.txt"}), "/": (200, b"")})
    crawl = crawl_of()
    assert all(site.walk(crawl, 12))
    assert "/" in {path for _, path, _ in site.asked}
    bomb = gzip.compress(b"<urlset>" + b"<url><loc>/x</loc></url>" * 2_000_000)
    site = Site(**{"/robots.txt": (404, b""), "/sitemap.xml": (200, bomb), "/": (200, b""), "/x": (200, b"")})
    assert all(site.walk(crawl_of(), 8))


# -- the client -------------------------------------------------------------------------------------------------------------------


def talk(behave, work, *, kept=False, tls=None, deadline=5.0):
    """What `work(client)` returns, with a server that does `behave(reader, writer)` on each connection."""

    async def go():
        async def serve(reader, writer):
            try:
                await behave(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        scheme = "https" if tls else "http"
        client = Client(scheme=scheme, host="localhost", port=server.sockets[0].getsockname()[1], deadline=deadline, kept=kept)
        async with server:
            found = await work(client)
            client.close()
            await asyncio.sleep(0.05)
        return found

    return asyncio.run(go())


def once(raw, method="GET"):
    async def behave(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return talk(behave, lambda client: client.ask(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode(), method=method, kept=100))


@pytest.mark.parametrize(
    ("raw", "method", "status", "body", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "GET", 200, b"body", ""),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", "GET", 200, b"to the end", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", "GET", 200, b"body", ""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "GET", 204, b"", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n", "HEAD", 200, b"", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nbody", "GET", None, b"", "closed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", "GET", None, b"", "closed"),
        (b"", "GET", None, b"", "closed"),
        (b"SSH-2.0-x\r\n", "GET", None, b"", "closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n" + b"x" * 300, "GET", 200, b"x" * 100, ""),
    ],
)
def test_answers_are_read_whole_or_there_is_none(raw, method, status, body, error):
    answer = once(raw, method)
    assert (answer.status, answer.body if status else b"", answer.error) == (status, body, error)


def test_nobody_there_silence_and_tls():
    async def nobody():
        return await Client(scheme="http", host="127.0.0.1", port=1, deadline=2.0).ask(b"GET / HTTP/1.1\r\n\r\n", method="GET")

    assert asyncio.run(nobody()).error == "refused"

    async def silent(reader, _writer):
        await reader.read()

    asked = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    assert talk(silent, lambda client: client.ask(asked, method="GET"), deadline=0.3).error == "timeout"

    async def polite(reader, writer):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    assert talk(polite, lambda client: client.ask(asked, method="GET"), tls=context).status == 200
    assert talk(polite, lambda client: client.ask(asked, method="GET"), tls=context, kept=True).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_that_is_closed_at_the_same_moment_accuses_nobody_and_a_write_is_never_sent_twice(method):
    """The server answers once a connection, says nothing of closing it, and hangs up on the next request."""
    connections, requests = [], []

    async def behave(reader, writer):
        connections.append(1)
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

    async def work(client):
        wire = f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        return [(await client.ask(wire, method=method)).status for _ in range(4)], client.resent

    statuses, resent = talk(behave, work, kept=True)
    assert statuses == [200] * 4
    assert len(connections) == 4
    assert resent == (3 if method == "GET" else 0)


def test_a_kept_connection_that_breaks_off_in_an_answer_counts():
    async def behave(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    async def work(client):
        asked = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        return [(await client.ask(asked, method="GET")).status for _ in range(2)]

    assert talk(behave, work, kept=True) == [200, None]


# -- the mix ----------------------------------------------------------------------------------------------------------------------


FULL = {
    "headers": {"Authorization": "Bearer {token}"},
    "read": [{"path": "/items/1"}, {"path": "/partner/items", "headers": {"X-Api-Key": "the-partners-key"}}],
    "write": [{"path": "/items", "json": {"name": "{unique}"}, "idempotency_header": "Idempotency-Key"}],
    "invalid": [{"path": "/items/x", "expect": [400, 422]}],
}


def test_orders_hold_every_request_of_the_mix_ready_to_be_sent():
    plan = LoadPlan(target=target(**FULL), base_url="http://127.0.0.1:80", rate=10, values={"token": "the-token-itself"})
    told = json.loads(json.dumps(orders(plan)))
    by_key = {one["key"]: one for one in told["requests"]}
    assert set(by_key) == {"read[0]", "read[1]", "write[0]", "invalid[0]", "unknown-host", "seo"}
    assert sum(one["weight"] for one in told["requests"]) == pytest.approx(1.0)
    write = by_key["write[0]"]["wire"]
    assert "X-Synthetic: chaos-gate" in write
    assert write.count(UNIQUE) == 2  # the body's and the idempotency key
    assert "X-Synthetic" not in by_key["read[0]"]["wire"]
    assert "Authorization: Bearer the-token-itself" in by_key["unknown-host"]["wire"]
    assert f"Host: {HOST}" in by_key["unknown-host"]["wire"]
    assert by_key["unknown-host"]["accepts"] == [[400, 400]]
    assert by_key["invalid[0]"]["accepts"] == [[400, 400], [422, 422]]
    assert "Authorization" not in by_key["seo"]["wire"]
    assert "ChaosGateBot" in by_key["seo"]["wire"]
    assert set(told["private"]) == {"Bearer the-token-itself", "the-token-itself", "the-partners-key"}
    assert len(set(told["unknown"])) > 150
    assert not any(name.endswith(".landing.example.test") or name == "api.example.test" for name in told["unknown"])


def test_partners_calls_are_those_that_are_named_or_carry_a_credential_of_their_own():
    assert provider_keys(target(**FULL)) == {"read[1]"}
    assert provider_keys(target(**FULL, provider=["/items*"])) == {"read[0]", "write[0]"}
    assert provider_keys(target(**(FULL | {"read": [{"path": "/a"}]}))) == {"read[0]", "write[0]"}  # each carries the target's
    assert provider_keys(target()) == frozenset()
    with pytest.raises(ValueError, match="no pattern of a path"):
        target(provider=["partner/*"])


def test_a_share_that_a_target_has_nothing_of_is_left_out_and_nothing_at_all_is_said():
    plan = LoadPlan(target=target(hosts=None), base_url="http://127.0.0.1:80", rate=10)
    assert [one["key"] for one in orders(plan)["requests"]] == ["read[0]"]
    with pytest.raises(UsageError, match="nothing to be sent"):
        orders(replace(plan, mix=Mix(reads=0)))
    with pytest.raises(UsageError, match="no address"):
        orders(replace(plan, base_url="127.0.0.1:80"))


def test_limits_are_those_of_the_gates():
    gates = policy.load()
    assert LoadPlan(target=target(), base_url="http://x", rate=1).limits == (gates["rel.p95"].seconds, gates["rel.p99"].seconds)


def test_each_request_is_another_one_and_secrets_are_taken_out_of_what_is_kept():
    plan = LoadPlan(target=target(**FULL), base_url="http://127.0.0.1:80", rate=10, values={"token": "the-token-itself"})
    made = Requests(orders(plan))
    which = [one.key for one in made.orders].index("write[0]")
    two = [made.make(which, 1.0, 1.0) for _ in range(2)]
    assert two[0].unique != two[1].unique
    assert two[0].wire.count(two[0].unique.encode()) == 2
    assert UNIQUE.encode() not in two[0].wire

    class Refusal:
        status, error, headers, body = 500, "", {"retry-after": "3"}, b"you said Bearer the-token-itself"

    made.judge(two[0], Refusal)
    kept = made.operation(two[0], Refusal)
    assert (kept.ok, kept.status, kept.unique, kept.retry_after, kept.body) == (False, 500, two[0].unique, "3", "you said ***")


def test_who_answered_is_known_by_a_header():
    plan = LoadPlan(
        target=target(), base_url="http://x", rate=1, release_header="X-Chaos-Upstream", releases={"1:2": "candidate"}
    )

    class Answer:
        headers = {"x-chaos-upstream": "1:2"}

    assert Requests(orders(plan)).release(Answer) == "candidate"
    Answer.headers = {"x-chaos-upstream": "1:3"}
    assert Requests(orders(plan)).release(Answer) == ""
    assert Requests(orders(replace(plan, releases={}))).release(Answer) == "1:3"


# -- the loop ---------------------------------------------------------------------------------------------------------------------


def run(plan, work, behave):
    """Intervals and operations of a sender that is steered by `work(sender)`, against `behave(reader, writer)`."""
    kept = ([], [])

    async def go():
        server = await asyncio.start_server(behave, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        told = orders(replace(plan, base_url=f"http://127.0.0.1:{port}"))
        async with server:
            sender = Sender(told, epoch=0.0, keep=lambda some, few, _until: (kept[0].extend(some), kept[1].extend(few)))
            sender.start()
            await work(sender)
            await sender.stop()
        return sender

    sender = asyncio.run(go())
    return sender, *kept


async def answering(reader, writer):
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def hanging(reader, writer):
    await reader.read()
    writer.close()


def small(**more):
    return LoadPlan(target=target(hosts=None), **({"base_url": "", "rate": 100, "every": 0.3, "seed": 3} | more))


def test_nothing_that_was_due_is_left_out_and_a_pause_is_not_covered():
    async def work(sender):
        await asyncio.sleep(0.75)
        sender.rate(0)
        await asyncio.sleep(0.6)
        sender.rate(100)
        await asyncio.sleep(0.2)

    _, intervals, operations = run(small(), work, answering)
    assert all(one.planned == one.sent == one.good for one in intervals)
    assert 40 < sum(one.planned for one in intervals) < 160
    assert not operations
    assert (
        0.3 < sum(one.seconds * (1 - one.covered) for one in intervals) + 0.3 < 1.6
    )  # a stretch that is all pause has no interval
    starts = [one.started for one in intervals]
    assert starts == sorted(starts)
    assert all(abs(after.started - before.started) >= 0.29 for before, after in itertools.pairwise(intervals))


def test_too_many_under_way_are_dropped_and_time_outs_are_counted_from_the_plan():
    async def work(sender):
        await asyncio.sleep(0.5)

    _, intervals, operations = run(small(most=10, deadline=0.4), work, hanging)
    dropped = sum(one.statuses.get("too many under way", 0) for one in intervals)
    assert dropped == sum(one.dropped for one in intervals) > 10
    assert sum(one.planned for one in intervals) == sum(one.sent + one.dropped for one in intervals)
    assert {one.error for one in operations} == {"timeout"}
    assert merged(one.latency for one in intervals).quantile(0.0001) >= 0.39
    assert sum(one.good for one in intervals) == 0


def test_absence_is_not_held_against_the_target():
    """The loop is held up for longer than a second, as by SIGSTOP: what was due meanwhile was not planned."""
    import time

    async def work(sender):
        await asyncio.sleep(0.4)
        time.sleep(1.3)  # noqa: ASYNC251
        await asyncio.sleep(0.4)

    sender, intervals, _ = run(small(every=30.0), work, answering)
    (one,) = intervals
    assert one.planned == one.good == one.sent
    assert one.dropped == 0
    assert sender.counts["absent"] > 50
    assert one.covered < 0.6
    assert merged([one.latency]).quantile(1.0) < 1.0


def test_a_sender_that_cannot_keep_up_says_so_and_accuses_nobody():
    async def work(_sender):
        await asyncio.sleep(2.0)

    sender, intervals, _ = run(small(every=30.0, rate=30_000), work, answering)
    (one,) = intervals
    assert one.planned == one.sent + one.dropped
    assert one.dropped == one.statuses.get("too many under way", 0)
    assert sender.counts["absent"] > 1_000
    assert one.covered < 0.95
    assert merged([one.lag]).quantile(1.0) < 3.0


def test_other_orders_are_obeyed_from_now_on():
    async def work(sender):
        await asyncio.sleep(0.2)
        told = orders(replace(small(), base_url="http://127.0.0.1:1"))
        sender.change(told)
        await asyncio.sleep(0.3)

    _, intervals, _ = run(small(every=30.0), work, answering)
    assert set(intervals[0].statuses) == {"200", "refused"}


def test_bad_orders_end_in_words():
    with pytest.raises(ChaosError):
        orders(LoadPlan(target=target(), base_url="", rate=1))


# -- several machines -------------------------------------------------------------------------------------------------------------


def part(started, machine, *, planned=3, seconds=10.0, covered=1.0, stratum="steady", latency=(0.01, 0.02, 0.5)):
    whole = Histogram()
    for one in latency:
        whole.record(one)
    return Interval(
        started=started,
        seconds=seconds,
        sample="read[0]",
        kind=Kind.READ,
        stratum=stratum,
        machine=machine,
        planned=planned,
        sent=planned,
        good=planned - 1,
        statuses={"200": planned - 1, "timeout": 1},
        over={"0.12": 1, "0.3": 1},
        latency=whole.text(),
        lag=whole.text(),
        covered=covered,
    )


def test_what_several_machines_recorded_adds_up_without_loss():
    merging = Merging(["a", "b"], patience=5.0)
    dice, values = random.Random(1), {"a": [], "b": []}
    for name, many in values.items():
        many += [dice.expovariate(20) for _ in range(500)]
        merging.heard(name, 110.0)
        merging.said(name, [part(100.0, name, planned=500, latency=many)], until=110.0, number=1)
    (one,) = merging.complete(110.0)
    whole = Histogram()
    for value in values["a"] + values["b"]:
        whole.record(value)
    assert one.latency == whole.text()
    assert (one.planned, one.good, one.statuses, one.over) == (1_000, 998, {"200": 998, "timeout": 2}, {"0.12": 2, "0.3": 2})
    assert (one.machine, one.covered) == ("", 1.0)
    assert merging.complete(111.0, end=True) == ()


def test_a_machine_that_is_still_heard_of_is_waited_for_and_a_lost_one_is_not_covered():
    merging = Merging(["a", "b", "c"], patience=5.0)
    for name in ("a", "b", "c"):
        merging.heard(name, 109.0)
    for name in ("a", "b"):
        merging.said(name, [part(100.0, name)], until=110.0, number=1)
    assert merging.complete(112.0) == ()
    merging.heard("a", 115.0)
    merging.heard("b", 115.0)
    assert merging.lost(115.0) == ("c",)
    (one,) = merging.complete(115.0)
    assert (one.planned, one.covered) == (6, pytest.approx(2 / 3))
    merging.heard("c", 116.0)  # it comes back: what it still has to tell is handed on, once
    merging.said("c", [part(100.0, "c"), part(110.0, "c")], until=120.0, number=1)
    for name in ("a", "b"):
        merging.said(name, [part(110.0, name)], until=120.0, number=2)
    late, whole = merging.complete(121.0)
    assert (late.started, late.planned, late.machine, late.covered) == (100.0, 3, "c", pytest.approx(1 / 3))
    assert (whole.started, whole.planned, whole.covered) == (110.0, 9, pytest.approx(1.0))


def test_a_message_that_was_lost_on_the_way_is_seen():
    merging = Merging(["a"], patience=5.0)
    merging.said("a", [part(100.0, "a")], until=110.0, number=1)
    merging.said("a", [part(120.0, "a")], until=130.0, number=3)
    assert merging.machines["a"].missing == 1
    merging.said("a", [], until=140.0, number=1)  # it began anew
    merging.said("a", [], until=150.0, number=2)
    assert merging.machines["a"].missing == 1


def test_strata_of_one_moment_are_not_mixed():
    merging = Merging(["a", "b"], patience=5.0)
    for name in ("a", "b"):
        merging.heard(name, 110.0)
        rows = [part(100.0, name, seconds=4.0), part(104.0, name, seconds=6.0, stratum="fault")]
        merging.said(name, rows, until=110.0, number=1)
    assert [(one.started, one.seconds, one.stratum, one.planned) for one in merging.complete(110.0)] == [
        (100.0, 4.0, "steady", 6),
        (104.0, 6.0, "fault", 6),
    ]


def test_the_generated_locustfile_is_python_without_secrets():
    config = SimpleNamespace(target=target(name='or"ders\n\\', headers={"Authorization": "Bearer the-token"}))
    text = locustfile(config)
    compile(text, "locustfile.py", "exec")
    assert "the-token" not in text
    assert "parallelism: 3" in manifest(workers=3, master="load.example.test")
    assert yaml.safe_load(manifest(workers=3, master="load.example.test"))["kind"] == "Job"
