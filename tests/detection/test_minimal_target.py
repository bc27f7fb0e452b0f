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


def test_recorded_requests_are_asked_too(tmp_path):
    line = '203.0.113.9 - - [27/Nov/2026:10:00:00 +0000] "GET {} HTTP/1.1" {} 12 "-" "curl"'
    recorded = [line.format(f"/nothing/{number}?email=alice%40acme.test", 404) for number in range(40)]
    log = tmp_path / "access.log"
    log.write_text("\n".join([*recorded, line.format("/one", 200), "garbage", ""]), encoding="utf-8")
    run = Run(tmp_path, TINY, only=("corpus.sample",), options=("--shadow", str(log)))
    assert run.wait() == 0, run.told()
    (check,) = [one for one in run.evidence["checks"] if one["id"] == "corpus.sample"]
    assert check["outcome"] == "pass"
    assert "42 recorded requests, 40 different ones kept; left out: 1 answered otherwise, 1 unreadable" in check["detail"]
    assert b"alice" not in b"".join(path.read_bytes() for path in run.directory.rglob("*") if path.is_file())
    assert run.left() == []


def test_a_log_that_is_none_is_a_usage_error(tmp_path):
    log = tmp_path / "access.log"
    log.write_text("nothing of the kind\n", encoding="utf-8")
    run = Run(tmp_path, TINY, only=("corpus.sample",), options=("--shadow", str(log)))
    assert run.wait() == 2
    assert "none of its lines is an access log's" in run.stderr
