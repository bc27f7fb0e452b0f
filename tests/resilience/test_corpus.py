"""No 400 that turns into a 500: rel.no_400_to_500, over a corpus of requests that deserve a 4xx."""

import pytest


@pytest.mark.families("corpus-sample", "corpus-steady", "corpus-fault")
def test_corpus(prove, case):
    """Listed, generated from OpenAPI, and recorded; with nothing broken, and under each fault."""
    prove(case)


@pytest.mark.families("corpus-candidate")
def test_corpus_on_the_candidate(prove, case):
    """The release under judgement beside the baseline."""
    prove(case)
