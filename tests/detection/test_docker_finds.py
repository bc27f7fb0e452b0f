"""In containers the suite finds what it finds locally: a sample of the planted defects; and it clears what is healthy."""

import shutil
import sys

import pytest

from tests.detection.conftest import REFERENCE, run_suite, with_environment
from tests.detection.docker_image import build, config
from tests.detection.test_planted_reference import DEFECTS, SERVICE

# One for each kind of oracle: the wire, the network, PostgreSQL itself, the data, the answers.
SAMPLE = ("tries_plaintext_first", "waits_for_a_silent_server", "gives_up_on_a_bad_certificate", "acknowledges_and_forgets")


@pytest.mark.parametrize("defect", SAMPLE)
def test_red_at_its_own_gate_and_no_other(docker, tmp_path, defect):
    gate, check, own = DEFECTS[defect]
    made = with_environment(REFERENCE, tmp_path, {}, [sys.executable, str(SERVICE), defect, "--port", "{port}"])
    result = run_suite(made, tmp_path, only=("network.refused.pooled", *own), backend="docker")
    assert result.failed == {gate}, result.failed_checks
    assert check in result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (1, "NO-GO")


def test_every_kind_of_fault_at_a_healthy_service_is_clear(docker, tmp_path):
    """One case of each family, with the evidence of the local backend; the edge is a container too."""
    only = ("network.reset.pooled", "tls.off", "tls.expired", "pool.slots", "restart.immediate")
    result = run_suite(REFERENCE, tmp_path, only=(*only, "C16.start", "server", "rollback"), backend="docker")
    assert result.failed == set(), result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown
    effects = {one["id"]: one["took_effect"] for one in result.evidence["checks"] if one["id"] in only}
    assert effects == dict.fromkeys(only, True)
    assert result.gate("res.rollback")["verdict"] == "pass"


@pytest.mark.skipif(not shutil.which("go"), reason="the service is built with Go, which is not here")
@pytest.mark.parametrize("kind", ["host", "bridge"])
def test_a_target_that_is_an_image(docker, tmp_path, kind):
    """Its setup command runs in the image, it meets every fault, and its backend is chosen by itself."""
    made = config(tmp_path, build(tmp_path), kind)
    only = ("network.blackhole.pooled", "tls.untrusted", "restart.fast", "C3.start", "rollback")
    result = run_suite(made, tmp_path, only=only, backend="auto")
    assert result.failed == set(), result.failed_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.shown
    outcomes = {one["id"]: one["outcome"] for one in result.evidence["checks"]}
    assert {name: outcomes[name] for name in only} == dict.fromkeys(only, "pass")
