"""The reference service with one safeguard that is none: red at roll.safeguards, by the check of that safeguard, and nowhere else."""

import os
import sys
from pathlib import Path

import pytest

from tests.detection.conftest import REFERENCE
from tests.detection.planted_safeguards import DEFECTS as PLANTED

SERVICE = Path(__file__).with_name("planted_safeguards.py")
DEFECTS = {
    "bypass_opens_everything": "safeguard.bypass",
    "flag_is_ignored": "safeguard.allowlist",
    "flag_never_enforces": "safeguard.allowlist",
    "cold_pool": "safeguard.pools",
    "ready_without_looking": "safeguard.chain",
    "live_looks_at_the_database": "safeguard.chain",
}
EVERY = os.environ.get("CHAOS_DETECTION") == "all"


def planted(suite, defect, *only):
    return suite(REFERENCE, start=[sys.executable, str(SERVICE), defect, "--port", "{port}"], env={}, only=only)


@pytest.mark.parametrize("defect", DEFECTS if EVERY else ["bypass_opens_everything"])
def test_red_by_its_own_check(suite, defect):
    result = planted(suite, defect, DEFECTS[defect])
    assert result.failed == {"roll.safeguards"}, result.open_checks
    assert set(result.failed_checks) == {DEFECTS[defect]}
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


@pytest.mark.skipif(not EVERY, reason="half a minute of a core: CHAOS_DETECTION=all")
def test_nothing_changed_is_clear(suite):
    result = planted(suite, "none", "roll.safeguards")
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown


def test_every_defect_is_tried():
    assert set(PLANTED) == set(DEFECTS)
