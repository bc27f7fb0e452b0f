"""Rotation and expiry: what is wrong with a service, a rule or an exporter turns its own check red."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from chaos.checks import Limits, expiry, judge
from chaos.config import load
from chaos.environments.local import prometheus
from chaos.errors import PartMissing
from chaos.model import History, Outcome
from chaos.processes import Reaper
from chaos.rollout import expiry as experiment
from chaos.session import COMMAND
from tests.detection.conftest import REFERENCE

SERVICE = Path(__file__).with_name("rotation_defects.py")
TINY = Path(__file__).parent / "targets" / "tiny" / "chaos.toml"


def rotated(suite, defect):
    start = [sys.executable, str(SERVICE), defect, "{port}"]
    return suite(REFERENCE, start=start, env={}, only=("rotation",), workers=1)


def outcomes(result):
    return {check["id"]: check["outcome"] for check in result.evidence["checks"]}


def test_a_pinned_leaf_does_not_survive_a_new_one(suite):
    result = rotated(suite, "pins_the_leaf")
    assert result.failed == {"sec.cert_rotation"}
    assert set(result.failed_checks) == {"rotation.leaf"}, result.failed_checks
    assert "did not come back" in result.failed_checks["rotation.leaf"]


def test_who_verifies_nothing_trusts_the_withdrawn_authority(suite):
    result = rotated(suite, "trusts_whoever_has_the_name")
    assert set(result.failed_checks) == {"rotation.withdrawn"}, result.failed_checks
    assert outcomes(result)["rotation"] == "pass"


def test_a_service_in_another_framework_is_rotated(suite):
    """The control: nothing planted, and a pool that is not ours (psycopg_pool), on a server that keeps its port for a while."""
    result = suite(TINY, only=("rotation",), workers=1)
    assert result.failed == set(), result.failed_checks
    assert result.code == 0, result.shown


@pytest.fixture
def tried(tmp_path):
    """`tried(rules=..., command=...)`: the experiment on the given parts, judged; no target is needed for it."""
    try:
        prometheus.ensure()
    except PartMissing as error:
        pytest.fail(f"Prometheus is needed and could not be had: {error}")

    def run(*, rules=None, command=COMMAND):
        config = load(REFERENCE)
        alerts = SimpleNamespace(rules=rules) if rules else None
        target = SimpleNamespace(alerts=alerts)
        facts = {"gate": "sec.cert_expiry", "family": "expiry", "title": "x"}
        with Reaper("test") as reaper:
            rig = SimpleNamespace(
                config=SimpleNamespace(target=target, gates=config.gates, path=config.path),
                run_dir=tmp_path,
                worker="w",
                reaper=reaper,
                injects=False,
            )
            recording = SimpleNamespace(
                facts=facts, history=lambda: History(experiment="expiry", started=1.0, finished=2.0, facts=facts)
            )
            history = experiment.run(rig, None, recording, command)
        return {one.check: one for one in judge(history, Limits())}

    return run


def rules(tmp_path, change):
    path = tmp_path / "own.yml"
    path.write_text(change(experiment_rules()), encoding="utf-8")
    return path


def experiment_rules():
    from chaos.export.policy import Policy
    from chaos.export.prometheus import rules as written
    from chaos.gates import load as gates

    return written(Policy(target="orders", gates=gates(), metrics=None), ("certificates",))


def test_a_rule_with_another_threshold(tried, tmp_path):
    found = tried(rules=rules(tmp_path, lambda text: text.replace("<= 30 *", "<= 28 *")))
    assert {one.outcome for one in found.values()} == {Outcome.FAIL}
    assert "30 days: silent, 29 days: silent" in found["expiry.leaf"].detail


def test_a_rule_that_fires_too_soon(tried, tmp_path):
    found = tried(rules=rules(tmp_path, lambda text: text.replace("<= 30 *", "<= 90 *")))
    assert "31 days: fires" in found["expiry.crl"].detail
    assert {one.outcome for one in found.values()} == {Outcome.FAIL}


def test_a_rule_for_leaves_only_and_an_exporter_that_sees_no_intermediate(tried, tmp_path):
    """Both at once, since each is seen in another place."""
    blind = tmp_path / "blind.py"
    blind.write_text(
        "import sys\n"
        "from chaos.export import certificates\n"
        "seen = certificates.of_server\n"
        "certificates.of_server = lambda server: seen(server)[:1]\n"
        "from chaos.cli import main\n"
        "sys.argv[0] = 'chaos-gate'\n"
        "main()\n",
        encoding="utf-8",
    )
    own = rules(tmp_path, lambda text: text.replace("_seconds - time() <= 30", "_seconds{role!='crl'} - time() <= 30"))
    found = tried(rules=own, command=(sys.executable, str(blind)))
    failed = {check for check, one in found.items() if one.outcome is Outcome.FAIL}
    assert failed == {"expiry.intermediate", "expiry.crl"}
    assert "not exported" in found["expiry.intermediate"].detail
    assert found["expiry.leaf"].outcome is found["expiry.root"].outcome is Outcome.PASS


def test_rules_on_other_metrics_cannot_be_tried(tried, tmp_path):
    path = tmp_path / "other.yml"
    path.write_text("groups: []\n", encoding="utf-8")
    (found,) = tried(rules=path).values()
    assert found.outcome is Outcome.INCONCLUSIVE


def test_without_prometheus_nothing_is_passed():
    facts = {"gate": "sec.cert_expiry", "family": "expiry", "limit": "30", "missing": "Prometheus: not to be had"}
    (found,) = expiry.check(History(experiment="expiry", started=1.0, facts=facts), Limits())
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "not to be had" in found.detail
