"""The reference service with one thing wrong in its log or its metrics: red at the right gate and check, and at no other."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.detection.conftest import REFERENCE
from tests.detection.planted_logs import DEFECTS as PLANTED

SERVICE = Path(__file__).with_name("planted_logs.py")
QUICK = ("lines.logs", "endpoint.metrics")  # the two experiments that break nothing: half a second each
# Defect: its gate, the checks that have to see it, the experiments beside those two.
DEFECTS = {
    "no_request_id_on_errors": ("sec.logs", {"request_id.logs"}, ()),
    "answers_another_id": ("sec.logs", {"request_id.logs"}, ()),
    "one_host_for_all": ("sec.logs", {"host.logs"}, ()),
    "no_cipher": ("sec.logs", {"tls_cipher.logs"}, ()),
    "version_made_up": ("sec.logs", {"tls_version.logs"}, ()),
    "upstream_by_name": ("sec.logs", {"upstream_ip.logs"}, ()),
    "no_code_on_errors": ("sec.logs", {"error_code.logs"}, ()),
    "every_request_has_a_code": ("sec.logs", {"error_code.logs"}, ()),
    "errors_in_plain_text": ("sec.logs", {"lines.logs"}, ()),
    "members_by_hand": ("sec.logs", {"lines.logs"}, ()),
    "logs_queries": ("sec.logs", {"privacy.logs"}, ()),
    "logs_bodies_in_base64": ("sec.logs", {"privacy.logs"}, ()),
    "says_where_its_database_is": ("sec.logs", {"privacy.logs"}, ()),
    "traceback_with_headers": ("sec.logs", {"privacy.logs.fault"}, ("lines.logs.fault",)),
    "refusals_like_any_request": ("sec.audit_log", {"audit.logs"}, ()),
    "unknown_hosts_not_counted": ("rep.dashboards", {"unknown_host.metrics"}, ()),
    "errors_not_counted": ("rep.dashboards", {"errors_4xx.metrics"}, ()),
    "latency_stands_still": ("rep.dashboards", {"latency.metrics"}, ()),
    "tls_failures_not_counted": ("rep.dashboards", {"tls_errors.metrics.tls"}, ("metrics.tls",)),
    "metrics_ask_the_database": ("rep.dashboards", {"endpoint.metrics.tls"}, ("metrics.tls",)),
    "pool_gauge_stuck": ("rep.dashboards", {"pool_busy.metrics.pool"}, ("metrics.pool",)),
    "metrics_are_a_page": ("rep.dashboards", {"endpoint.metrics"}, ()),
    "metrics_have_no_end": ("rep.dashboards", {"endpoint.metrics"}, ()),
}
# One of each kind; all of them with CHAOS_DETECTION=all (three minutes).
SOME = (
    "no_request_id_on_errors",
    "one_host_for_all",
    "errors_in_plain_text",
    "logs_bodies_in_base64",
    "traceback_with_headers",
    "refusals_like_any_request",
    "unknown_hosts_not_counted",
    "pool_gauge_stuck",
)


def planted(suite, defect, only):
    return suite(REFERENCE, start=[sys.executable, str(SERVICE), defect, "{port}"], env={}, only=only)


@pytest.mark.parametrize("defect", DEFECTS if os.environ.get("CHAOS_DETECTION") == "all" else SOME)
def test_red_at_its_own_gate_and_no_other(suite, defect):
    gate, checks, own = DEFECTS[defect]
    result = planted(suite, defect, (*QUICK, *own))
    assert result.failed == {gate}, result.open_checks
    assert set(result.failed_checks) >= checks, result.open_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


def test_every_defect_is_tried():
    assert set(PLANTED) == {*DEFECTS, "none"}


def test_a_leak_is_not_repeated_in_the_evidence(suite):
    """What was found in the log is shown where it stood, without the value."""
    result = planted(suite, "logs_queries", QUICK[:1])
    shown = result.shown + (result.directory / "report.html").read_text() + str(result.evidence)
    assert "email, sent in query, in clear" in shown
    assert re.search(r"email=(<|&lt;)email(>|&gt;)@private", shown)
    assert not re.search(r"[0-9a-f]{24}@private", shown)
