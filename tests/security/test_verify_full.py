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


@pytest.mark.families("cancel")
def test_cancel(prove, case):
    """A service that cancels queries does it over a connection that is as safe as the others."""
    prove(case)


@pytest.mark.families("server", "injection")
def test_server_side(prove, case):
    """What PostgreSQL itself shows: plaintext refused, every session TLS, injected bytes not obeyed."""
    prove(case)
