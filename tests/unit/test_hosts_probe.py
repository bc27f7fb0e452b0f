"""Host validation against real HTTP servers: the healthy service comes out clean on each, and each defect turns one gate red."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from chaos.checks import errors, hosts
from chaos.config import load
from chaos.model import Finding, History, Kind, Layer, Operation, Outcome
from chaos.traffic import layers
from chaos.traffic.host_names import HostNames, Sent, Words
from chaos.traffic.hosts import observe, probe
from chaos.traffic.requests import Session
from tests.unit.hosts_app import NAMES, SERVERS, serving

if TYPE_CHECKING:
    from pathlib import Path

GATES = {"sec.unknown_host_2xx", "sec.unknown_host_400", "sec.host_allowlist", "sec.pentest"}


def writes(unique: str) -> tuple[Sent, ...]:
    """As chaos.toml would have them."""
    headers = (("Content-Type", "application/json"), ("Authorization", "Bearer secret"))
    return (Sent(method="POST", path="/items", headers=headers, body=json.dumps({"name": unique})),)


def observed(server: str, defect: str = "", *, per_class: int = 320, seed: int = 7) -> list[Operation]:
    with serving(server, defect) as address:
        learned = layers.learn(address, host=NAMES.allowed[0], path="/items/1")
        return probe(
            address, NAMES, path="/items/1", seed=seed, per_class=per_class, learned=learned, others=("/items",),
            health=("/healthz", "/readyz"), known={"ops": ("/healthz",)}, writes=writes,
        )  # fmt: skip


def history(operations: list[Operation]) -> History:
    return History(experiment="hosts", started=0.0, operations=tuple(operations))


def judged(operations: list[Operation], **policy: str) -> dict[str, Finding]:
    return {one.check: one for one in hosts.judge(history(operations), policy=policy)}


def red(found: dict[str, Finding]) -> dict[str, list[str]]:
    gates: dict[str, list[str]] = {}
    for one in found.values():
        if one.outcome is Outcome.FAIL:
            gates.setdefault(one.gate, []).append(one.check)
    return gates


@pytest.fixture(scope="module", params=SERVERS)
def healthy(request: pytest.FixtureRequest) -> tuple[str, list[Operation]]:
    return request.param, observed(request.param)


def test_a_healthy_service_is_clean_and_proven(healthy: tuple[str, list[Operation]]) -> None:
    _, operations = healthy
    found = judged(operations)
    assert red(found) == {}
    assert [one.check for one in found.values() if one.outcome is Outcome.INCONCLUSIVE] == []
    assert {one.gate for one in found.values() if one.outcome is Outcome.PASS} == GATES
    for kind in ("unknown", "absent", "bad"):
        assert found[f"hosts.400.{kind}"].outcome is Outcome.PASS
        assert found[f"hosts.400.{kind}"].n >= 299  # what it takes to prove 99 % at 95 %


def test_a_healthy_services_errors_are_in_the_schema(healthy: tuple[str, list[Operation]]) -> None:
    server, operations = healthy
    finding = errors.judge(history(operations), "problem+json")
    assert finding is not None
    assert (finding.outcome, finding.bad) == (Outcome.PASS, 0), finding.detail
    assert finding.n > 600
    if server != "http.server":  # whose errors come from the handler's own class: send_error
        assert "400 by the server, for the application never saw the request, in another form" in finding.detail


def test_every_row_that_can_be_sent_is_sent(healthy: tuple[str, list[Operation]]) -> None:
    _, operations = healthy
    sent = {one.row for one in operations}
    expected = {row.id for row in hosts.rows() if not row.skip and row.id != "H46"}
    assert expected - sent == set()
    assert Counter(one.kind for one in operations) == {Kind.HOST: len(operations)}


def test_it_takes_a_few_seconds(healthy: tuple[str, list[Operation]]) -> None:
    _, operations = healthy
    assert len(operations) > 1000
    assert max(one.finished for one in operations) - min(one.started for one in operations) < 20  # 1 s where nothing else runs


@pytest.mark.parametrize(
    ("defect", "gate", "rows"),
    [
        ("any", "sec.unknown_host_2xx", {"H01", "H02", "H03", "H35b", "H40", "H43", "H71b", "H72", "H49"}),
        ("suffix", "sec.unknown_host_2xx", {"H03"}),
        ("prefix", "sec.unknown_host_2xx", {"H02"}),
        ("port", "sec.unknown_host_2xx", {"H12", "H18", "H19", "H20"}),
        ("forwarded", "sec.unknown_host_2xx", {"H35b"}),
        ("route", "sec.unknown_host_2xx", {"H43"}),
        ("preflight", "sec.unknown_host_2xx", {"H41"}),
        ("exempt", "sec.unknown_host_2xx", {"H50"}),
        ("redirect", "sec.unknown_host_2xx", {"H01", "H03"}),
        ("404", "sec.unknown_host_400", {"hosts.400.unknown", "hosts.400.bad"}),
        ("403", "sec.unknown_host_400", {"hosts.400.unknown", "hosts.400.bad"}),
        ("case", "sec.host_allowlist", {"H62"}),
        ("reflect", "sec.pentest", {"H35"}),
        ("link", "sec.pentest", {"H46"}),
    ],
)
def test_a_defect_turns_its_own_gate_red_and_no_other(defect: str, gate: str, rows: set[str]) -> None:
    found = red(judged(observed("httptools", defect, per_class=120)))
    assert set(found) == {gate}
    assert rows <= set(found[gate])


@pytest.mark.parametrize(
    ("server", "defect", "rows"), [("httptools", "missing", {"H06"}), ("httptools", "first", {"H07", "H09"})]
)
def test_what_only_some_servers_let_by_is_seen_there(server: str, defect: str, rows: set[str]) -> None:
    found = red(judged(observed(server, defect, per_class=40)))
    assert set(found) == {"sec.unknown_host_2xx"}
    assert rows <= set(found["sec.unknown_host_2xx"])


@pytest.mark.parametrize("server", SERVERS)
def test_refusals_in_plain_text_fail_the_schema_and_nothing_else(server: str) -> None:
    operations = observed(server, "plain", per_class=40)
    assert red(judged(operations)) == {}
    finding = errors.judge(history(operations), "problem+json")
    assert finding is not None
    assert finding.outcome is Outcome.FAIL
    assert "media type text/plain" in finding.detail


def test_policy_decides_what_is_otherwise_reported(healthy: tuple[str, list[Operation]]) -> None:
    _, operations = healthy
    reported = judged(operations)["H64"]
    assert reported.outcome is Outcome.NOT_APPLICABLE
    assert "refused" in reported.detail
    assert '"H64" in [policy] decides' in reported.detail
    decided = judged(operations, H64="serve")["H64"]
    assert (decided.outcome, decided.gate) == (Outcome.FAIL, "sec.host_allowlist")
    assert judged(operations, H64="reject")["H64"].outcome is Outcome.PASS
    assert judged(operations, H01="serve")["H01"].outcome is Outcome.PASS  # no policy: a required row stays required


def test_the_same_seed_asks_the_same() -> None:
    first, again, other = (observed("h11", per_class=20, seed=seed) for seed in (1, 1, 2))
    assert [one.sample for one in first] == [one.sample for one in again]
    assert [one.sample for one in first] != [one.sample for one in other]


def test_the_http_servers_own_refusals_are_told_apart() -> None:
    for server in ("h11", "httptools"):
        by_layer = {one.layer for one in observed(server, per_class=20) if one.row == "H30"}
        assert by_layer == {Layer.SERVER}
    assert {one.layer for one in observed("h11", "plain", per_class=20) if one.row == "H01"} == {Layer.APPLICATION}


def test_nobody_there_is_no_proof() -> None:
    with serving("h11") as address:
        pass
    started = time.monotonic()
    operations = probe(address, NAMES, path="/items/1", per_class=320)
    assert [(one.status, one.error, one.layer) for one in operations] == [(None, "refused", Layer.NOBODY)]
    assert time.monotonic() - started < 10
    found = judged(operations)
    assert {found[row].outcome for row in ("H01", "H04", "H07", "hosts.400.unknown")} == {Outcome.INCONCLUSIVE}


def test_a_service_that_refuses_everybody_proves_nothing() -> None:
    with serving("h11") as address:
        operations = probe(address, NAMES, path="/nowhere", per_class=20)
    found = judged(operations)
    assert found["H01"].outcome is Outcome.INCONCLUSIVE
    assert "the good request itself" in found["H01"].detail


TOML = """
[target]
name = "small"
url = "http://127.0.0.1:{port}"
live = "/healthz"
headers = {{ Authorization = "Bearer {{token}}" }}
[target.hosts]
allowed = ["api.example.test"]
seo = ["*.landing.example.test"]
health = ["probe"]
[[target.read]]
path = "/items/{{number}}"
[[target.read]]
path = "/items"
"""


def test_observe_takes_everything_from_chaos_toml(tmp_path: Path) -> None:
    with serving("h11", "route") as address:
        file = tmp_path / "chaos.toml"
        file.write_text(TOML.format(port=address[1]))
        target = load(file).target
        session = Session(target=target, base_url=target.url or "", values={"number": "1", "token": "secret"})
        operations = observe(target, session, address=address, seed=1, per_class=10)
    assert (operations[0].path, operations[0].status, operations[0].sample) == (
        "/items/1",
        200,
        "allowed api.example.test, asked as api.example.test",
    )
    found = judged(list(operations))
    assert red(found) == {"sec.unknown_host_2xx": ["H43"]}  # /items, the other read
    assert found["H70"].outcome is Outcome.PASS
    assert not any("secret" in one.sample + one.body for one in operations)


def test_unknown_names_are_valid_different_and_not_listed() -> None:
    words = Words(NAMES, seed=5, path="/")
    names = words.unknown(500)
    assert len({name for _, name in names}) == 500
    assert {row for row, _ in names} == {"H01", "H02", "H03"}
    label = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
    for _, name in names:
        assert not NAMES.lists(name)
        assert len(name) < 254
        assert all(label.fullmatch(one) for one in name.split(".")), name
    assert any("xn--" in name for _, name in names)
    assert any(name.endswith("landing.example.test") for row, name in names if row == "H03")


@pytest.mark.parametrize("allowed", ["localhost", "127.0.0.1", "localhost:8000", "[::1]"])
def test_hosts_that_little_comes_close_to(allowed: str) -> None:
    words = Words(HostNames(allowed=(allowed,)), seed=5, path="/")
    names = words.unknown(300)
    assert len(names) == 300
    assert not any(name in {"localhost", "127.0.0.1"} or "[" in name for _, name in names)
