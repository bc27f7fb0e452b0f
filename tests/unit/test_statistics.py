"""Bounds against published values, and their coverage by simulation."""

import math
import random

import pytest

from chaos import statistics as st
from chaos.model import Outcome


@pytest.mark.parametrize(
    ("limit", "n"), [(0.001, 2995), (0.005, 598), (0.01, 299), (0.05, 59), (0.002, 1497)]
)  # statistics.md, Rates; the 'rule of three' gives nearly the same
def test_how_many_without_a_failure(limit, n):
    assert st.needed(limit) == n
    assert st.upper(0, n) <= limit < st.upper(0, n - 1)


def _at_most(bad, n, rate):
    return sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(bad + 1))


@pytest.mark.parametrize(("bad", "n"), [(0, 59), (1, 10), (5, 50), (10, 100), (3, 2000)])
def test_clopper_pearson_is_where_the_binomial_tail_is_five_percent(bad, n):
    """The definition (Clopper and Pearson, 1934), with the tail summed term by term."""
    assert _at_most(bad, n, st.upper(bad, n)) == pytest.approx(0.05, abs=1e-6)
    if bad:
        assert 1 - _at_most(bad - 1, n, st.lower(bad, n)) == pytest.approx(0.05, abs=1e-6)


def test_no_data_bounds_nothing():
    assert (st.lower(0, 0), st.upper(0, 0)) == (0.0, 1.0)
    assert st.judge_rate(0, 0, 0.5) is Outcome.INCONCLUSIVE


def test_all_bad():
    assert st.upper(7, 7) == 1.0
    assert st.lower(7, 7) == pytest.approx(0.05 ** (1 / 7))


def test_coverage_is_at_least_95_percent():
    rng = random.Random(1)
    for rate in (0.002, 0.02, 0.3):
        covered = 0
        for _ in range(400):
            n = 200
            bad = sum(rng.random() < rate for _ in range(n))
            covered += st.upper(bad, n) >= rate
        assert covered >= 0.93 * 400  # 95 % less three standard errors of the simulation


def test_three_valued():
    assert st.judge_rate(0, 598, 0.005) is Outcome.PASS
    assert st.judge_rate(0, 597, 0.005) is Outcome.INCONCLUSIVE
    assert st.judge_rate(20, 100, 0.005) is Outcome.FAIL
    assert st.judge_rate(1, 100, 0.005) is Outcome.INCONCLUSIVE


def test_needed_after_a_failure():
    n = st.needed_after(1, 0.01)
    assert st.upper(1, n) <= 0.01 < st.upper(1, n - 1)


def test_design_effect_of_bursts():
    assert st.design_effect([(0, 100)] * 10) == 1.0
    assert st.design_effect([(1, 100)] * 10) == 1.0
    assert st.design_effect([(10, 100)] + [(0, 100)] * 9) > 5


def test_episodes():
    assert st.episodes([]) == []
    assert st.episodes([0.0, 1.0, 59.0, 200.0, 201.0]) == [3, 2]


def test_the_episodes_own_bound():
    assert st.upper_of_episodes([], 2995) == pytest.approx(0.001, rel=0.01)  # the rule of three
    assert st.upper_of_episodes([30], 10_000) > st.upper(30, 10_000)  # one burst says little about how often there is one
    assert st.wider([(0, 100)] * 30, []) == pytest.approx(st.upper(0, 3000), rel=0.01)


def test_error_budget():
    """0.075 % of errors over 48 hours is 5 % of a month's budget (statistics.md, Error budget)."""
    a_month, two_days = 30 * 24, 48
    assert st.burn(0.00075 * two_days, a_month) == pytest.approx(0.05)
    assert st.burn(1, 0) == 0.0


def test_bursts_of_minutes():
    assert st.clusters([(0, 600)] * 5) == ([], 0)
    assert st.clusters([(0, 600), (30, 600), (12, 600), (0, 600), (7, 600), (0, 600)]) == ([42, 7], 0)
    assert st.clusters([(6, 600)] * 9 + [(90, 600)]) == ([90], 54)  # six a minute is what is usual here


def test_one_number_holds_the_wider_bound():
    blocks = [(0, 600)] * 100 + [(60, 600)] + [(0, 600)] * 19
    deff = st.effective(blocks)
    bad, n = 60, 72_000
    assert st.upper(bad / deff, n / deff) == pytest.approx(st.wider(blocks, [60]), rel=1e-6)
    assert st.upper(bad / deff, n / deff) > 2 * st.upper(bad, n)
    assert st.effective([(0, 600)] * 10) == 1.0


def test_single_failures_give_the_bound_of_a_poisson_mean():
    """Garwood's table: 95 % one-sided upper limits of 1 and 5 events are 4.74 and 10.51."""
    assert st.upper_of_episodes([1], 1e6) * 1e6 == pytest.approx(4.74, abs=0.01)
    assert st.upper_of_episodes([], 1e6, alone=5) * 1e6 == pytest.approx(10.51, abs=0.01)
