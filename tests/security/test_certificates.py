"""Certificates are rotated under load, and end with an alert before them: sec.cert_rotation, sec.cert_expiry. Nightly."""

import pytest


@pytest.mark.families("rotation")
def test_rotation(prove, case):
    """Every step of docs/certificate-rotation-sop.md, with the target under load."""
    prove(case)


@pytest.mark.families("expiry")
def test_expiry(prove, case):
    """The alerting rules of `chaos-gate export prometheus`, in promtool and in Prometheus, on what our exporter says."""
    prove(case)
