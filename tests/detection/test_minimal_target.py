"""A target that says as little as chaos.toml allows: no hosts, no writes, no table of its own. What it has not is not applicable."""

from tests.detection.tiny_run import TINY, Run


def test_what_a_target_has_not_is_not_applicable_and_never_a_pass(tmp_path):
    run = Run(tmp_path, TINY, only=("pool.locks", "network.refused.pooled", "sec.unknown_host_2xx"))
    assert run.wait() == 0, run.told()
    outcomes = {check["id"]: check["outcome"] for check in run.evidence["checks"]}
    assert outcomes["pool.locks"] == "not_applicable"
    assert outcomes["network.refused.pooled"] == "pass"
    gates = {gate["id"]: gate["verdict"] for gate in run.evidence["gates"]}
    assert gates["sec.unknown_host_2xx"] == gates["res.durability"] == "not_applicable"
    assert run.left() == []
