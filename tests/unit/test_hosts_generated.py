"""What hypothesis draws and shrinks, where an evil name counts as reflected, and the line that shows a wrong answer again."""

import random
import subprocess
from pathlib import Path

import pytest

from chaos.checks.hosts import rows
from chaos.model import Kind, Operation
from chaos.traffic import host_smallest, host_strategies
from chaos.traffic.host_names import HostNames, Words
from chaos.traffic.host_reflection import reflected, whole
from chaos.traffic.host_requests import Asked, simple
from chaos.traffic.raw import RawAnswer

NAMES = HostNames(allowed=("api.example.test",), seo=("*.landing.example.test",))


# -- drawn ----------------------------------------------------------------------------------------------------------------------


def test_what_is_drawn_depends_on_the_seed_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = [Words(NAMES, seed=seed, path="/").unknown(60) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert list(tmp_path.iterdir()) == []  # hypothesis keeps nothing where the run was started


def test_every_way_of_coming_close_is_drawn():
    names = Words(NAMES, seed=3, path="/").unknown(320)
    of_row = {row: [name for one, name in names if one == row] for row in ("H01", "H02", "H03")}
    assert min(map(len, of_row.values())) >= 25
    assert any("xn--" in name for name in of_row["H01"])
    assert not any("api.example.test" in name or "landing.example.test" in name for name in of_row["H01"])
    assert any(name.endswith(".api.example.test") for name in of_row["H03"])
    assert any(name.startswith("api.example.test.") for name in of_row["H02"])
    assert any(name.endswith("landing.example.test") and not name.endswith(".landing.example.test") for name in of_row["H03"])


def test_malformed_values_hold_the_listed_host_an_unknown_one_and_something_foreign():
    values = Words(NAMES, seed=3, path="/").malformed(200)
    assert len(set(values)) == 200
    for value in values:
        assert "api.example.test" in value
        assert set(value) & set(host_strategies.FOREIGN)
        assert value.isprintable()
        assert value == value.strip()
    assert {char for value in values for char in value} >= set('@/?#\\"<> ')


def test_few_values_are_no_endless_search():
    from hypothesis import strategies as st

    assert sorted(host_strategies.drawn(st.sampled_from("abc"), 10, seed=1)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("row", "lets_by", "smallest"),
    [
        ("H01", bool, "a.example"),
        ("H03", lambda name: name.endswith(".api.example.test"), "a.api.example.test"),
        ("H02", lambda name: name.startswith("api.example.test"), "api.example.test.a"),
        ("H03", lambda name: name.endswith("example.test"), "aapi.example.test"),
        ("H03", lambda name: name.endswith("landing.example.test") and "-" in name, "a-landing.example.test"),
    ],
)
def test_the_smallest_is_found(row, lets_by, smallest):
    asked = []

    def fails(name):
        asked.append(name)
        return lets_by(name)

    assert host_strategies.smallest(host_strategies.unknown(NAMES)[row], fails, seed=7) == smallest
    assert len(asked) == len(set(asked)) < 300


def test_nothing_that_fails_is_none():
    assert host_strategies.smallest(host_strategies.malformed("g.test"), lambda _value: False, seed=7) is None


# -- facts ----------------------------------------------------------------------------------------------------------------------


def done(one, status, error=""):
    return Operation(
        kind=Kind.HOST, method="GET", path="/", sample="", started=1.0, finished=1.1, status=status, error=error,
        expected=one.expected, ok=status == 400, row=one.row, unique=one.evil,
    )  # fmt: skip


def test_facts_hold_the_bytes_and_the_smallest_host():
    words = Words(NAMES, seed=5, path="/items/1")
    served = simple("H03", "evil-and-longapi.example.test", words.path, words, evil="evil-and-longapi.example.test")
    refused = simple("H02", "api.example.test.x", words.path, words)
    other = simple("H01", "far.example", words.path, words)

    def again(row, host):
        one = simple(row, host, words.path, words, evil=host)
        return one, done(one, 200)

    pairs = [(served, done(served, 200)), (refused, done(refused, 400)), (other, done(other, 503))]
    facts = host_smallest.facts(pairs, words, again, ("127.0.0.1", 9))
    assert set(facts) == {"wire.H03", "smallest.H03"}
    assert facts["smallest.H03"].startswith(
        "b'aapi.example.test': printf 'GET /items/1 HTTP/1.1\\r\\nHost: aapi.example.test\\r\\n"
    )


def test_what_is_served_is_shrunk_before_what_is_only_refused_in_another_way():
    words = Words(NAMES, seed=5, path="/")
    both = [simple("H01", name, "/", words) for name in ("a.example", "api.example.x7")]

    def again(row, host):
        one = simple(row, host, "/", words)
        return one, done(one, 200 if host.startswith("api.example.") else 404)

    facts = host_smallest.facts([(both[0], done(both[0], 404)), (both[1], done(both[1], 200))], words, again, ("::1", 9))
    assert facts["smallest.H01"].startswith("b'api.example.a'")


def test_a_target_that_stops_answering_does_not_hold_up_the_run(monkeypatch):
    monkeypatch.setattr(host_smallest, "SECONDS", 0.0)
    words = Words(NAMES, seed=5, path="/")
    one = simple("H01", "some-thing.example", "/", words)

    def again(row, host):
        pytest.fail("asked after the time was up")

    facts = host_smallest.facts([(one, done(one, 200))], words, again, ("127.0.0.1", 9))
    assert facts["smallest.H01"].startswith("b'some-thing.example'")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"GET /%2e HTTP/1.1\r\nHost: it's \\ here\r\nX-Forwarded-Host: e\r\n\r\n",
        b"GET / HTTP/1.1\nHost: \xc3\xa9.test\r\n folded\r\n\r\n",
        b'POST / HTTP/1.1\r\nHost : g\r\nContent-Length: 9\r\n\r\n{"a": 1}\n',
    ],
)
def test_the_shell_sends_the_same_bytes(request_bytes):
    line, _, to = host_smallest.reproduce(request_bytes, ("127.0.0.1", 1)).rpartition(" | ")
    assert to == "nc 127.0.0.1 $PORT"
    assert subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout == request_bytes


def test_the_targets_own_headers_are_not_told():
    line = host_smallest.reproduce(
        b"GET / HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer secret\r\nCookie: a=b\r\n\r\n", ("192.0.2.1", 443), tls=True
    )
    assert "secret" not in line
    assert "a=b" not in line
    assert line.endswith("Authorization: ***\\r\\nCookie: ***\\r\\n\\r\\n' | openssl s_client -quiet -connect 192.0.2.1:443")


# -- reflected ------------------------------------------------------------------------------------------------------------------


def answer(status=200, body="", **headers):
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return RawAnswer(status=status, headers=named, body=body.encode())


def asked(evil="a.example", **more):
    return Asked(
        row="H35", request=b"", sample="", method="GET", path="/", target="GET / HTTP/1.1", expected="", evil=evil, **more
    )


@pytest.mark.parametrize(
    "given",
    [
        answer(302, location="https://a.example/x"),
        answer(302, location="//A.Example:8443\\x"),
        answer(refresh="0; url=http://a.example"),
        answer(link="<https://a.example/>; rel=canonical"),
        answer(set_cookie="s=1; Domain=.a.example"),
        answer(access_control_allow_origin="https://a.example"),
        answer(401, www_authenticate='Bearer resource_metadata="https://a.example/.well-known"'),
        answer(report_to='{"endpoints": [{"url": "https://a.example/r"}]}'),
        answer(body='<meta property="og:url" content="https://a.example/p">'),
        answer(body="<loc>https://www.a.example/p</loc>"),
        answer(400, body='{"type": "https:\\/\\/a.example\\/errors"}'),
        answer(404, body="/login?next=https%3A%2F%2Fa.example%2Fx"),
    ],
)
def test_reflected(given):
    assert reflected(asked(), given).startswith("reflected in ")


@pytest.mark.parametrize(
    "given",
    [
        answer(302, location="https://api.example.test/?from=a.example"),
        answer(400, body='{"detail": "a.example is not served here"}'),
        answer(400, body='{"type": "https://schema.example/errors"}'),  # ends alike, and is somebody else
        answer(200, body='{"next": "https://a.example.test/2"}'),  # begins alike
        answer(200, body='{"next": "https://x-a.example/2"}'),
        answer(400, body='{"type": "https://docs.test/a.example"}'),
        answer(server="a.example"),
    ],
)
def test_not_reflected(given):
    assert reflected(asked(), given) == ""


def test_the_listed_www_above_an_apex_may_be_led_to():
    apex = asked("example.org", spared="www.example.org")
    assert reflected(apex, answer(307, location="http://www.example.org/")) == ""
    assert reflected(apex, answer(301, location="https://example.org/")) != ""
    assert whole("example.org", but="www.example.org").search("cdn.example.org")


# -- the catalogue --------------------------------------------------------------------------------------------------------------


def test_the_document_shows_every_row():
    """docs/host-validation.md is read by people, hosts.toml by the suite: they say the same."""
    text = (Path(__file__).parents[2] / "docs" / "host-validation.md").read_text(encoding="utf-8")
    for row in rows():
        must = {"refuse": "refused", "serve": "served", "ignore": "ignored", "policy": "policy: report"}.get(
            row.must, "not asked here"
        )
        assert f"| {row.id} | {row.title} | {must} |" in text, row.id


def test_random_names_of_a_wildcard_are_different():
    assert len({Words(NAMES, seed=random.Random(n).randrange(10**6), path="/").page for n in range(20)}) == 20
