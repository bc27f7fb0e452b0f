"""The pen-test delta through `chaos-gate run`: services with one hole each are red at sec.pentest and nowhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.detection.conftest import REFERENCE, TARGETS
from tests.detection.test_planted_edges import CADDY, with_edge
from tests.unit.pentest_app import tls

SERVICE = Path(__file__).with_name("one_change.py")
SAMPLE = ("hosts", "pentest.sample")
DEFECTS = {"rights_by_raw_path": "PB01", "rights_by_method_override": "PM04", "rights_by_forwarded_address": "PB16"}
EVERY = os.environ.get("CHAOS_DETECTION") == "all"


@pytest.mark.parametrize("defect", DEFECTS if EVERY else list(DEFECTS)[:1])
def test_a_hole_shows_in_the_sample_of_every_run(suite, defect):
    start = [sys.executable, str(SERVICE), defect, "{port}"]
    result = suite(REFERENCE, start=start, env={}, only=SAMPLE)
    assert result.failed == {"sec.pentest"}, result.open_checks
    assert DEFECTS[defect] in result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


def test_a_server_that_takes_both_lengths(suite, tmp_path):
    """In full, for the gate was named; and what was found is a file of its own, which can be accepted - but for what is critical."""
    tiny = TARGETS / "tiny" / "chaos.toml"
    result = suite(tiny, env={"MODE": "length-over-chunks"}, only=("sec.pentest",))
    assert result.failed == {"sec.pentest"}, result.open_checks
    assert set(result.failed_checks) == {"PS01", "PS05"}
    found = json.loads((result.directory / "pentest.json").read_text())["findings"]
    assert (found[0]["row"], found[0]["severity"], found[0]["state"]) == ("PS01", "critical", "")
    assert "printf '%b'" in found[0]["again"]
    config = tmp_path / "chaos.toml"
    accept = [sys.executable, "-m", "chaos", "accept", str(result.directory), "-c", str(config)]
    shown = subprocess.run(accept, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "critical, so not accepted; mend these:\n  PS01 | origin | " in shown
    kept = json.loads((tmp_path / "chaos.accepted.json").read_text())["findings"]
    assert {"high", "info"} <= set(kept.values()) <= {"high", "medium", "low", "info"}


HTTPS = """
[target]
name = "an edge"
url = "https://127.0.0.1:{port}"
live = "/"
[[target.read]]
path = "/"
"""


@pytest.mark.parametrize(("defect", "row"), [("old", "PT01"), ("", "")])
def test_an_edge_with_the_tls_of_1999(suite, tmp_path, defect, row):
    config = tmp_path / "chaos.toml"
    with tls(defect) as (_, port):
        config.write_text(HTTPS.format(port=port))
        result = suite(config, only=("sec.pentest",))
    assert result.failed == ({"sec.pentest"} if row else set()), result.open_checks
    assert (row in result.failed_checks) == bool(row)
    assert result.code == (1 if row else 0), result.shown


NAIVE = [sys.executable, str(Path(__file__).parent / "edges" / "naive.py")]


@pytest.mark.skipif(not EVERY, reason="half a minute: CHAOS_DETECTION=all")
@pytest.mark.parametrize(("start", "rows"), [(NAIVE, {"PT01", "PT02"}), (CADDY, set())])
def test_the_edge_of_a_team_is_asked_as_well(suite, tmp_path, start, rows):
    result = suite(with_edge(tmp_path, "", start), only=("sec.pentest",))
    assert result.failed == ({"sec.pentest"} if rows else set()), result.open_checks
    assert rows <= set(result.failed_checks)
