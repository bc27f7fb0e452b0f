"""Recorded requests: four formats, what is left out and counted, and nothing personal that is kept."""

import gzip
import json
import os

import pytest

from chaos.errors import UsageError
from chaos.traffic import access_log
from chaos.traffic.access_log import KEPT, read, scrubbed

NGINX = '203.0.113.9 - alice [27/Nov/2026:10:00:00 +0000] "GET {} HTTP/1.1" {} 12 "https://x.test/?token=abc" "Mozilla/5.0"'
ALB = (
    "https 2026-11-27T10:00:00.0Z app/lb/50dc 203.0.113.9:2817 10.0.0.1:80 0.0 0.001 0.0 404 404 34 366 "
    '"GET https://api.acme.test:443/items/abc?limit=x HTTP/1.1" "curl" ECDHE TLSv1.2 arn "Root=1" "api.acme.test" "arn" 0 2026 "forward"'
)
CADDY = {
    "request": {"method": "GET", "uri": "/items/abc", "headers": {"Cookie": ["REDACTED"]}, "remote_ip": "203.0.113.9"},
    "status": 400,
    "resp_headers": {"Content-Type": ["application/problem+json"]},
}


@pytest.fixture
def log(tmp_path):
    def write(*lines, name="access.log"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def targets(path):
    return [one.target for one in read(path, seed=1).requests]


def har(*entries):
    return json.dumps({"log": {"version": "1.2", "entries": list(entries)}}, indent=1)


def entry(method="GET", url="https://api.acme.test/items/abc?limit=x", status=400, **more):
    return {"request": {"method": method, "url": url}, "response": {"status": status, **more}}


@pytest.mark.parametrize(
    ("lines", "target"),
    [
        ([NGINX.format("/items/abc?limit=x", 400)], "/items/abc?limit=x"),
        ([json.dumps(CADDY)], "/items/abc"),
        ([ALB], "/items/abc?limit=x"),
        ([har(entry())], "/items/abc?limit=x"),
    ],
)
def test_each_format(log, lines, target):
    assert targets(log(*lines)) == [target]


def test_packed_logs(tmp_path):
    path = tmp_path / "access.log.gz"
    path.write_bytes(gzip.compress(NGINX.format("/items/abc", 404).encode()))
    assert targets(path) == ["/items/abc"]


def test_what_is_left_out_is_counted(log):
    upgrade = {**CADDY, "request": {**CADDY["request"], "headers": {"Upgrade": ["websocket"]}}}
    found = read(
        log(
            NGINX.format("/items/abc", 404),
            NGINX.format("/items/abc", 404),  # the same again
            NGINX.format("/items/1", 200),
            NGINX.format("/items", 422).replace('"GET', '"POST'),
            NGINX.format("/events", 404),
            json.dumps(upgrade),
            "\x16\x03\x01\x00 garbage",
            "x" * 200_000,
            '{"half": ',
        ),
        seed=1,
    )
    assert [one.target for one in found.requests] == ["/items/abc"]
    assert found.skipped == {"answered otherwise": 1, "neither GET nor HEAD": 1, "streams and upgrades": 2, "unreadable": 3}
    assert "9 recorded requests, 1 different ones kept" in found.told()


def test_har_streams_and_broken_entries(log):
    stream = entry(content={"mimeType": "text/event-stream"})
    found = read(log(har(entry(), stream, entry(method="DELETE"), {"request": 7})), seed=1)
    assert len(found.requests) == 1
    assert found.skipped == {"streams and upgrades": 1, "neither GET nor HEAD": 1, "unreadable": 1}


@pytest.mark.parametrize(
    "secret",
    [
        "alice@acme.test",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "9f86d081884c7d659a2feaa0c55ad015",
        "4111 1111 1111 1111",
        "+49 30 1234567",
        "203.0.113.77",
        "6f1c2c52-9c1d-4d0e-9d7c-0a5c6c1f2e3d",
    ],
)
def test_nothing_personal_is_kept(secret):
    from urllib.parse import quote

    for target in (
        f"/people/{quote(secret)}/orders",
        f"/items?limit=x&thing={quote(secret)}",
        f"/items?limit=x&{quote(secret)}=1",
    ):
        kept = scrubbed(target)
        assert secret not in kept
        assert quote(secret) not in kept
        assert kept.startswith(("/people/", "/items?limit=x"))


@pytest.mark.parametrize("name", ["token", "api_key", "password", "email", "phone", "q", "session", "first_name", "code"])
def test_nor_what_goes_by_a_private_name(name):
    assert scrubbed(f"/items?{name}=Ab3-%C3%A4&limit=abc") == f"/items?{name}=xx1-x&limit=abc"


def test_what_makes_a_request_wrong_stays():
    assert scrubbed("/items/not-a-number?limit=-1&page=1e9#top") == "/items/not-a-number?limit=-1&page=1e9"


def test_a_large_log_is_a_seeded_choice(log):
    path = log(*(NGINX.format(f"/items/{'abc' * (1 + number % 3)}-{number}", 404) for number in range(KEPT + 500)))
    first, again, other = read(path, seed=1), read(path, seed=1), read(path, seed=2)
    assert len(first.requests) == KEPT
    assert first.requests == again.requests != other.requests


@pytest.mark.parametrize(("text", "says"), [("no log\nat all\n", "none of its lines"), ('{\n"log": {"entries": 7}}', "no HAR")])
def test_no_log_is_one_error(log, text, says):
    with pytest.raises(UsageError, match=says) as caught:
        read(log(text.rstrip("\n")), seed=1)
    assert caught.value.exit_code == 2


def test_handed_over_at_once_or_refused(log, tmp_path, monkeypatch):
    monkeypatch.delenv(access_log.SHADOW, raising=False)
    with pytest.raises(UsageError, match="cannot be read"):
        access_log.hand_over(tmp_path / "nothing.log")
    empty = tmp_path / "empty.log"
    empty.touch()
    with pytest.raises(UsageError, match="empty"):
        access_log.hand_over(empty)
    path = log(NGINX.format("/items/abc", 404))
    monkeypatch.setenv(access_log.SHADOW, "")
    access_log.hand_over(path)
    assert os.environ[access_log.SHADOW] == str(path)
