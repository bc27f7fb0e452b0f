"""The reference service at work: its API, its contract, what it logs and counts, how it starts and stops."""

from __future__ import annotations

import re
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import jsonschema
import psutil
import psycopg
import pytest
from psycopg import sql

from chaos.targets.reference import openapi
from tests.unit.reference_service import API, Answer, Lab, Service, lab

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTNER = {"X-API-Key": "demo-provider-key"}
DOCUMENT = openapi.document("v1")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("reference")) as made:
        yield made


@pytest.fixture(scope="module")
def service(room: Lab) -> Service:
    return room.start(TRUSTED_PROXIES="")


def create(service: Service, name: str, key: str | None = None, **more: object) -> Answer:
    headers = {} if key is None else {"Idempotency-Key": key}
    return service.ask("/api/items", "POST", json_body={"name": name, **more}, headers=headers)


def rows(room: Lab, table: str, name: str) -> int:
    with psycopg.connect(room.environment.postgres.database_url()) as session:
        query = sql.SQL("SELECT count(*) FROM {} WHERE name = %s").format(sql.Identifier(table))
        row = session.execute(query, [name]).fetchone()
    assert row
    return int(row[0])


def test_items_are_written_and_read(service: Service, room: Lab) -> None:
    name = uuid.uuid4().hex
    created = create(service, name, email="jane@example.test")
    assert created.status == 201
    assert set(created.json) == {"id", "name", "created_at"}
    assert created.headers["location"] == f"/api/items/{created.json['id']}"
    assert service.ask(created.headers["location"]).json == created.json
    assert service.ask(f"/api/items?name={name}").body.decode().count(name) == 1
    assert service.ask(f"/provider/v1/items/{created.json['id']}", headers=PARTNER).json == created.json
    assert rows(room, "items", name) == rows(room, "item_ledger", name) == 1
    assert service.ask("/api/items?limit=1").json["items"][0] == created.json


def test_the_same_key_is_applied_once(service: Service, room: Lab) -> None:
    name, key = uuid.uuid4().hex, uuid.uuid4().hex
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(create(service, name, key))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sorted(answer.headers["idempotent-replayed"] for answer in answers) == ["false"] + ["true"] * 7
    assert rows(room, "items", name) == rows(room, "item_ledger", name) == 1
    reused = create(service, "another " + name, key)
    assert (reused.status, reused.code) == (422, "idempotency_key_reused")
    create(service, name)
    assert rows(room, "item_ledger", name) == 2  # without a key, twice is twice


INVALID: list[tuple[str, str, dict[str, str], bytes | None, int, str]] = [
    ("GET", "/api/items/x", {}, None, 400, "invalid_id"),
    ("GET", "/api/items/0", {}, None, 400, "invalid_id"),
    ("GET", "/api/items/9223372036854775808", {}, None, 400, "invalid_id"),
    ("GET", "/api/items/%D9%A1", {}, None, 400, "invalid_id"),
    ("GET", "/api/items/9223372036854775807", {}, None, 404, "no_such_item"),
    ("GET", "/api/items?limit=0", {}, None, 400, "invalid_limit"),
    ("GET", "/api/items?name=", {}, None, 400, "invalid_name"),
    ("GET", "/api/items?name=a%00b", {}, None, 400, "invalid_name"),
    ("GET", "/nothing", {}, None, 404, "not_found"),
    ("GET", "/api/items/", {}, None, 404, "not_found"),
    ("DELETE", "/api/items", {}, None, 405, "method_not_allowed"),
    ("OPTIONS", "/api/items/1", {}, None, 405, "method_not_allowed"),
    ("GET", "/provider/v1/items", {}, None, 401, "api_key_needed"),
    ("GET", "/provider/v1/items", {"X-API-Key": "wrong"}, None, 401, "api_key_needed"),
    ("POST", "/api/items", {"Content-Type": "text/plain"}, b"{}", 415, "json_needed"),
    ("POST", "/api/items", {}, b"{}", 415, "json_needed"),
    *(
        ("POST", "/api/items", {"Content-Type": "application/json"}, body, status, code)
        for body, status, code in (
            (b"", 400, "malformed_json"),
            (b'{"name": ', 400, "malformed_json"),
            (b"\xff", 400, "malformed_json"),
            (b"[" * 50_000, 400, "malformed_json"),
            (b'{"name": NaN}', 400, "malformed_json"),
            (b"[]", 422, "invalid_item"),
            (b"{}", 422, "invalid_item"),
            (b'{"name": 1}', 422, "invalid_item"),
            (b'{"name": ""}', 422, "invalid_item"),
            (b'{"name": "a\\u0000b"}', 422, "invalid_item"),
            (b'{"name": "\\ud800"}', 422, "invalid_item"),
            (b'{"name": "' + b"a" * 201 + b'"}', 422, "invalid_item"),
            (b'{"name": "a", "email": "b"}', 422, "invalid_item"),
            (b'{"name": "a", "email": "b@\\u0000"}', 422, "invalid_item"),
            (b'{"name": "a", "other": 1}', 422, "invalid_item"),
            (b'{"name": "a", "\\ud800": 1}', 422, "invalid_item"),
            (b" " * 70_000, 413, "too_large"),
        )
    ),
    (
        "POST",
        "/api/items",
        {"Content-Type": "application/json", "Idempotency-Key": "short"},
        b'{"name": "a"}',
        400,
        "invalid_idempotency_key",
    ),
]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: f"{case[-1]}-{(case[3] or b'')[:20]!r}")
def test_an_invalid_request_is_a_problem(service: Service, case: tuple[str, str, dict[str, str], bytes | None, int, str]) -> None:
    method, path, headers, body, status, code = case
    answer = service.ask(path, method, headers=headers, body=body)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-release"] == "v1"
    jsonschema.validate(answer.json, DOCUMENT["components"]["schemas"]["Problem"])


def test_the_contract_matches_the_service(service: Service) -> None:
    assert service.ask("/openapi.json").json == DOCUMENT
    for path, operations in DOCUMENT["paths"].items():
        concrete = path.replace("{id}", "1")
        allowed = service.ask(concrete, "OPTIONS", headers=PARTNER)
        if not path.startswith("/provider/"):
            named = {word.strip().lower() for word in allowed.headers["allow"].split(",")}
            assert named - {"head"} == set(operations), path
        answer = service.ask(concrete, headers=PARTNER)
        described = operations["get"]["responses"][str(answer.status)]
        (media_type, content), *_ = described["content"].items()
        assert answer.headers["content-type"].startswith(media_type)
        if media_type == "application/json":
            resolved: dict[str, Any] = {**content["schema"], "components": DOCUMENT["components"]}
            jsonschema.validate(answer.json, resolved)


def test_landing_pages_are_made_of_the_database_and_never_of_the_host(service: Service) -> None:
    page = service.ask("/", host="BLUE-widgets.landing.example.test:8443")
    assert page.status == 200
    assert "<h1>Blue widgets</h1>" in page.body.decode()
    assert 'href="https://blue-widgets.landing.example.test/"' in page.body.decode()
    general = service.ask(
        "/", host="zyx.landing.example.test", headers={"X-Forwarded-Host": "evil.test", "Forwarded": "host=evil.test"}
    )
    assert general.status == 200
    assert "zyx" not in general.body.decode()
    assert "evil" not in general.body.decode() + str(general.headers)
    assert service.ask("/robots.txt", host="zyx.landing.example.test").status == 200
    assert b"https://red-widgets.landing.example.test/" in service.ask("/sitemap.xml", host="a.landing.example.test").body
    assert service.ask("/api/items", host="a.landing.example.test").status == 200
    assert service.ask("/metrics", host="a.landing.example.test").status == 404
    assert service.ask("/").status == 404


def refused(answer: bytes) -> bool:
    head, _, _ = answer.partition(b"\r\n\r\n")
    return head.startswith(b"HTTP/1.1 400 ") and b"content-type: application/problem+json" in head and b"x-request-id: " in head


def get(*lines: bytes, target: bytes = b"/api/items", version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return b"\r\n".join([method + b" " + target + b" " + version, *lines, b"Connection: close", b"", b""])


HOST = b"Host: " + API.encode()
UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize(
    "request_",
    [
        get(),
        get(version=b"HTTP/1.0"),
        get(b"Host:"),
        get(HOST, b"Host: evil.test"),
        get(b"Host: evil.test", HOST),
        get(HOST, HOST),
        get(HOST + b"\0"),
        get(HOST, b" evil.test"),
        get(b" Host: evil.test", HOST),
        get(b"Host : " + API.encode()),
        get(HOST).replace(b"\r\n", b"\n"),
        get(HOST, target=b"http://evil.test/api/items"),
        get(b"Host: evil.test", target=b"http://api.example.test/api/items"),
        get(target=b"http://api.example.test/api/items"),
        get(b"Host: evil.test", method=b"OPTIONS"),
        get(b"Host: evil.test", *UPGRADE),
        get(b"Host: 127.0.0.1"),
        get(b"Host: 127.0.0.1", target=b"/x/healthz"),
        get(b"Host: evil.test", target=b"/healthz"),
        get(HOST, target=b"/\xc3\xbc"),
        get(HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        get(HOST, version=b"HTTP/9.9"),
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    ],
)
def test_an_attack_on_the_host_is_a_400_in_the_standard_form(service: Service, request_: bytes) -> None:
    assert refused(service.raw(request_))


@pytest.mark.parametrize(
    "request_",
    [
        get(HOST),
        get(b"Host: API.Example.Test."),
        get(b"Host:\t" + API.encode() + b"\t"),
        get(HOST + b":8443"),
        get(HOST, target=b"http://api.example.test/api/items"),
        get(HOST, *UPGRADE),
        get(b"Host: 127.0.0.1", target=b"/healthz"),
        get(b"Host: localhost:80", target=b"/readyz"),
    ],
)
def test_a_good_host_is_served(service: Service, request_: bytes) -> None:
    assert service.raw(request_).startswith(b"HTTP/1.1 200 ")


def test_each_request_of_a_connection_is_judged_and_garbage_ends_it(service: Service) -> None:
    first = HOST.join([b"GET /healthz HTTP/1.1\r\n", b"\r\n\r\n"])
    both = service.raw(first + get(b"Host: evil.test", target=b"/healthz"))
    assert both.count(b"HTTP/1.1 200 ") == both.count(b"HTTP/1.1 400 ") == 1
    assert service.raw(first + b"GARBAGE\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    huge = service.raw(get(HOST, b"X-Long: " + b"a" * 40_000))
    assert huge.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in huge


def test_a_trailer_is_no_header(service: Service) -> None:
    head = [
        b"POST /api/items HTTP/1.1",
        HOST,
        b"Content-Type: application/json",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
    ]
    body = b'11\r\n{"name": "tail"} \r\n0\r\nHost: evil.test\r\n\r\n'
    assert service.raw(b"\r\n".join([*head, b"", body])).startswith(b"HTTP/1.1 201 ")


def test_refused_hosts_are_audited_first_time_always(service: Service) -> None:
    host = f"{uuid.uuid4().hex}.test"
    before = service.metric('unknown_host_rejections_total{reason="unknown"}')
    for _ in range(5):
        service.ask("/api/items", host=host)
    lines = [line for line in service.log() if line["event"] == "host_refused" and line["host"] == host]
    assert len(lines) == 1
    assert lines[0]["reason"] == "unknown"
    assert service.metric('unknown_host_rejections_total{reason="unknown"}') == before + 5


def test_the_log_has_what_operators_need_and_nothing_private(service: Service) -> None:
    unique = uuid.uuid4().hex
    answer = service.ask(
        f"/api/items?email={unique}q%40x.test",
        "POST",
        json_body={"name": "logged", "email": f"{unique}b@x.test"},
        headers={"Authorization": f"Bearer {unique}", "Cookie": f"sid={unique}c", "X-API-Key": f"{unique}k"},
    )
    assert answer.status == 201
    line = service.line(answer)
    text = service.log_file.read_text()
    assert f"{unique}q" not in text
    assert f"{unique}b" not in text
    assert f"{unique}c" not in text
    assert f"{unique}k" not in text
    assert {
        "host",
        "request_id",
        "upstream_ip",
        "tls_version",
        "tls_cipher",
        "error_code",
        "route",
        "status",
        "duration_ms",
    } <= set(line)
    assert (line["host"], line["upstream_ip"], line["tls_version"], line["tls_of"]) == (API, "127.0.0.1", "TLSv1.3", "database")
    invalid = service.ask("/api/items/x", headers={"X-Request-Id": "caller-chosen-1"})
    assert invalid.headers["x-request-id"] == "caller-chosen-1"
    assert service.line(invalid)["error_code"] == "invalid_id"
    assert re.fullmatch(r"[0-9a-f]{32}", service.ask("/healthz", headers={"X-Request-Id": "a b\t<c>"}).headers["x-request-id"])


def test_the_edge_is_believed_only_when_it_is_trusted(room: Lab, service: Service) -> None:
    sent = {"X-Forwarded-For": "192.0.2.1, 198.51.100.7", "X-TLS-Version": "TLSv1.2", "X-TLS-Cipher": "EDGE"}
    line = service.line(service.ask("/healthz", headers=sent))
    assert (line["upstream_ip"], line["tls_of"]) == ("127.0.0.1", "database")
    behind = room.start(TRUSTED_PROXIES="127.0.0.1")
    line = behind.line(behind.ask("/healthz", headers=sent))
    assert (line["upstream_ip"], line["tls_version"], line["tls_cipher"], line["tls_of"]) == (
        "198.51.100.7",
        "TLSv1.2",
        "EDGE",
        "edge",
    )
    assert behind.stop() == 0


def test_metrics_count(service: Service) -> None:
    before = service.metric('http_requests_total{method="GET",route="/api/items/{id}",status="400"}')
    service.ask("/api/items/x")
    assert service.metric('http_requests_total{method="GET",route="/api/items/{id}",status="400"}') == before + 1
    assert service.metric("database_pool_size ") == 5
    assert service.metric("database_pool_connections{") == 5
    assert 364 < service.metric("database_certificate_expiry_days ") < 366
    seo = service.metric('seo_requests_total{crawler="yes"')
    service.ask("/", host="x.landing.example.test", headers={"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"})
    assert service.metric('seo_requests_total{crawler="yes"') == seo + 1


def test_monitor_mode_writes_down_and_serves(room: Lab) -> None:
    service = room.start(HOST_ALLOWLIST="monitor", RELEASE="v2")
    answer = service.ask("/api/items", host="evil.test")
    assert (answer.status, answer.headers["x-release"]) == (200, "v2")
    assert service.raw(get(HOST, HOST)).startswith(b"HTTP/1.1 200 ")
    lines = [line for line in service.log() if line["event"] == "host_refused"]
    assert [line["action"] for line in lines] == ["served (monitor)"] * 2
    assert service.stop() == 0


def test_it_starts_lean_and_stops_fast(room: Lab) -> None:
    service = room.start()
    used = psutil.Process(service.process.pid).cpu_times()
    assert used.user + used.system < 3  # seconds; about 0.8 on an idle machine
    started = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - started < 3  # about 0.4 on an idle machine
    assert service.log()[-1]["event"] == "stopped"


def test_it_refuses_to_start_unverified(room: Lab) -> None:
    service = room.start(ready=False, url=room.url.replace("verify-full", "require"))
    assert service.process.wait(20) == 2
    assert "use verify-full" in service.log_file.read_text()


def test_a_pinned_chain_is_checked_by_the_health_check(room: Lab) -> None:
    service = room.start(ready=False, CHAIN_PINS="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    service.wait("/healthz")
    deadline = time.monotonic() + 20
    while (answer := service.ask("/readyz")).code == "pool_cold" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (answer.status, answer.code) == (503, "chain_not_pinned")
    assert service.ask("/api/items").status == 200
    assert service.stop() == 0
