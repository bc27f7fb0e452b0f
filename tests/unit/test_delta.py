"""rel.delta: a candidate that is slower, or does less, is found; the same release is not; what cannot be compared says why."""

import random
from collections import Counter
from dataclasses import replace
from statistics import NormalDist

import pytest
from click.testing import CliRunner

from chaos.checks.longrun import Account, compared, judge_run, recorded
from chaos.checks.longrun.delta import BLOCKS, Arm
from chaos.cli import cli
from chaos.comparison import quantile_ratio_of_counts
from chaos.histogram import Histogram
from chaos.model import Interval, Kind, Outcome
from tests.unit.long_run import LIMITS, START, Service


def arm(factor=1.0, *, minutes=40, a_minute=900, release="", seed=1, good=1.0, first=0):
    """Reads and writes, one interval each a minute; within a minute latencies hang together."""
    dice = random.Random(seed)
    for minute in range(minutes):
        filled, moved = Histogram(), dice.gauss(0, 0.01)
        for i in range(200):  # the quantiles of a log-normal, as exactly as 200 values can
            filled.record(factor * 0.01 * 2.718 ** (moved + 0.4 * _normal((i + dice.random()) / 200)), a_minute // 200 + 1)
        for sample, kind, asked in (("read[0]", Kind.READ, a_minute), ("write[0]", Kind.WRITE, a_minute // 10)):
            yield Interval(
                started=START + (minute * 2 + first) * 60,
                seconds=60,
                sample=sample,
                kind=kind,
                release=release,
                planned=asked,
                sent=asked,
                good=round(asked * good),
                latency=filled.text() if kind is Kind.READ else "",
            )


def _normal(share):
    return NormalDist().inv_cdf(min(0.9999, max(0.0001, share)))


@pytest.fixture(scope="module")
def baseline():
    return list(arm(release="baseline"))


def test_the_same_release_is_within_5_percent(baseline):
    found = compared(baseline, arm(seed=2))
    assert found.outcome is Outcome.PASS, found.detail
    assert "P95 x 1.0" in found.detail
    assert found.gate == "rel.delta"


def test_a_slower_release_fails(baseline):
    found = compared(baseline, arm(1.15, seed=2))
    assert found.outcome is Outcome.FAIL
    assert found.measured == pytest.approx(1.15, rel=0.03)


def test_a_release_that_answers_less_fails(baseline):
    found = compared(baseline, arm(seed=2, good=0.9))
    assert found.outcome is Outcome.FAIL
    assert "throughput x 1.11" in found.detail


def test_too_little_is_open_and_says_what_is_missing(baseline):
    few = compared(baseline, arm(seed=2, a_minute=400, minutes=25))
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "not the same rate" in few.detail
    same = compared(arm(a_minute=400, minutes=25), arm(seed=2, a_minute=400, minutes=25))
    assert "needs 25,000 reads an arm, there are 15,000" in same.detail
    assert same.outcome is Outcome.INCONCLUSIVE
    assert "needs 20 stretches of time of the candidate, there are 5" in compared(baseline, arm(minutes=5)).detail


def test_another_mix_is_another_service(baseline):
    moved = {Kind.READ: -90, Kind.WRITE: 90}
    other = [replace(one, planned=one.planned + moved[one.kind], sent=one.sent + moved[one.kind]) for one in arm(seed=2)]
    found = compared(baseline, other)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "not the same mix: read[0]" in found.detail


def test_faults_are_left_out(baseline):
    broken = [replace(one, stratum="fault", good=0) for one in arm(seed=3)]
    assert compared(baseline, [*arm(seed=2), *broken]).outcome is Outcome.PASS


def test_an_account_compares_releases_that_take_turns(baseline):
    one = Account(LIMITS)
    other = list(arm(1.2, release="candidate", first=1, seed=2))
    for i in range(40):
        for mine in (baseline, other):
            minute = Service(every=1, broken=lambda _: False).minute(i)
            one.feed(replace(minute, intervals=tuple(mine[2 * i : 2 * i + 2])))
    found = next(each for each in one.findings() if each.gate == "rel.delta")
    assert found.outcome is Outcome.FAIL
    assert "interleaved" in found.detail
    assert one.rates["rel.availability"].n == 40 * 990  # the baseline's requests are not the candidate's


def test_a_recorded_run_is_kept_with_the_run_that_is_compared_with_it():
    service = Service(hours=1, every=1, broken=lambda _: False)
    kept = recorded(service.minutes(), before=START)
    assert len(kept.intervals) == 60 * 4
    found = next(each for each in judge_run([kept, *service.minutes()], LIMITS) if each.gate == "rel.delta")
    assert found.outcome is Outcome.PASS, found.detail
    assert "a recorded run" in found.detail
    slower = Service(hours=1, every=1, broken=lambda _: False, middle=lambda _: 0.0096)
    found = next(each for each in judge_run([kept, *slower.minutes()], LIMITS) if each.gate == "rel.delta")
    assert found.outcome is Outcome.FAIL


def test_a_long_run_is_kept_in_few_blocks():
    filled = Arm()
    minute = list(arm(minutes=1))
    for i in range(600):
        filled.add([replace(one, started=one.started + 60 * i, latency="") for one in minute])
    assert len(filled.blocks) <= BLOCKS
    assert filled.seconds == 36_000
    assert filled.asked.total() == 600 * 990


def test_a_baseline_that_is_not_there_is_said_before_anything_starts(tmp_path):
    done = CliRunner().invoke(cli, ["soak", "--hours", "0.1", "--baseline", str(tmp_path / "none"), "--evidence", str(tmp_path)])
    assert done.exit_code == 2
    assert "there is no evidence here" in done.output


def test_what_the_machine_did_to_both_cancels_out_where_they_are_paired():
    """Stretches that are ten times slower than others, for both: drawn together they say more than drawn apart."""
    rng = random.Random(1)
    arms = [[], []]
    for _ in range(60):
        busy = 10 if rng.random() < 0.06 else 1  # about as much of the time as a P95 is about
        for place, factor in ((0, 1.0), (1, 1.2)):
            counts = Counter(round(busy * factor * rng.uniform(5, 6), 1) for _ in range(400))
            arms[place].append(counts)
    apart, together = (quantile_ratio_of_counts(*arms, 0.95, paired=paired) for paired in (False, True))
    assert together.low > 1.05 > apart.low
    assert together.high / together.low < 0.5 * apart.high / apart.low
