"""An edge in front of the service changes no Host and hides no refusal: sec.waf; and hosts are validated behind it as without it."""

import pytest


@pytest.mark.families("edge")
def test_edge(prove, case):
    """Every row of the host catalogue through a real edge, over HTTP/1.1 and HTTP/2; and whether a cache can be poisoned."""
    prove(case)
