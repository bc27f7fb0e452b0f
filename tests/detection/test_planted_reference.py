"""More of the reference service with one thing changed: what only shows under TLS failures, a full pool, in the log, in the data."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.detection.conftest import REFERENCE
from tests.detection.planted.__main__ import DEFECTS as PLANTED

SERVICE = Path(__file__).with_name("planted")
# Beside the defect's own experiments: one of every other kind, so that 'no other' is more than a word.
SAMPLE = ("hosts", "network.refused.pooled", "C16.reconnect")
# A service that a bad certificate ends is ended by C16 as well, and each time waited for and started again: once is enough.
WITHOUT_TLS = SAMPLE[:-1]
# Defect: its gate, the check that has to see it, the experiments beside those of the sample.
DEFECTS = {
    "waits_for_slow_queries": ("res.pool", "pool.locks", ("pool.locks",)),
    "waits_for_a_silent_server": ("res.network", "network.blackhole.pooled", ("network.blackhole.pooled",)),
    "waits_for_a_free_connection": ("res.network", "network.refused.pooled", ()),
    "never_reconnects": ("res.network", "network.refused.pooled", ()),
    "gives_up_on_a_bad_certificate": ("res.backoff", "tls.untrusted", ("tls.untrusted",)),
    "exits_on_a_bad_certificate": ("res.backoff", "tls.expired", ("tls.expired",)),
    "pauses_after_a_tls_failure": ("res.backoff", "tls.off", ("tls.off",)),
    "retries_without_backoff": ("res.backoff", "backoff.tls", ("backoff.tls",)),
    "retries_every_second": ("res.backoff", "backoff.tls", ("backoff.tls",)),
    "tries_plaintext_first": ("sec.verify_full", "P1.reconnect", ("P1.reconnect",)),
    "takes_two_handshakes": ("sec.tls_handshake", "", ("steady", "C1.reconnect", "C3.reconnect")),
    "trusts_x_forwarded_host": ("sec.unknown_host_2xx", "H35b", ()),
    "left_in_monitor_mode": ("sec.unknown_host_2xx", "H01", ()),
    "compares_the_beginning": ("sec.unknown_host_2xx", "H02", ()),
    "dot_means_any_letter": ("sec.unknown_host_2xx", "H72", ()),
    "serves_requests_without_host": ("sec.unknown_host_2xx", "H04", ()),
    "refuses_a_port": ("sec.host_allowlist", "H63", ()),
    "forgets_the_crawlers": ("sec.host_allowlist", "H71", ()),
    "logs_no_hosts": ("sec.audit_log", "audit.hosts", ()),
    # The gate is a rate over all error answers together: one outage of a sample is lost among a thousand refused hosts.
    "shows_a_stack_trace": ("rel.error_schema", "errors.pool.locks", ("pool.locks", "pool.slots")),
    "asks_the_database_before_it_reads_the_body": ("rel.no_400_to_500", "invalid.network.refused.pooled", ()),
    "acknowledges_and_forgets": ("res.durability", "writes.network.refused.pooled", ()),
    "ignores_the_idempotency_key": ("res.durability", "writes.steady", ("steady",)),
    "looks_the_key_up_first": ("res.durability", "writes.steady", ("steady",)),
    "lists_nothing_in_an_outage": ("res.durability", "writes.network.refused.pooled", ()),
    "answers_from_an_old_copy_in_an_outage": ("res.durability", "writes.network.refused.pooled", ()),
    "every_query_takes_its_time": ("rel.p95", "p95.steady", ("steady",)),
}


def planted(suite, defect, only):
    return suite(REFERENCE, start=[sys.executable, str(SERVICE), defect, "--port", "{port}"], env={}, only=only)


@pytest.mark.parametrize("defect", DEFECTS)
def test_red_at_its_own_gate_and_no_other(suite, defect):
    gate, check, own = DEFECTS[defect]
    result = planted(suite, defect, (*(WITHOUT_TLS if gate == "res.backoff" else SAMPLE), *own))
    if gate == "rel.p95" and re.search(r"the machine was|slipped", result.gate(gate)["reason"]):
        pytest.skip(f"nothing can be said about latency here: {result.gate(gate)['reason']}")
    assert result.failed == {gate}, result.open_checks
    assert not check or check in result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


def test_nothing_changed_is_clear(suite):
    """The control: started in the same way, with no defect."""
    result = planted(suite, "none", (*SAMPLE, "pool.locks", "tls.untrusted", "P1.reconnect"))
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown


OVERLAP = "schedule:latency@0.0-2.5+certificate@1.0-2.6"


def test_a_schedule_that_fails_is_made_smaller(suite):
    """The certificate alone is enough: what is printed is the smallest schedule, and one command for it."""
    result = planted(suite, "exits_on_a_bad_certificate", (OVERLAP,))
    assert result.failed == {"res.network"}, result.open_checks
    (check,) = [one for one in result.evidence["checks"] if one["id"] == OVERLAP]
    smallest = re.search(r"--only (\S+) --seed 1$", check["rerun"])[1]
    assert re.fullmatch(r"schedule:certificate@0\.0-\d\.\d", smallest), check
    assert smallest.removeprefix("schedule:") in check["detail"]


def test_outages_again_and_again(suite):
    result = planted(suite, "never_reconnects", ("recovery.network.1",))
    assert result.failed == {"res.network"}, result.open_checks
    assert "never" in result.failed_checks["recovery.network.1"]


def test_a_healthy_one_comes_through_both(suite):
    result = planted(suite, "none", (OVERLAP, "recovery.pool.1"))
    assert (result.code, result.failed) == (0, set()), result.open_checks
    written = json.loads((result.directory / "schedule.json").read_text(encoding="utf-8"))
    assert {"experiment": OVERLAP, "times": 1, "schedule": OVERLAP.removeprefix("schedule:")} in written["experiments"]


def test_every_defect_is_tried():
    assert set(PLANTED) == set(DEFECTS)
