"""Recorded production reads on both releases: rel.api_contract, rel.no_400_to_500. Nightly; not applicable without --shadow."""

import pytest


@pytest.mark.families("shadow")
def test_shadow(prove, case):
    """Sent again at their own pace; statuses, shapes and latency of the candidate beside the baseline's."""
    prove(case)
