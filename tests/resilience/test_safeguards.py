"""What is there for the day on which a roll-out goes wrong: roll.safeguards."""

import pytest


@pytest.mark.families("safeguards")
def test_safeguards(prove, case):
    """Flag, bypass, warm pools, pinned chain: each shown in both directions."""
    prove(case)
