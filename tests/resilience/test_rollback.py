"""A bad release is rolled back by one command, and the database put back to a point in time: res.rollback."""

import pytest


@pytest.mark.families("rollback")
def test_rollback(prove, case):
    """Time until steady against ten minutes; acknowledged writes still there."""
    prove(case)


@pytest.mark.families("restore")
def test_restore(prove, case):
    """Base backup and archived WAL, under load: RTO and RPO; what was acknowledged before the point is there, nothing of later."""
    prove(case)
