"""An acknowledged write is there, once: res.durability. Every other fault looks its writes up too; this one strikes where it hurts."""

import pytest


@pytest.mark.families("commit-cut")
def test_commit(prove, case):
    """PostgreSQL has committed, and the answer never arrives."""
    prove(case)
