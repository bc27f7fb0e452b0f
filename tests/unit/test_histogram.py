"""Histograms of latencies: exact enough, and added up without loss."""

import math

import pytest

from chaos.histogram import Histogram, merged


def filled(values):
    one = Histogram()
    for value in values:
        one.record(value)
    return one


def test_quantiles_are_within_a_thousandth():
    one = filled(index / 1000 for index in range(1, 1001))
    assert one.quantile(0.5) == pytest.approx(0.5, rel=1e-3)
    assert one.quantile(0.99) == pytest.approx(0.99, rel=1e-3)
    assert len(one) == 1000


def test_parts_add_up_to_the_whole():
    values = [0.001 * (1 + index % 977) for index in range(5000)]
    parts = [filled(values[start::7]) for start in range(7)]
    assert merged([one.text() for one in parts] + [""]).text() == filled(values).text()


def test_an_empty_one_says_so():
    assert Histogram().text() == ""
    assert math.isnan(Histogram().quantile(0.5))


def test_what_is_out_of_range_is_at_its_end():
    one = filled([-1.0, 0.0, 7200.0])
    assert len(one) == 3
    assert one.quantile(1.0) == pytest.approx(3600, rel=1e-3)
