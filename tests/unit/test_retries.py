"""The estimators of retries, by simulation; and what a long outage of several instances is judged to show."""

import importlib.util
import json
import random
from pathlib import Path

import pytest

from chaos import retries
from chaos.checks import judge
from chaos.checks.limits import Limits
from chaos.evidence import raster
from chaos.model import Connection, Effect, History, Kind, Operation, Outcome, Rung, Window

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "retry_estimators.py"
OUTAGE = 45.0


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("retry_estimators", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_error_rates_by_simulation(simulation):
    """Forty draws of each scheme; the command's 400 are for the document."""
    found = simulation.table(40, 12)
    for name, (_, grows, jittered) in simulation.SCHEMES.items():
        for truth, counts in ((grows, found[name][0]), (jittered, found[name][2])):
            if truth is False:
                assert counts[Outcome.PASS] <= 2, name
            if truth:
                assert counts[Outcome.FAIL] <= 2, name
                assert counts[Outcome.PASS] >= 36 or name in simulation.HARD, name


def test_few_clients_say_nothing():
    assert retries.growth([[1.0] * 9] * 4) is None
    assert retries.jitter([[1.0] * 9] * 4, noise=0.0) is None
    assert retries.growth([]) is None


def test_only_pauses_that_all_completed_count():
    assert retries.completed([[1.0, 2.0, 3.0], [1.0, 2.0]]).shape == (2, 2)


def test_noise_is_no_jitter():
    """A spread that the machine alone explains is never a pass."""
    rng = random.Random(3)
    clients = [[1.0 + rng.uniform(0, 0.2) for _ in range(12)] for _ in range(12)]
    assert retries.jitter(clients, noise=0.001).outcome is Outcome.PASS
    assert retries.jitter(clients, noise=0.16).outcome is Outcome.INCONCLUSIVE


def test_herd():
    assert retries.herd([[1.0, 5.00], [1.0, 5.05], [1.0, 7.0], [1.0, 9.0]]) == 1.0
    assert retries.herd([[1.0, 5.00], [1.0, 5.05], [1.0, 7.0], [1.0, 9.0]], after=2.0) == 0.5
    assert retries.herd([]) == 0.0


# -- the check ----------------------------------------------------------------------------------------------------------------------


def attempts(client, delay, *, until=OUTAGE, chains=1):
    found = []
    for _ in range(chains):
        at, failures = 0.0, 0
        while at < until:
            found.append(at)
            failures += 1
            at += 0.012 + max(0.0, delay(failures)) + 0.001
    return [
        Connection(id=number, opened=at, closed=at + 0.012, behaviour="impostor:x", reached=Rung.CLIENT_HELLO, client=client)
        for number, at in enumerate(sorted(found))
    ]


def recorded(make, *, count=8, lag=0.5, control=True, chains=1, asked=False, operations=(), **more):
    rng = random.Random(5)
    told, connections = [], []
    for number in range(1, count + 1):
        name = f"replica {number}"
        told.append(
            {
                "name": name,
                "onset": 0.0,
                "begun": 0.0,
                "loaded": OUTAGE,
                "healed": OUTAGE + 5,
                "lag": lag,
                "asked": asked,
                "exited": "",
            }
            | more
        )
        connections += attempts(name, make(rng), chains=chains)
    for number in range(1, 9):
        spread = 0.0 if control else 0.5
        connections += attempts(f"control {number}", lambda n: min(2.0, 0.1 * 2**n) * (1 + rng.uniform(-spread, spread)))  # noqa: B023
    return History(
        experiment="backoff.replicas",
        started=0.0,
        windows=(Window(fault="x", scope="", injected=0.0, healed=OUTAGE + 5, effect=Effect(took=True, seen="")),),
        connections=tuple(connections),
        operations=tuple(operations),
        facts={"gate": "res.backoff", "family": "replicas", "replicas": json.dumps(told), "wanted": str(count), "title": "t"},
    )


def outcomes(history, **limits):
    return {one.check.partition(".backoff")[0]: one for one in judge(history, Limits(**limits))}


def full(rng):
    return lambda n: rng.uniform(0, min(2.0, 0.02 * 2**n))


def doubling(_rng):
    return lambda n: min(2.0, 0.01 * 2**n)


def test_healthy_instances_pass():
    found = outcomes(recorded(full))
    assert found["backoff.replicas"].outcome is Outcome.PASS
    assert found["jitter"].outcome is Outcome.PASS
    assert found["cap"].outcome is Outcome.PASS
    assert found["growth"].outcome in {Outcome.PASS, Outcome.NOT_APPLICABLE}


def test_no_jitter_fails_unless_the_policy_takes_it():
    found = outcomes(recorded(doubling))
    assert found["jitter"].outcome is Outcome.FAIL
    assert found["growth"].outcome is Outcome.PASS
    taken = outcomes(recorded(doubling), policy={"backoff.jitter": "report"})
    assert taken["jitter"].outcome is Outcome.NOT_APPLICABLE
    assert taken["jitter"].severity == "high"


def test_chains_in_lockstep_are_a_herd():
    assert outcomes(recorded(doubling, chains=4))["jitter"].outcome is Outcome.FAIL


def drifting(rng):
    """Chains without jitter that began at different moments."""
    return lambda n: min(2.0, 0.01 * 2**n) + (rng.uniform(0, 1.5) if n == 1 else 0)


def test_chains_without_jitter_beside_each_other_are_found_out():
    assert outcomes(recorded(drifting, chains=4))["jitter"].outcome is Outcome.FAIL


def test_jittered_chains_side_by_side_are_not_accused():
    found = outcomes(recorded(full, chains=5))
    assert {one.outcome for one in found.values()} <= {Outcome.PASS, Outcome.NOT_APPLICABLE}


def test_a_control_that_is_not_found_out_leaves_jitter_open():
    found = outcomes(recorded(full, control=False))
    assert found["jitter"].outcome is Outcome.INCONCLUSIVE
    assert "clients of ours" in found["jitter"].detail


def test_too_few_instances_leave_it_open():
    found = outcomes(recorded(doubling, count=4))
    assert (found["growth"].outcome, found["jitter"].outcome) == (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE)


def test_waits_beyond_recovery_fail():
    def uncapped(rng):
        return lambda n: rng.uniform(0.5, 1.0) * 0.1 * 2**n

    assert outcomes(recorded(uncapped))["cap"].outcome is Outcome.FAIL


def test_fixed_pauses_fail():
    found = outcomes(recorded(lambda _rng: lambda _n: 1.0))
    assert found["backoff.replicas"].outcome is Outcome.FAIL
    assert found["growth"].outcome is Outcome.FAIL


def test_linear_growth_is_reported():
    found = outcomes(recorded(lambda rng: lambda n: 0.2 * n * rng.uniform(0.7, 1.0)))
    assert found["growth"].outcome is Outcome.NOT_APPLICABLE
    assert found["growth"].severity == "low"


def test_who_comes_back_late_fails():
    assert outcomes(recorded(full, lag=-1.0))["backoff.replicas"].outcome is Outcome.FAIL
    assert outcomes(recorded(full, lag=11.0))["backoff.replicas"].outcome is Outcome.FAIL
    assert outcomes(recorded(full, exited="exit status 1"))["backoff.replicas"].outcome is Outcome.FAIL


def test_one_attempt_a_request_has_no_backoff_to_show():
    operations = [
        Operation(
            kind=Kind.READ, method="GET", path="/", sample="read[0]", started=at, finished=at + 0.05, client=f"replica {number}"
        )
        for number in range(1, 9)
        for at in (0.09 * turn for turn in range(400))
    ]
    history = recorded(lambda _rng: lambda _n: 0.065, asked=True, operations=operations)
    found = outcomes(history)
    assert found["backoff.replicas"].outcome is Outcome.PASS
    assert {found[name].outcome for name in ("growth", "jitter", "cap")} == {Outcome.NOT_APPLICABLE}


def test_nobody_came_up():
    history = recorded(full, count=0)
    assert outcomes(history)["backoff.replicas"].outcome is Outcome.INCONCLUSIVE


def test_the_raster_holds_every_client():
    (drawn,) = raster.rasters(recorded(full))
    assert len(drawn.rows) == 16
    assert "8 instances" in drawn.said()
    assert raster.rasters(History(experiment="x", started=0.0)) == []


@pytest.mark.parametrize("chains", [2, 3, 4, 6, 8])
def test_ten_per_cent_of_jitter_in_several_chains_are_no_failure(chains):
    found = outcomes(recorded(lambda rng: lambda n: min(2.0, 0.02 * 2**n) * rng.uniform(0.9, 1.1), chains=chains))
    assert found["jitter"].outcome is not Outcome.FAIL
