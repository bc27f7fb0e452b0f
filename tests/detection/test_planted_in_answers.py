"""Answers changed in one way: a candidate that breaks the contract, errors that tell too much. Red at that gate, and at no other."""

import os
import sys
import tomllib
from pathlib import Path

import pytest

from chaos.evidence.store import STORE, Store
from tests.detection.conftest import REFERENCE, dumps, run_suite

SERVICE = Path(__file__).with_name("changed_answers.py")
ALL = os.environ.get("CHAOS_DETECTION") == "all"
BREAKING = {  # defect -> the checks that see it
    "member_removed": {"answers.contract", "claims.contract"},
    "type_changed": {"answers.contract", "claims.contract"},
    "member_is_null": {"answers.contract", "claims.contract"},
    "created_is_200": {"answers.contract", "claims.contract"},
    "requires_a_new_member": {"answers.contract"},
    "endpoint_gone": {"answers.contract"},
    "error_media_type_changed": {"answers.contract", "claims.contract"},
    "header_gone": {"answers.contract"},
    "description_requires_more": {"document.contract"},
    "description_lacks_a_route": {"document.contract"},
    "description_lies": {"document.contract", "claims.contract"},
    "description_is_broken": {"document.contract"},
    "description_without_end": {"document.contract"},
}
TELLING = {  # defect -> what the finding says was told
    "html_500_on_one_route": "media type text/html",
    "stack_trace": "a Python stack trace",
    "long_trace": "a Python stack trace",
    "sql": "SQL",
    "database_url": "DATABASE_URL",
    "database_host": "the database's address",
    "host_inside": "the name of a host inside",
    "file": "the path of a file",
    "credential": "the request's Authorization header",
}
# A few of each kind by default; all of them with CHAOS_DETECTION=all (two minutes more).
SOME_BREAKING = ("member_removed", "header_gone", "description_requires_more")
SOME_TELLING = ("html_500_on_one_route", "long_trace", "credential")
TOKEN = "4f1c6d0e-planted-bearer-token"


def planted(place, *, target=None, candidate=None):
    """The reference's chaos.toml, whose target or candidate is the service with a defect."""
    raw = tomllib.loads(REFERENCE.read_text(encoding="utf-8"))
    raw["target"]["cwd"] = str(REFERENCE.parent)
    raw["target"]["logs"].pop("retention_file", None)  # beside the reference's own chaos.toml
    raw["target"]["headers"] = {"Authorization": f"Bearer {TOKEN}"}
    raw["target"]["setup"] = [[sys.executable, *raw["target"]["setup"][0][1:]]]
    raw["target"]["start"] = [sys.executable, str(SERVICE), target or "as_it_is", "{port}"]
    if target == "html_500_on_one_route":  # and it is that route which is read
        raw["target"]["read"] = raw["target"]["read"][:1]
    if candidate:
        raw["target"]["candidate"] = {"start": [sys.executable, str(SERVICE), candidate, "{port}"], "env": {"RELEASE": "v2"}}
    made = place / "chaos.toml"
    made.write_text(dumps(raw), encoding="utf-8")
    return made


@pytest.mark.parametrize("defect", BREAKING if ALL else SOME_BREAKING)
def test_a_candidate_that_breaks_the_contract(tmp_path, defect):
    result = run_suite(planted(tmp_path, candidate=defect), tmp_path, only=("contract",))
    assert result.failed == {"rel.api_contract"}, result.open_checks
    assert set(result.failed_checks) == BREAKING[defect], result.open_checks
    assert result.code == 1


def test_a_candidate_that_only_adds(tmp_path):
    result = run_suite(planted(tmp_path, candidate="only_adds"), tmp_path, only=("contract",))
    details = {check["id"]: check["detail"] for check in result.evidence["checks"]}
    assert (result.code, result.gate("rel.api_contract")["verdict"]) == (0, "pass"), result.open_checks
    assert "colour added" in details["answers.contract"]
    assert "/api/colours" in details["document.contract"]


def test_a_baseline_whose_description_is_broken(tmp_path):
    """One finding, of nothing that the candidate did."""
    made = planted(tmp_path, target="description_without_end", candidate="description_without_end")
    result = run_suite(made, tmp_path, only=("contract",))
    assert result.code == 3, result.open_checks
    assert set(result.open_checks) == {"document.contract"}
    assert "nested" in result.open_checks["document.contract"][1]


@pytest.mark.parametrize("defect", TELLING if ALL else SOME_TELLING)
def test_errors_that_tell_too_much(tmp_path, defect):
    # Two outages: the gate is a rate, and two wrong answers of a hundred settle none.
    result = run_suite(planted(tmp_path, target=defect), tmp_path, only=("network.refused.pooled", "network.refused.new"))
    assert result.failed == {"rel.error_schema"}, result.open_checks
    reason = result.gate("rel.error_schema")["reason"]
    assert TELLING[defect] in reason, reason
    assert "(application): " in reason, reason
    assert "times in 2 experiments" in reason, reason
    assert TOKEN not in (result.directory / "report.html").read_text(encoding="utf-8")
    with Store(result.directory / STORE) as store:
        bodies = [one.body for history in store.histories() for one in history.operations]
    assert not any(TOKEN in body for body in bodies)


def test_a_recorded_contract(tmp_path):
    """Without a candidate: the first run records the contract beside chaos.toml, the second one is held against it."""
    raw = tomllib.loads(planted(tmp_path).read_text(encoding="utf-8"))
    del raw["target"]["candidate"]
    raw["target"]["contract"] = "contract.json"
    made = tmp_path / "chaos.toml"
    made.write_text(dumps(raw), encoding="utf-8")
    first = run_suite(made, tmp_path, only=("contract",))
    assert first.gate("rel.api_contract")["verdict"] == "not_applicable", first.open_checks
    assert (tmp_path / "contract.json").is_file()
    raw["target"]["start"][2] = "type_changed"
    made.write_text(dumps(raw), encoding="utf-8")
    second = run_suite(made, tmp_path, only=("contract",))
    assert second.failed == {"rel.api_contract"}, second.open_checks
    assert "$.id was integer and is string" in second.failed_checks["answers.contract"]
