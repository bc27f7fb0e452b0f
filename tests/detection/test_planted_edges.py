"""Edges with one defect each, in front of a healthy service; and services with one that shows only behind an edge.

Red at the right gate, and at no other. The edges are a real Caddy with the mistakes that people make in its Caddyfile.
"""

import os
import sys
import tomllib
from pathlib import Path

import pytest

from tests.detection import planted_edge
from tests.detection.conftest import REFERENCE, dumps, run_suite, with_environment

HERE = Path(__file__).parent
EVERY = os.environ.get("CHAOS_DETECTION") == "all"
SAMPLE = ("edge", "hosts")
# Defect of the edge: its gate, and the check that has to see it.
EDGES = {
    "rewrites_host": ("sec.waf", "edge.h1.H73"),
    "rewrites_host_on_http2": ("sec.waf", "edge.h2.H73"),
    "refuses_unknown_hosts_itself": ("sec.waf", "edge.h1.signal"),
    "has_a_default_site": ("sec.unknown_host_2xx", "edge.h2.H01"),
    "has_error_pages_of_its_own": ("sec.waf", "edge.h2.signal"),
    "knows_no_crawlers": ("sec.waf", "edge.h1.served"),
    "believes_every_client": ("sec.waf", "edge.h1.forwarded"),
}
SERVICES = {
    "validates_direct_requests_only": ("sec.unknown_host_2xx", "edge.h1.H01"),
    "caches_by_path": ("sec.pentest", "edge.origin.H47"),
}
# The others with CHAOS_DETECTION=all: ten seconds each.
OFTEN = ("rewrites_host", "refuses_unknown_hosts_itself", "believes_every_client")


CADDY = ["caddy", "run", "--adapter", "caddyfile", "--config", str(HERE / "edges" / "Caddyfile")]
CACHE = [sys.executable, str(HERE / "edges" / "caching.py")]


def with_edge(directory, defect, start=CADDY):
    """The reference service's chaos.toml with an edge of the team's own."""
    made = with_environment(REFERENCE, directory, {})
    raw = tomllib.loads(made.read_text(encoding="utf-8"))
    raw["target"]["edge"] = {
        "start": start,
        "env": {
            "EDGE_PORT": "{edge_port}",
            "EDGE_CERT": "{edge_cert}",
            "EDGE_KEY": "{edge_key}",
            "ORIGIN_PORT": "{origin_port}",
            "EDGE_WORK": "{work_dir}",
            "EDGE_DEFECT": defect,
        },
    }
    made.write_text(dumps(raw), encoding="utf-8")
    return made


@pytest.mark.parametrize("defect", EDGES if EVERY else OFTEN)
def test_an_edge_is_red_at_its_own_gate_and_no_other(tmp_path, defect):
    gate, check = EDGES[defect]
    result = run_suite(with_edge(tmp_path, defect), tmp_path, only=SAMPLE)
    assert result.failed == {gate}, result.open_checks
    assert check in result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


@pytest.mark.parametrize("defect", SERVICES)
def test_a_service_is_red_behind_the_edge(suite, defect):
    gate, check = SERVICES[defect]
    start = [sys.executable, str(HERE / "planted_edge.py"), defect, "{port}"]
    result = suite(REFERENCE, start=start, env={}, only=SAMPLE)
    assert result.failed == {gate}, result.open_checks
    assert check in result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


def test_a_cache_that_is_poisoned_through_the_edge(tmp_path):
    """The application is clean, and so is its answer without the edge."""
    result = run_suite(with_edge(tmp_path, "none", [*CACHE, "unkeyed"]), tmp_path, only=SAMPLE)
    assert result.failed == {"sec.pentest"}, result.open_checks
    assert {"edge.h1.H47"} <= set(result.failed_checks)
    assert "edge.origin.H47" not in result.failed_checks


@pytest.mark.parametrize("start", [CADDY, *([[*CACHE, "keyed"]] if EVERY else [])], ids=["Caddy", "with a cache"][: 1 + EVERY])
def test_an_edge_of_the_teams_own_is_clear(tmp_path, start):
    """The controls: the same Caddyfile with no defect, and a cache that knows what its answers are built from."""
    result = run_suite(with_edge(tmp_path, "none", start), tmp_path, only=SAMPLE)
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown


def test_every_defect_is_tried():
    assert set(planted_edge.DEFECTS) == set(SERVICES)
