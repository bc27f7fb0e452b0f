"""Connections that are not verify-full are rejected: sec.verify_full."""

import pytest


@pytest.mark.families("start")
def test_wrong_server_at_start(prove, case):
    """A service that has never met anything but the impostor; and the right certificate as a control."""
    prove(case)


@pytest.mark.families("reconnect")
def test_wrong_server_on_reconnect(prove, case):
    """A running service whose connections are cut, and which finds the impostor when it comes back."""
    prove(case)


@pytest.mark.families("server")
def test_server_side(prove, case):
    """What PostgreSQL itself shows: plaintext refused, every session TLS."""
    prove(case)
