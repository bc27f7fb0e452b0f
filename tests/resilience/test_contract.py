"""The candidate keeps the API contract of the baseline: rel.api_contract. Nightly; not applicable without [target.candidate]."""

import pytest


@pytest.mark.families("delta")
def test_delta(prove, case):
    """Latency and throughput of both under one load."""
    prove(case)


@pytest.mark.families("contract")
def test_contract(prove, case):
    """Descriptions and real answers of both releases, asked the same on one database."""
    prove(case)
