"""Mistakes about requests that deserve a 4xx, which no listed request shows: red at rel.no_400_to_500, and at no other gate."""

import os
import sys
from pathlib import Path

import pytest

from tests.detection.conftest import REFERENCE

SERVICE = Path(__file__).with_name("corpus_defects.py")
DEFECTS = {
    "any_exception_is_a_500": "corpus.sample",
    "too_large_a_number": "corpus.sample",
    "nul_in_text": "corpus.sample",
    "hangs_on_a_bad_body": "corpus.sample",
    "validates_after_a_query": "corpus.sample",
    "holds_a_connection_it_does_not_need": "corpus.sample",
    "error_handler_writes_to_the_database": "corpus.sample",
    "candidate_makes_a_500_of_it": "corpus.candidate",
    "candidate_accepts_it": "corpus.candidate",
}
# Four of them (a hang takes its deadlines) are left to CHAOS_DETECTION=all.
LONG = {"hangs_on_a_bad_body", "nul_in_text", "error_handler_writes_to_the_database", "too_large_a_number"}
CHOSEN = DEFECTS if os.environ.get("CHAOS_DETECTION") == "all" else DEFECTS.keys() - LONG
SHOWS_CURL = DEFECTS.keys() - {"hangs_on_a_bad_body", "candidate_accepts_it"}


@pytest.mark.parametrize("defect", sorted(CHOSEN))
def test_red_at_its_own_gate_and_no_other(suite, defect):
    result = suite(
        REFERENCE,
        start=[sys.executable, str(SERVICE), defect, "{port}"],
        env={},
        only=(DEFECTS[defect], "network.refused.pooled"),
    )
    assert result.failed == {"rel.no_400_to_500"}, result.open_checks
    assert set(result.failed_checks) == {DEFECTS[defect]}, result.open_checks
    shown = result.shown + (result.directory / "report.html").read_text(encoding="utf-8")
    assert ("curl -i" in shown) == (defect in SHOWS_CURL)
