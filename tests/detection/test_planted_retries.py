"""How a service retries and what it does with its connections, with one thing wrong: red at its own gate, and at no other.

A long outage takes a minute, a fault that is repeated three times as well: some are in every run, all are with CHAOS_DETECTION=all.
"""

import os

import pytest

from tests.detection.conftest import TARGETS

KNOCKER = TARGETS / "knocker" / "chaos.toml"
SAMPLE = ("network.refused.pooled",)  # of everything else
# mode: its gate, the check that has to see it
SHORT = {
    "keeper-hot": ("res.backoff", "backoff.tls"),
    "keeper-fixed": ("res.backoff", "backoff.tls"),
    "each-nested": ("res.backoff", "backoff.tls"),
    "each-insists": ("res.backoff", "backoff.password"),
    "pool-waits": ("res.pool", "pool.slots"),
    "pool-liveness": ("res.pool", "pool.slots"),
    "pool-leaks": ("res.pool", "pool.leak"),
}
LONG = {
    "keeper-no_jitter": ("res.backoff", "jitter.backoff.replicas"),
    "keeper-lost_at_cap": ("res.backoff", "jitter.backoff.replicas"),
    "keeper-herd": ("res.backoff", "jitter.backoff.replicas"),
    "keeper-no_cap": ("res.backoff", "backoff.replicas"),
}
ALL = os.environ.get("CHAOS_DETECTION") == "all"
REPRESENTATIVE = ("each-insists", "pool-leaks", "keeper-lost_at_cap")
PLANTED = {**SHORT, **LONG}
# Those that every other check has nothing against. In an outage that outlasts their queue, or their liveness, they are worse than that.
ALONE = {"pool-waits", "pool-liveness"}


@pytest.mark.parametrize("mode", PLANTED if ALL else REPRESENTATIVE)
def test_red_at_its_own_gate_and_no_other(suite, mode):
    gate, check = PLANTED[mode]
    result = suite(KNOCKER, env={"MODE": mode}, only=(check, *(() if mode in ALONE else SAMPLE)))
    assert result.failed == {gate}, result.open_checks
    assert check in result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


HEALTHY = {
    "each": ("backoff.tls", "backoff.password", "pool.stale", *SAMPLE),
    "pool": ("backoff.password", "pool.stale", "pool.leak"),
    "keeper": ("backoff.tls", "backoff.password", "backoff.database", "pool.stale", *SAMPLE),
}


@pytest.mark.skipif(not ALL, reason="half a minute each: CHAOS_DETECTION=all")
@pytest.mark.parametrize("mode", HEALTHY)
def test_nothing_planted_is_clear(suite, mode):
    result = suite(KNOCKER, env={"MODE": mode}, only=HEALTHY[mode])
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown


@pytest.mark.skipif(not ALL, reason="a minute each: CHAOS_DETECTION=all")
@pytest.mark.parametrize("mode", ["each", "keeper"])
def test_a_long_outage_of_a_healthy_one(suite, mode):
    result = suite(KNOCKER, env={"MODE": mode}, only=("backoff.replicas",))
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown
