"""A candidate that answers recorded reads otherwise than the baseline does. Red for what it does, and at no other gate."""

import json
import os

import pytest

from tests.detection.conftest import run_suite
from tests.detection.test_planted_in_answers import planted

ALL = os.environ.get("CHAOS_DETECTION") == "all"
PATHS = [
    "/api/items?limit=3",
    "/api/items/1",
    "/api/items/0",
    "/api/items/abc",
    "/nothing/12",
    "/api/items/1?email=alice%40acme.test",
]
DEFECTS = {  # defect -> the gate, and the check that sees it
    "member_removed": ("rel.api_contract", "answers.shadow"),
    "fails_where_it_refused": ("rel.no_400_to_500", "statuses.shadow"),
    "type_changed": ("rel.api_contract", "answers.shadow"),
}


@pytest.fixture
def log(tmp_path):
    """240 reads in six seconds, and some of what is never sent."""
    lines = []
    for number in range(240):
        request = {"method": "POST" if number % 24 == 0 else "GET", "uri": PATHS[number % len(PATHS)], "host": "api.example.test"}
        lines.append(json.dumps({"ts": 1_790_000_000 + number / 40, "request": request, "status": 200, "duration": 0.01}))
    path = tmp_path / "access.log"
    path.write_text("\n".join([*lines, "garbage", ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize("defect", DEFECTS if ALL else ["fails_where_it_refused"])
def test_a_candidate_that_answers_otherwise(tmp_path, log, defect):
    result = run_suite(planted(tmp_path, candidate=defect), tmp_path, only=("shadow",), options=("--shadow", str(log)))
    gate, check = DEFECTS[defect]
    assert (result.failed, set(result.failed_checks)) == ({gate}, {check}), result.open_checks
    assert result.code == 1


def test_a_candidate_that_answers_the_same(tmp_path, log):
    result = run_suite(planted(tmp_path, candidate="as_it_is"), tmp_path, only=("shadow",), options=("--shadow", str(log)))
    assert result.code == 0, result.open_checks
    checks = {check["id"]: check for check in result.evidence["checks"]}
    assert {name for name, check in checks.items() if check["outcome"] == "pass"} >= {
        "reads.shadow",
        "answers.shadow",
        "statuses.shadow",
    }
    assert "10 neither GET nor HEAD" in checks["reads.shadow"]["detail"]
    assert b"alice" not in b"".join(path.read_bytes() for path in result.directory.rglob("*") if path.is_file())


def test_without_a_log_it_does_not_apply(tmp_path):
    result = run_suite(planted(tmp_path, candidate="as_it_is"), tmp_path, only=("shadow", "contract"))
    (shadow,) = [check for check in result.evidence["checks"] if check["id"] == "shadow"]
    assert shadow["outcome"] == "not_applicable"
    assert "--shadow" in shadow["detail"]
