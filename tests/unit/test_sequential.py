"""E-processes, comparisons of two releases, and the hours of a soak. The simulations are benchmarks/statistics_simulated.py."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.comparison import FEWEST, quantile_ratio, rate_ratio, within
from chaos.hours import Colour, Hour, judge, streak
from chaos.model import Outcome
from chaos.sequential import PAUSE, TRIP, Watch, e_value

LIMIT = 0.005


def test_nothing_seen_is_no_evidence():
    assert e_value(0, 0, LIMIT) == 1.0
    assert e_value(0, 10_000, LIMIT) < 1e-2


@pytest.mark.parametrize("n", [1, 7, 60])
def test_its_expectation_at_the_limit_is_one(n):
    """The definition of an e-value, summed over every outcome."""
    whole = sum(math.comb(n, k) * LIMIT**k * (1 - LIMIT) ** (n - k) * e_value(k, n, LIMIT) for k in range(n + 1))
    assert whole == pytest.approx(1.0, abs=1e-6)
    below = sum(math.comb(n, k) * 0.001**k * 0.999 ** (n - k) * e_value(k, n, LIMIT) for k in range(n + 1))
    assert below < 1.0


def test_a_limit_of_zero_is_a_census():
    assert (e_value(0, 100, 0.0), e_value(1, 100, 0.0)) == (1.0, math.inf)


def test_huge_counts_overflow_to_infinity_and_not_into_an_error():
    assert e_value(50_000, 100_000, LIMIT) == math.inf


def test_a_watch_pauses_and_says_why():
    watch = Watch(LIMIT)
    for number in range(400):
        watch.add(failed=number % 20 == 0)
        watch.look()
    assert watch.highest >= PAUSE
    assert "evidence" in watch.pauses


def test_once_reached_it_stays_reached():
    watch = Watch(LIMIT)
    for number in range(10_000):
        watch.add(failed=number < 10)
        watch.look()
    assert watch.look() < PAUSE <= watch.highest
    assert watch.pauses


def test_the_trip_wire():
    watch = Watch(0.9)
    for _ in range(TRIP):
        watch.add(failed=True)
    assert watch.pauses == "20 failures in a row"


def test_quantiles_of_two_releases():
    blocks = [[0.01 * (1 + i % 7 / 10 + j / 100) for j in range(50)] for i in range(30)]
    slower = [[2 * one for one in block] for block in blocks]
    assert within(quantile_ratio(blocks, blocks, 0.95), 1.15) is Outcome.PASS
    assert within(quantile_ratio(blocks, slower, 0.95), 1.15) is Outcome.FAIL
    few = quantile_ratio(blocks[:5], slower, 0.95)
    assert within(few, 1.15) is Outcome.INCONCLUSIVE
    assert str(FEWEST) in few.why


def test_a_spike_of_unknown_hosts():
    buckets = [(40.0 + (i % 5) * 4, 1.0) for i in range(30)]
    assert rate_ratio(buckets, 50, 1.0).low < 1
    assert rate_ratio(buckets, 400, 1.0).low > 1
    assert rate_ratio(buckets[:10], 400, 1.0).why


def hour(number=0, bad=0, n=36_000, **more):
    return Hour(number=number, counts={"rel.availability": (bad, n, 0.001)}, **more)


@pytest.mark.parametrize(
    ("one", "colour", "why"),
    [
        (hour(), Colour.GREEN, ""),
        (hour(bad=40), Colour.GREEN, ""),  # 0.11 %: not the hour's fault, at the level that 48 of them share
        (hour(bad=100), Colour.RED, "rel.availability"),
        (hour(wrong=1), Colour.RED, "lost"),
        (hour(burn=15.0), Colour.RED, "budget"),
        (hour(covered=0.98), Colour.GREY, "seconds"),
        (hour(lag=0.02), Colour.GREY, "slipped"),
        (hour(bad=100, covered=0.5), Colour.RED, "rel.availability"),
    ],
)
def test_the_colour_of_an_hour(one, colour, why):
    judged = judge(one)
    assert judged.colour is colour
    assert why in judged.why


def test_red_resets_the_streak_and_grey_pauses_it():
    good = [judge(hour(i)) for i in range(20)]
    grey = [judge(hour(i, covered=0.98)) for i in range(20, 22)]
    more = [judge(hour(i)) for i in range(22, 50)]
    assert streak([*good, *grey, *more]).reached
    unseen = [judge(hour(i, covered=0.5)) for i in range(20, 22)]  # an hour in all, and a thousandth of 50 hours may be
    assert streak([*good, *unseen, *more]).longest == 28
    red = [judge(hour(i, wrong=1)) for i in range(20, 22)]
    seen = streak([*good, *red, *more])
    assert (seen.now, seen.longest, seen.red, seen.reached) == (28, 28, 2, False)


def test_an_hour_that_nobody_looked_at_is_grey():
    assert streak([judge(hour(0)), judge(hour(3))]).grey == 2


def test_the_simulations_come_out():
    command = [sys.executable, Path(__file__).parents[2] / "benchmarks" / "statistics_simulated.py", "--runs", "60", "--only"]
    for part in ("bounds", "soak"):
        done = subprocess.run([*command, part], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
