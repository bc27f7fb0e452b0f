"""What no number of well-behaved retry chains can look like; and, by simulation, that they never do."""

import random

import pytest

from chaos.checks import backoff, judge
from chaos.checks.limits import Limits
from chaos.model import Connection, Effect, History, Kind, Operation, Outcome, Rung, Window

QUIET = 7.0
TRIES = 0.012  # s that a failing attempt takes


def attempt(number, opened, *, took=TRIES, **more):
    values = {"reached": Rung.CLIENT_HELLO, "closed": opened + took, "behaviour": "impostor:untrusted-ca", **more}
    return Connection(id=number, opened=opened, **values)


def chain(rng, delay, *, until, start=0.0):
    """Times of attempts of one chain: `delay(failures)` seconds after each."""
    at, failures, found = start + rng.uniform(0, 0.01), 0, []
    while at < until:
        found.append(at)
        failures += 1
        at += TRIES + max(0.0, delay(failures)) + abs(rng.gauss(0, 0.002))  # a timer fires late, never early
    return found


def outage(times, operations=(), *, begun=0.0, ends=QUIET + 2):
    """A history of one outage: QUIET seconds of silence from `begun`, then two in which things are asked."""
    return (
        [attempt(number, at) for number, at in enumerate(sorted(times))],
        list(operations),
        Window(fault="backoff.tls", scope="", injected=begun, healed=begun + ends, effect=Effect(took=True, seen="met")),
        (begun, begun + QUIET),
    )


def history(*outages, exited=""):
    return History(
        experiment="backoff.tls",
        started=0.0,
        windows=tuple(one[2] for one in outages),
        connections=tuple(each for one in outages for each in one[0]),
        operations=tuple(each for one in outages for each in one[1]),
        exited=exited,
        facts={
            "gate": "res.backoff",
            "family": "backoff",
            "silences": " ".join(f"{one[3][0]!r}-{one[3][1]!r}" for one in outages),
        },
    )


def outcome(*outages, **more):
    return next(one.outcome for one in judge(history(*outages, **more), Limits()) if one.gate == "res.backoff")


def full(base, cap):
    return lambda rng: lambda failures: rng.uniform(0, min(cap, base * 2 ** (failures - 1)))


def equal(base, cap):
    return lambda rng: lambda failures: min(cap, base * 2 ** (failures - 1)) * rng.uniform(0.5, 1.0)


def plus_minus(base, cap, share):
    return lambda rng: lambda failures: min(cap, base * 2 ** (failures - 1)) * rng.uniform(1 - share, 1 + share)


def growing(base, cap, factor=2.0):
    return lambda _rng: lambda failures: min(cap, base * factor ** (failures - 1))


HEALTHY = {
    "full jitter": full(0.05, 2.0),
    "full jitter, low cap": full(0.02, 1.5),
    "full jitter, cap of a second": full(0.05, 1.0),
    "equal jitter": equal(0.1, 2.0),
    "+-10 %": plus_minus(0.1, 2.0, 0.1),
    "exponential, no jitter (a pool of Java's)": growing(0.25, 5.0, 1.3),
    "doubling without a cap (psycopg_pool)": growing(1.0, 1e9),
}
BROKEN = {
    "at once": lambda _rng: lambda _failures: 0.0,
    "every 20 ms": lambda _rng: lambda _failures: 0.02,
    "every 100 ms": lambda _rng: lambda _failures: 0.1,
    "every 300 ms": lambda _rng: lambda _failures: 0.3,
    "every second": lambda _rng: lambda _failures: 1.0,
    "every second, +-5 %": lambda rng: lambda _failures: rng.uniform(0.95, 1.05),
}


def chains(rng, make, count):
    return [at for _ in range(count) for at in chain(rng, make(rng), until=QUIET)]


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_no_healthy_client_is_accused(name, count):
    """One outage is accused in less than 4 % of draws, so three in a row in less than 1 of 10,000."""
    rng = random.Random(f"{name} {count}")
    accused = sum(backoff.suspicious(history(outage(chains(rng, HEALTHY[name], count)))) for _ in range(400))
    assert accused <= 16


# Chains that overlap are judged by their rate alone, which takes CROWD attempts in two seconds; slow ones that also drift
# apart are not told from slow exponential ones.
@pytest.mark.parametrize(
    ("name", "count"), [*((name, 1) for name in BROKEN), *((name, 8) for name in BROKEN if name != "every second, +-5 %")]
)
def test_fixed_intervals_are_seen(name, count):
    rng = random.Random(f"{name} {count}")
    seen = sum(backoff.suspicious(history(outage(chains(rng, BROKEN[name], count)))) for _ in range(100))
    assert seen >= 95


def gated(rng, delay):
    """A target that connects when it is asked, but not before `delay(failures)` has passed: attempts and requests of seven seconds."""
    at, allowed, failures = QUIET + 0.1, 0.0, 0
    times, operations = [], []
    while at < QUIET + 7:
        done = at + 0.004
        if at >= allowed:
            failures += 1
            done = at + 0.004 + TRIES
            times.append(at + 0.002)
            allowed = done + delay(failures)
        operations.append(read(at, done - at))
        at = done + rng.uniform(0.03, 0.09)
    return outage(times, operations, ends=QUIET + 7.2)


@pytest.mark.parametrize("name", HEALTHY)
def test_no_healthy_gate_is_accused(name):
    rng = random.Random(name)
    assert sum(backoff.suspicious(history(gated(rng, HEALTHY[name](rng)))) for _ in range(400)) <= 16


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in {"at once", "every 20 ms", "every 100 ms"}])
def test_a_gate_that_opens_at_fixed_times_is_seen(name):
    rng = random.Random(name)
    assert sum(backoff.suspicious(history(gated(rng, BROKEN[name](rng)))) for _ in range(100)) >= 95


def test_one_attempt_a_request_is_no_retry():
    rng = random.Random(1)
    assert not any(backoff.suspicious(history(gated(rng, lambda _failures: 0.0))) for _ in range(100))


def three(times, operations=()):
    return [
        outage(
            [at + shift for at in times],
            [one if not shift else _later(one, shift) for one in operations],
            begun=shift,
        )
        for shift in (0.0, 20.0, 40.0)
    ]


def _later(one, shift):
    return read(one.started + shift, one.finished - one.started)


def read(at, seconds):
    return Operation(kind=Kind.READ, method="GET", path="/x", sample="read[0]", started=at, finished=at + seconds, status=503)


def asked(pattern, *, requests=6):
    """Attempts at these offsets inside each of some requests, after the silence."""
    begins = [QUIET + 0.1 + 0.25 * number for number in range(requests)]
    return [at + offset for at in begins for offset in pattern], [read(at, max(pattern) + 0.03) for at in begins]


def test_one_bad_draw_is_no_failure_and_three_are():
    bad = outage([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    good = outage([20.0, 20.1, 20.4, 21.2, 23.0, 25.5], begun=20.0)
    assert outcome(bad) is Outcome.FAIL
    assert outcome(bad, good) is Outcome.PASS


def test_a_client_that_connects_when_asked_is_no_storm():
    times, operations = asked([0.01])
    assert outcome(*three(times, operations)) is Outcome.PASS


def test_a_second_try_at_once_is_no_storm():
    """A dead pooled connection tried again, or two addresses of one name."""
    times, operations = asked([0.001, 0.014])
    assert outcome(*three(times, operations)) is Outcome.PASS


def test_many_tries_at_once_are_a_storm():
    times, operations = asked([0.0, 0.013, 0.026, 0.039, 0.052])
    assert outcome(*three(times, operations)) is Outcome.FAIL


def test_a_storm_is_one_on_a_busy_machine_too():
    """One pause in four may be the machine's."""
    times, operations = asked([0.0, 0.013, 0.026, 0.080, 0.093])
    assert outcome(*three(times, operations)) is Outcome.FAIL


def test_fixed_pauses_within_requests_are_seen_and_growing_ones_are_not():
    times, operations = asked([0.0, 0.062, 0.124])
    assert outcome(*three(times, operations)) is Outcome.FAIL
    times, operations = asked([0.0, 0.062, 0.174])
    assert outcome(*three(times, operations)) is Outcome.PASS


def test_a_plaintext_retry_is_the_same_attempt():
    """`prefer` makes two connections an attempt: how it waits is judged by attempts. That it goes plaintext is another gate's."""
    pairs = [attempt(0, 1.0), attempt(1, 1.02, plaintext=True, reached=Rung.STARTUP)]
    assert [one.id for one in backoff.tried(pairs, 0.0, 2.0)] == [0]


def test_no_attempt_shows_nothing():
    assert outcome(outage([])) is Outcome.INCONCLUSIVE


def test_an_exit_is_a_failure():
    assert outcome(outage([0.1]), exited="exit status 1") is Outcome.FAIL
