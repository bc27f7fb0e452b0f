"""Unknown hosts are refused and listed ones served: sec.unknown_host_2xx, sec.unknown_host_400, sec.host_allowlist."""

import pytest


@pytest.mark.families("hosts")
def test_hosts(prove, case):
    """Every row of the host catalogue that an origin can be asked over HTTP/1.1, as raw bytes."""
    prove(case)
