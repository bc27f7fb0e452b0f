"""The documents of the review are there, fresh and whole: rep.documents. INCONCLUSIVE without [documents] in chaos.toml."""

import pytest


@pytest.mark.families("documents")
def test_documents(prove, case):
    """Read from the disk; nothing is started for it."""
    prove(case)
