"""Backoff recovers from pool exhaustion, in the service and in the server: res.pool."""

import pytest


@pytest.mark.families("locks", "slow", "slots")
def test_pool(prove, case):
    """Locks, slow queries, max_connections."""
    prove(case)


@pytest.mark.families("stale", "leak")
def test_connections(prove, case):
    """Dead connections in the pool are got over, and queries that fail take none out of it."""
    prove(case)
