"""The reference service with one thing changed: red at the right gate, and at no other."""

import sys
from pathlib import Path

import pytest

from tests.detection.conftest import REFERENCE

SERVICE = Path(__file__).with_name("one_change.py")
SAMPLE = ("hosts", "network.refused.pooled", "C16.reconnect")
DEFECTS = {
    "name_not_checked": ("sec.verify_full", ("C3.start", "C3.reconnect")),
    "nothing_verified": ("sec.verify_full", ("C1.start",)),
    "verified_at_start_only": ("sec.verify_full", ("C17.start", "C17.reconnect")),
    "plaintext_after_a_failed_handshake": ("sec.verify_full", ()),
    "comes_back_after_half_a_minute": ("res.network", ()),
    "dies_with_its_database": ("res.network", ()),
    "liveness_asks_the_database": ("res.network", ()),
    "asks_the_database_before_it_validates": ("rel.no_400_to_500", ()),
    "not_found_in_plain_text": ("rel.error_schema", ("steady",)),
    "status_member_lies": ("rel.error_schema", ("steady",)),
    "suffix_not_anchored": ("sec.unknown_host_2xx", ()),
    "last_host_line_counts": ("sec.unknown_host_2xx", ()),
    "outside_the_gate": ("sec.unknown_host_2xx", ()),
    "refuses_hosts_with_403": ("sec.unknown_host_400", ()),
    "host_case_matters": ("sec.host_allowlist", ()),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_red_at_its_own_gate_and_no_other(suite, defect):
    gate, own = DEFECTS[defect]
    start = [sys.executable, str(SERVICE), defect, "{port}"]
    result = suite(REFERENCE, start=start, env={}, only=(*SAMPLE, *own))
    assert result.failed == {gate}, result.open_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


def test_only_the_path_that_is_named_shows_at_start(suite):
    """`verified_at_start_only` is right at start and wrong on reconnect: each situation is looked at by itself."""
    start = [sys.executable, str(SERVICE), "verified_at_start_only", "{port}"]
    result = suite(REFERENCE, start=start, env={}, only=("C17.start", "C17.reconnect"))
    outcomes = {check["id"]: check["outcome"] for check in result.evidence["checks"] if check["id"].startswith("C17")}
    assert outcomes == {"C17.start": "pass", "C17.reconnect": "fail"}
