"""Structured logs carry what they must, and nothing private: sec.logs, sec.audit_log."""

import pytest


@pytest.mark.families("logs", "logs-fault")
def test_logs(prove, case):
    """Marked requests, refused hosts and private values; then every line that the target wrote of them."""
    prove(case)
