"""With nothing broken: the control of everything else, and the sample for availability and latency."""

import pytest


@pytest.mark.families("steady")
def test_steady(prove, case):
    """Open-loop load, and requests that deserve a 4xx."""
    prove(case)
