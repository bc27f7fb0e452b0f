"""Schedules of overlapping faults: drawn within the cap, written and read back, made smaller."""

import itertools

import pytest

from chaos.faults import schedule
from chaos.faults.schedule import Step, read, smaller, spelt
from chaos.shrinking import shrink


def test_what_is_drawn_keeps_the_cap_and_is_read_back():
    drawn = [schedule.random_one(seed, number) for seed in range(100) for number in range(1, 9)]
    assert all(not schedule.beyond(one) and read(spelt(one)) == one for one in drawn)
    assert all(schedule.STEPS[0] <= len(one) <= schedule.STEPS[1] for one in drawn)
    assert {step.kind for one in drawn for step in one} == set(schedule.KINDS)
    at_once = [sum(a.start <= b.start < a.end for a in one) for one in drawn for b in one]
    assert max(at_once) == schedule.AT_ONCE  # they do overlap, and never more


def test_the_seed_draws_it():
    assert schedule.random_one(7, 1) == schedule.random_one(7, 1)
    assert schedule.random_one(7, 1) != schedule.random_one(8, 1)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("latency", "is no step"),
        ("nothing@0.0-1.0", "is no step"),
        ("latency@0.0-9.0", "lasts"),
        ("latency@0.0-0.1", "lasts"),
        ("latency@0.0-2.0+cut@0.5-2.0+slicer@1.0-2.0", "at once"),
        ("latency@0.0-2.0+slow@0.5-2.0", "cannot lie over"),
        ("slots@0.0-2.0+restart@0.5-2.0", "cannot lie over"),
    ],
)
def test_what_cannot_be_carried_out(word, why):
    with pytest.raises(ValueError, match=why):
        read(word)


def test_everything_smaller_is_smaller_and_may_be_carried_out():
    for seed in range(200):
        whole = schedule.random_one(seed, 1)
        for one in smaller(whole):
            assert not schedule.beyond(one)
            assert _size(one) < _size(whole)


def _size(one):
    return sum(step.end - step.start for step in one)


def test_shrinks_to_what_matters():
    """It fails while a black hole lies over a slow path; the third fault, and most of the time, are beside the point."""
    whole = read("latency@0.0-3.0+blackhole@1.0-5.0+slots@4.0-7.0")
    runs = itertools.count()

    def fails(one):
        next(runs)
        return {"latency", "blackhole"} <= {step.kind for step in one}

    smallest = shrink(whole, fails)
    assert {step.kind for step in smallest} == {"latency", "blackhole"}
    assert _size(smallest) <= _size(read("latency@0.0-1.5+blackhole@1.0-3.0"))
    assert next(runs) <= 12


def test_nothing_smaller_fails():
    whole = read("latency@0.0-2.0+cut@1.0-3.0")
    assert shrink(whole, lambda _: False) == whole


def test_ends_when_its_time_is_over():
    whole = (Step(0.0, 2.0, "cut"),)
    assert shrink(whole, lambda _: True, budget=0.0) == whole
