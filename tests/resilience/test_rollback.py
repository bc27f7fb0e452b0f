"""A bad release is put out, seen, and rolled back by one command: res.rollback."""

import pytest


@pytest.mark.families("rollback")
def test_rollback(prove, case):
    """Time until steady against ten minutes; acknowledged writes still there."""
    prove(case)
