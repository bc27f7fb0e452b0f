"""Promote, hold, pause: what is made of what two releases were seen to do. The simulation is benchmarks/canary_simulated.py."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from chaos.checks.arms import Arm, Latencies, by_second, thinned
from chaos.checks.deciding import BUDGET, Step, decide
from chaos.histogram import Histogram
from chaos.model import Interval, Kind, Outcome


def arm(n, *, slower=1.0, **counts):
    """`n` good requests, and what `counts` say; latencies of 10 to 40 ms, the same shape for all."""
    made = Arm(asked=n, hosted=n)
    for name, count in counts.items():
        setattr(made, name, count)
    for second in range(20):
        made.reads.add(Counter({round(slower * (0.010 + 0.0003 * i), 6): max(1, n // 2000) for i in range(100)}), at=second)
    return made


def step(candidate=None, baseline=None, weight=5, **more):
    return Step(weight=weight, candidate=candidate or arm(2_000), baseline=baseline or arm(38_000), **more)


def sight(decision, rule):
    return next(one for one in decision.sights if one.rule == rule)


def test_a_healthy_candidate_is_promoted_when_its_time_has_come():
    assert decide(step()).action == "promote"
    waiting = decide(step(), due=False)
    assert waiting.action == "hold"
    assert "by plan" in waiting.why


def test_too_few_requests_hold_and_say_what_is_missing():
    held = decide(step(candidate=arm(100)))
    assert held.action == "hold"
    assert "not yet proven" in held.why


def test_a_hold_that_times_out_pauses_and_accuses_nobody():
    ended = decide(step(candidate=arm(100)), over=True)
    assert (ended.action, ended.culprit) == ("pause", "undecided")
    assert "the time for it is over" in ended.why


BAD = {
    "5xx": {"failed": 40},
    "handshakes": {"handshakes": 300, "broken": 9},
    "hosts": {"refused": 300},
    "4xx": {"deserving": 100, "flipped": 8},
    "writes": {"looked_up": 50, "lost": 1},
}


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_pauses_by_itself(rule):
    baseline = arm(38_000, refused=1_900, handshakes=300, deserving=2_000)
    paused = decide(step(candidate=arm(2_000, **{"refused": 100, **BAD[rule]}), baseline=baseline), due=False)
    assert (paused.action, paused.culprit) == ("pause", "candidate"), paused
    assert paused.rules == (rule,)


def test_what_is_slower_pauses_and_what_is_as_slow_does_not():
    assert decide(step(candidate=arm(2_000, slower=1.4))).rules == ("P95",)
    assert decide(step(candidate=arm(2_000, slower=1.05))).action == "promote"


def test_twenty_failures_in_a_row_need_no_statistics():
    paused = decide(step(candidate=arm(100_000, failed=20, row=20)))
    assert paused.rules == ("5xx",)
    assert "20 in a row" in paused.why


def test_what_the_baseline_does_as_well_is_not_held_against_the_candidate():
    paused = decide(step(candidate=arm(2_000, failed=60), baseline=arm(38_000, failed=1_200)))
    assert (paused.action, paused.culprit) == ("pause", "both")


def test_a_wave_of_scanners_hits_both_and_pauses_nobody():
    wave = step(candidate=arm(2_000, refused=600), baseline=arm(38_000, refused=11_400))
    assert decide(wave).action == "promote"


def test_who_gave_no_answer_has_no_name_and_is_not_accused():
    paused = decide(step(nobody=Arm(asked=900, failed=900)))
    assert (paused.action, paused.culprit) == ("pause", "nobody")


def test_the_budget_of_bad_requests_ends_a_hold():
    near = decide(step(candidate=arm(100_000, failed=BUDGET + 90), baseline=arm(1_000)))
    assert (near.action, near.culprit) == ("pause", "undecided"), near
    assert "bad requests are enough" in near.why


def test_a_pool_that_shook_hands_five_times_is_not_held_for_more():
    promoted = decide(step(candidate=arm(2_000, handshakes=5)))
    assert promoted.action == "promote"
    assert "1,497 would prove" in sight(promoted, "handshakes").says
    assert decide(step(candidate=arm(2_000, handshakes=30, broken=1))).action in {"hold", "pause"}


def test_alone_it_is_held_against_what_was_learned():
    learned = tuple((float(40 + i % 7), 400.0) for i in range(40))
    quiet = step(weight=100, baseline=Arm(), candidate=arm(4_000, refused=430), learned=learned)
    assert decide(quiet).action == "promote"
    assert decide(step(weight=100, baseline=Arm(), candidate=arm(4_000, refused=1_400), learned=learned)).rules == ("hosts",)


def interval(second, **more):
    latency = Histogram()
    latency.record(0.01 + second / 1e5)
    given = {
        "sample": "read[0]",
        "kind": Kind.READ,
        "release": "candidate",
        "sent": 4,
        "good": 3,
        "statuses": {"200": 3, "500": 1},
    }
    return Interval(started=1000.0 + second, seconds=1.0, latency=latency.text(), over={"0.12": 1}, **{**given, **more})


def test_intervals_become_counts():
    made = Arm()
    made.take(
        [
            interval(0),
            interval(0, sample="unknown-host", kind=Kind.HOST, good=4, statuses={"400": 4}),
            interval(0, sample="invalid[0]", kind=Kind.INVALID, good=2, statuses={"400": 2, "500": 1, "timeout": 1}),
            interval(0, sample="seo", good=1, statuses={"200": 1, "404": 3}),  # what a crawler finds may be anything
        ]
    )
    assert (made.asked, made.failed, made.hosted, made.refused) == (16, 3, 12, 4)
    assert (made.deserving, made.flipped, len(made.reads)) == (4, 1, 2)


def test_a_row_of_failures_is_counted_and_ended_by_a_good_one():
    made = Arm()
    for second in range(3):
        made.take([interval(second, sent=8, good=0, statuses={"502": 8})])
    assert made.row == 24
    made.take([interval(4)])
    assert made.row == 0


def test_what_is_kept_in_longer_stretches_is_judged_alike():
    """A long step keeps minutes where it saw seconds: recheck must come to the same numbers."""
    seen = [interval(second, good=4, statuses={"200": 4}) for second in range(180)]
    kept = thinned(seen, 60.0)
    assert len(kept) < 6
    arms = []
    for these in (seen, kept):
        made = Arm(reads=Latencies(60.0))
        for together in by_second(these):
            made.take(together)
        arms.append(made)
    live, again = arms
    assert (live.asked, live.failed, live.hosted) == (again.asked, again.failed, again.hosted)
    assert live.reads.above(0.011) == again.reads.above(0.011)
    assert live.reads.quantile(0.95) == again.reads.quantile(0.95)


def test_the_simulated_roll_outs_come_out():
    command = [sys.executable, Path(__file__).parents[2] / "benchmarks" / "canary_simulated.py", "--runs", "1", "--only", "bad"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_outcomes_of_a_sight_are_three():
    assert {one.outcome for one in decide(step()).sights} == {Outcome.PASS}
