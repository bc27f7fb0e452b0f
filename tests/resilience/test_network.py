"""Backoff recovers from each network drop between the service and its database: res.network."""

import pytest


@pytest.mark.families("network")
def test_network(prove, case):
    """Refused, reset, black hole, slow, narrow, sliced, cut; on established and on new connections."""
    prove(case)


@pytest.mark.families("restart")
def test_restart(prove, case):
    """PostgreSQL goes away as a whole, and comes back."""
    prove(case)


@pytest.mark.families("stall")
def test_stall(prove, case):
    """A server that accepts connections and falls silent at one place of their start."""
    prove(case)


@pytest.mark.families("cross", "flapping", "replica")
def test_paths(prove, case):
    """Each network fault by the state of connections, direction and length; a path that flaps; one replica of two."""
    prove(case)


@pytest.mark.families("life", "bouncer", "starting")
def test_life(prove, case):
    """Processes killed, long recovery, fail-over, a full disk, locks, deadlocks, a migration, PgBouncer, an instance that starts."""
    prove(case)


@pytest.mark.families("recovery")
def test_recovery(prove, case):
    """Outage after outage, of lengths and at moments that nobody chose."""
    prove(case)


@pytest.mark.families("schedule")
def test_schedule(prove, case):
    """Faults that overlap."""
    prove(case)
