"""Backoff recovers from pool exhaustion, in the service and in the server: res.pool."""

import pytest


@pytest.mark.families("locks", "slow", "slots")
def test_pool(prove, case):
    """Locks, slow queries, max_connections."""
    prove(case)
