"""Backoff recovers from TLS failures of the database: res.backoff."""

import pytest


@pytest.mark.families("certificate", "tls-off")
def test_tls_failure(prove, case):
    """PostgreSQL itself serves a bad certificate, or no TLS at all, and is mended."""
    prove(case)
