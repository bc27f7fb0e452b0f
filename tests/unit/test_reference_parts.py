"""The parts of the reference service that need no database: hosts, backoff, settings, privacy, problems, classes of failure."""

from __future__ import annotations

import io
import json
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.errors import ConfigError
from chaos.targets.reference import openapi
from chaos.targets.reference.backoff import RetryBudget, full_jitter, retry_hook
from chaos.targets.reference.connecting import failure_class, parameters
from chaos.targets.reference.envelope import answer_for, where
from chaos.targets.reference.hosts import HostPolicy, Surface, covers, parse
from chaos.targets.reference.problems import Problem, Unavailable, render
from chaos.targets.reference.settings import Settings
from chaos.targets.reference.telemetry import make_log, private_values, remember_private

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings(database_url="postgresql://u@h/d")
POLICY = HostPolicy.from_settings(SETTINGS)
G = b"api.example.test"


@pytest.mark.parametrize(
    ("hosts", "reason"),
    [
        ([G], ""),
        ([G.upper()], ""),
        ([G + b":8443"], ""),
        ([G + b"."], ""),
        ([b"\t" + G + b" "], ""),
        ([b"x.preview.example.test"], ""),
        ([], "missing"),
        ([G, G], "duplicate"),
        ([G, b"evil.test"], "duplicate"),
        ([b""], "empty"),
        ([b" \t"], "empty"),
        ([b"evil.test"], "unknown"),
        ([G + b".evil.test"], "unknown"),
        ([b"evil" + G], "unknown"),
        ([b"a.b.preview.example.test"], "unknown"),
        ([b"preview.example.test"], "unknown"),
        ([b"[::1]:80"], "unknown"),
        ([G + b"," + G], "malformed"),
        ([G + b":@evil.test"], "malformed"),
        ([b"evil.test@" + G], "malformed"),
        ([G + b":evil"], "malformed"),
        ([G + b":0"], "malformed"),
        ([G + b":65536"], "malformed"),
        ([G + b":999999"], "malformed"),
        ([G + b":"], "malformed"),
        ([G + b".."], "malformed"),
        ([b"." + G], "malformed"),
        ([b"-a.preview.example.test"], "malformed"),
        ([b"my_host.preview.example.test"], "malformed"),
        ([b"a" * 64 + b".preview.example.test"], "malformed"),
        ([G + b"\0"], "malformed"),
        ([b"\xff" + G], "malformed"),
        ([b"api%2eexample.test"], "malformed"),
        ([G + b"\n"], "malformed"),
        ([b".".join([b"a" * 50] * 6)], "malformed"),
    ],
)
def test_a_host_is_served_or_refused_for_a_reason(hosts: list[bytes], reason: str) -> None:
    assert POLICY.judge(hosts, target=b"/", path=b"/").reason == reason


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (b"/x", ""),
        (b"//evil.test/..", ""),
        (b"*", ""),
        (b"http://api.example.test/x", ""),
        (b"HTTPS://API.example.test:443/x", ""),
        (b"http://evil.test/x", "target"),
        (b"http://api.example.test@evil.test/", "target"),
        (b"http://evil.test@api.example.test/", "target"),
        (b"api.example.test:443", "target"),
        (b"ftp://api.example.test/", "target"),
    ],
)
def test_an_absolute_target_must_name_the_same_host(target: bytes, reason: str) -> None:
    assert POLICY.judge([G], target=target, path=b"/x").reason == reason


def test_health_hosts_get_the_health_paths_and_nothing_else() -> None:
    outside = (b"/", b"/x/healthz", b"/healthz/")
    for path, reason in ((b"/healthz", ""), (b"/readyz", ""), *((path, "health_path") for path in outside)):
        judgement = POLICY.judge([b"127.0.0.1:8000"], target=path, path=path)
        assert (judgement.surface, judgement.reason) == (Surface.HEALTH, reason)


def test_the_bypass_opens_seo_hosts_and_health_checks_only() -> None:
    bypass = replace(POLICY, bypass=True)
    for host in (b"landing.example.test", b"a.b.landing.example.test"):
        assert POLICY.judge([host], target=b"/", path=b"/").reason == "unknown"
        assert bypass.judge([host], target=b"/", path=b"/") == bypass.judge([host], target=b"/x", path=b"/x")
        assert bypass.judge([host], target=b"/", path=b"/").surface is Surface.LANDING
        assert not bypass.judge([host], target=b"/", path=b"/").reason
    assert not bypass.judge([b"10.0.0.7"], target=b"/readyz", path=b"/readyz").reason
    assert bypass.judge([b"10.0.0.7"], target=b"/api/items", path=b"/api/items").reason == "unknown"
    assert bypass.judge([b"evillanding.example.test"], target=b"/", path=b"/").reason == "unknown"
    assert bypass.judge([G, G], target=b"/readyz", path=b"/readyz").reason == "duplicate"


@given(st.binary(max_size=80))
def test_only_well_formed_names_have_a_name(value: bytes) -> None:
    name = parse(value)
    assert name == name.lower()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.[]:")
    if not name.startswith("["):
        assert all(0 < len(label) < 64 for label in name.split(".")) or not name


@given(st.text(alphabet="abe.-xmplts", max_size=40))
def test_a_wildcard_stands_for_one_label(name: str) -> None:
    if covers("*.example.test", name):
        assert name.endswith(".example.test")
        assert name.count(".") == 2
        assert not name.startswith(".")


def test_full_jitter_grows_and_stays_spread_out_at_the_cap() -> None:
    def means(failures: int) -> list[float]:
        return [full_jitter(failures, base=0.02, cap=1.5) for _ in range(2000)]

    assert statistics.fmean(means(4)) == pytest.approx(0.08, rel=0.15)
    assert statistics.fmean(means(5)) == pytest.approx(0.16, rel=0.15)
    at_cap = means(40)
    assert max(at_cap) <= 1.5
    assert statistics.fmean(at_cap) == pytest.approx(0.75, rel=0.15)
    assert statistics.pstdev(at_cap) > 0.35
    assert full_jitter(10**6, base=0.02, cap=1.5) <= 1.5  # no overflow after any outage


def test_retries_have_a_budget() -> None:
    budget = RetryBudget(ratio=0.1)
    told: list[str] = []
    allowed = 0
    for _ in range(1000):
        budget.first_try()
        hook = retry_hook(retryable=lambda _: True, budget=budget, base=0.05, cap=0.4, seen=told.append)
        wait = hook(TimeoutError())
        assert wait is False or 0 <= wait <= 0.05
        allowed += wait is not False
    assert allowed <= 1000 * 0.1 + 5
    assert told.count("budget_empty") == 1000 - allowed
    never = retry_hook(retryable=lambda _: False, budget=RetryBudget(), base=0.05, cap=0.4, seen=told.append)
    assert never(TimeoutError()) is False


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "sslmode is not set"),
        ("?sslmode=require&sslrootcert={ca}", "sslmode is require"),
        ("?sslmode=verify-ca&sslrootcert={ca}", "sslmode is verify-ca"),
        ("?sslmode=verify-full", "sslrootcert names no file"),
        ("?sslmode=verify-full&sslrootcert=/nowhere", "sslrootcert names no file"),
        ("?sslmode=verify-full&sslrootcert={ca}&sslcrl=/nowhere", "sslcrl does not exist"),
        ("?sslmode=verify-full&sslrootcert=system&sslcrl={ca}", "ignores the revocation list"),
        ("?sslmode=verify-full&nonsense=1", "no libpq URI"),
    ],
)
def test_a_database_that_is_not_verified_is_refused(tmp_path: Path, query: str, words: str) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    with pytest.raises(ConfigError, match=words) as raised:
        Settings.from_environment({"DATABASE_URL": "postgresql://u:hush@h/d" + query.format(ca=ca)})
    assert "hush" not in str(raised.value)


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    url = f"postgresql://u:p@h/d?sslmode=verify-full&sslrootcert={ca}"
    given = {
        "DATABASE_URL": url,
        "PORT": "81",
        "HOST_ALLOWLIST": "monitor",
        "HOST_BYPASS": "1",
        "ALLOWED_HOSTS": "a.test, b.test",
    }
    settings = Settings.from_environment(given)
    assert (settings.port, settings.enforce_hosts, settings.bypass, settings.allowed_hosts) == (
        81,
        False,
        True,
        ("a.test", "b.test"),
    )
    for name, value in {
        "PORT": "x",
        "HOST_ALLOWLIST": "off",
        "HOST_BYPASS": "yes",
        "POOL_SIZE": "0",
        "CHANNEL_BINDING": "disable",
    }.items():
        with pytest.raises(ConfigError, match=name):
            Settings.from_environment({"DATABASE_URL": url, name: value})
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        Settings.from_environment({})


def test_every_connection_insists_on_verification_and_deadlines() -> None:
    insisted = parameters(SETTINGS)
    assert insisted["sslmode"] == "verify-full"
    assert insisted["require_auth"] == "scram-sha-256"
    assert insisted["gssencmode"] == "disable"
    assert "statement_timeout=1000" in str(insisted["options"])
    assert SETTINGS.statement_timeout < SETTINGS.silence < SETTINGS.deadline


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('connection failed: SSL error: certificate verify failed: "x"', "tls"),
        ('server certificate for "a" does not match host name "b"', "tls"),
        ("SSL SYSCALL error: Connection reset by peer", "reset"),
        ("connection failed: Connection refused", "refused"),
        ("FATAL:  sorry, too many clients already", "too_many_connections"),
        ("FATAL:  the database system is shutting down", "not_accepting"),
        ('password authentication failed for user "u"', "authentication"),
        ("server closed the connection unexpectedly", "closed"),
        ("who knows", "other"),
    ],
)
def test_failures_of_connecting_are_counted_by_class(text: str, name: str) -> None:
    assert failure_class(psycopg.OperationalError(text)) == name
    assert failure_class(TimeoutError()) == "timeout"


def test_a_problem_is_problem_json() -> None:
    status, headers, body = render(Unavailable("database_busy", "The database is busy."), "abc")
    content = json.loads(body)
    assert (b"content-type", b"application/problem+json") in headers
    assert (b"retry-after", b"1") in headers
    assert status == content["status"] == 503
    assert content["title"] == "Service Unavailable"
    assert (content["code"], content["request_id"]) == ("database_busy", "abc")


def test_what_nobody_foresaw_is_a_500_that_says_nothing() -> None:
    with pytest.raises(psycopg.Error) as raised:
        psycopg.connect("not a conninfo with secret hush")
    problem = answer_for(raised.value)
    assert "hush" not in where(raised.value)
    assert (problem.status, problem.code) == (500, "internal_error")
    assert isinstance(problem, Problem)


def test_private_values_are_never_written() -> None:
    stream = io.StringIO()
    token = private_values.set(frozenset())
    try:
        remember_private("s3cret-key", "x")
        make_log(stream).warning(
            "event",
            email="a@b.test",
            nested={"Authorization": "Bearer zzz", "text": "has s3cret-key inside"},
            mail="to jane.doe@example.test!",
            url="postgresql://u:p@h/d",
            short="x stays",
        )
    finally:
        private_values.reset(token)
    line = stream.getvalue()
    assert not any(word in line for word in ("a@b.test", "zzz", "s3cret", "jane", "u:p@h"))
    assert json.loads(line)["short"] == "x stays"


def test_the_contract_names_no_server() -> None:
    assert "servers" not in openapi.document("v1")
