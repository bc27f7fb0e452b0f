"""The reference service with one thing wrong in how it takes its database's life: red at the right gate, and at no other."""

import os
import sys
from pathlib import Path

import pytest

from tests.detection.conftest import REFERENCE, with_environment
from tests.detection.planted_life import DEFECTS as PLANTED

SERVICE = Path(__file__).with_name("planted_life.py")
# Defect: the gate, and the check that has to see it.
DEFECTS = {
    "no_reconnect_after_a_crash": ("res.network", "life.postmaster"),
    "acknowledges_what_a_read_only_server_refused": ("res.durability", "writes.life.demoted"),
    "retries_an_aborted_transaction_for_ever": ("res.network", "life.conflict"),
    "gives_up_when_the_path_flaps": ("res.network", "flapping"),
    "ends_when_its_session_is_ended": ("res.network", "life.backend"),
    "never_starts_after_57P03": ("res.network", "starting.57P03"),
    "shares_its_circuit_breaker": ("res.network", "blast.replica"),
    "waits_for_locks": ("res.network", "life.migration"),
    "waits_for_a_silent_server": ("res.network", "cross.blackhole.flight.down.long"),
}
EVERY = os.environ.get("CHAOS_DETECTION") == "all"
SAMPLE = [*DEFECTS][:4]


def planted(suite, defect, only):
    env = {"WORK_DIR": "{work_dir}"}
    return suite(REFERENCE, start=[sys.executable, str(SERVICE), defect, "--port", "{port}"], env=env, only=only)


@pytest.mark.parametrize("defect", DEFECTS if EVERY else SAMPLE)
def test_red_at_its_own_gate_and_no_other(suite, defect):
    gate, check = DEFECTS[defect]
    case = check.removeprefix("writes.").replace("blast.", "")
    result = planted(suite, defect, (case,))
    assert result.failed == {gate}, result.open_checks
    assert check in result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


# Where sound services differ: reported, and judged by [policy]. Defect: the row, the check, what the check says.
DECIDED = {
    "keeps_read_only_connections": ("L2", "life.demoted", "sessions with the old primary, which is read-only now, are kept"),
    "ends_when_the_database_starts_up": ("L1", "starting.57P03", "it ended (exit status 7)"),
}
ALL = [(defect, decided) for defect in DECIDED for decided in ("reject", "accept", "")]


@pytest.mark.parametrize(("defect", "decided"), ALL if EVERY else ALL[:1])
def test_policy_decides_where_sound_services_differ(suite, tmp_path, defect, decided):
    row, check, words = DECIDED[defect]
    start = [sys.executable, str(SERVICE), defect, "--port", "{port}"]
    config = with_environment(REFERENCE, tmp_path, {}, start)
    policy = f'\n[policy]\n"{row}" = "{decided}"\n' if decided else ""
    config.write_text(config.read_text(encoding="utf-8") + policy, encoding="utf-8")
    result = suite(config, only=(check,))
    found = next(one for one in result.evidence["checks"] if one["id"] == check)
    wanted = {"reject": "fail", "accept": "pass", "": "not_applicable"}[decided]
    assert found["outcome"] == wanted, result.open_checks
    assert words in found["detail"]
    assert result.failed == ({"res.network"} if decided == "reject" else set()), result.open_checks


@pytest.mark.skipif(not EVERY, reason="a minute of a core: CHAOS_DETECTION=all")
def test_nothing_changed_is_clear(suite):
    """The control: started in the same way, with no defect."""
    result = planted(suite, "none", tuple({check.split("writes.")[-1].replace("blast.", "") for _, check in DEFECTS.values()}))
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown


def test_every_defect_is_tried():
    assert set(PLANTED) == {*DEFECTS, *DECIDED}
