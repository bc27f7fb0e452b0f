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
