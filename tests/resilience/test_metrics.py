"""The metrics that dashboards need exist, and move as the faults do: rep.dashboards."""

import pytest


@pytest.mark.families("metrics", "metrics-tls", "metrics-pool")
def test_metrics(prove, case):
    """Scrapes before, while and after something happens of which the metrics have to tell."""
    prove(case)
