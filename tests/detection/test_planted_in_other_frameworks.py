"""Services of two other frameworks with one defect each: red at the right gate, and at no other.

Each run holds the defect's own checks and, beside them, a sample of everything else, so that 'no other' is more than a word.
"""

import os

import pytest

from tests.detection.conftest import TARGETS

SAMPLE = ("hosts", "network.refused.pooled", "C16.reconnect")
DEFECTS = {
    "verify_ca": ("sec.verify_full", ("C3.reconnect", "C3.start")),
    # With a root certificate at hand 'require' is verify-ca (libpq, 34.19.1): only the name is not checked.
    "require": ("sec.verify_full", ("C3.start", "C3.reconnect")),
    "prefer": ("sec.verify_full", ("P1.reconnect",)),
    "no_connect_timeout": ("res.network", ("network.blackhole.new",)),
    "no_query_timeout": ("res.network", ("network.blackhole.pooled",)),
    "no_reconnect": ("res.network", ("network.cut.pooled",)),
    "fixed_interval": ("res.backoff", ("backoff.tls",)),
    "exits_on_outage": ("res.network", ("restart.fast",)),
    "liveness_db": ("res.network", ("restart.fast",)),
    "crash_on_db_error": ("res.network", ("restart.fast",)),
    "plain_text_errors": ("rel.error_schema", ("steady",)),
    "status_member_wrong": ("rel.error_schema", ("steady",)),
    "invalid_hits_db_first": ("rel.no_400_to_500", ("restart.fast",)),
    "any_host": ("sec.unknown_host_2xx", ()),
    "wildcard_suffix_match": ("sec.unknown_host_2xx", ()),
    "double_write": ("res.durability", ("steady", "commit-cut")),
}
SERVICES = {"flask": TARGETS / "flask_psycopg2" / "chaos.toml", "aiohttp": TARGETS / "aiohttp_asyncpg" / "chaos.toml"}
# Every defect on one of the two; on both with CHAOS_DETECTION=all (ten minutes more).
EVERY = [(service, defect) for defect in DEFECTS for service in SERVICES]
ALTERNATING = [(("aiohttp", "flask")[number % 2], defect) for number, defect in enumerate(DEFECTS)]
ONE_OF_THEM = [
    ("aiohttp", "storm", "res.backoff", ("backoff.tls",)),
    ("flask", "double_write", "res.durability", ("commit-cut",)),
]


@pytest.mark.parametrize(("service", "defect"), EVERY if os.environ.get("CHAOS_DETECTION") == "all" else ALTERNATING)
def test_red_at_its_own_gate_and_no_other(suite, service, defect):
    gate, own = DEFECTS[defect]
    result = suite(SERVICES[service], env={"DEFECT": defect}, only=(*SAMPLE, *own))
    assert result.failed == {gate}, result.open_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


@pytest.mark.parametrize(("service", "defect", "gate", "own"), ONE_OF_THEM)
def test_what_only_one_of_them_can_do(suite, service, defect, gate, own):
    result = suite(SERVICES[service], env={"DEFECT": defect}, only=(*SAMPLE, *own))
    assert result.failed == {gate}, result.open_checks


@pytest.mark.parametrize("service", SERVICES)
def test_healthy_is_clear(suite, service):
    result = suite(SERVICES[service], workers=4)
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown
