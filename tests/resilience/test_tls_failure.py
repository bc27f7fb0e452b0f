"""Backoff recovers from TLS failures of the database: res.backoff."""

import pytest


@pytest.mark.families("certificate", "tls-off")
def test_tls_failure(prove, case):
    """PostgreSQL itself serves a bad certificate, or no TLS at all, and is mended."""
    prove(case)


@pytest.mark.families("backoff")
def test_backoff(prove, case):
    """What the target attempts while nobody asks it for anything, and what each request makes it attempt."""
    prove(case)


@pytest.mark.families("final")
def test_final(prove, case):
    """An error that no retry mends is not insisted on."""
    prove(case)


@pytest.mark.families("replicas")
def test_replicas(prove, case):
    """Several instances in a long outage: do their pauses grow, are they jittered, are they capped, and do all of them come back."""
    prove(case)
