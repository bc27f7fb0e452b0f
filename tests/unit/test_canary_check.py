"""Recorded steps, the drill and the end of a roll-out, judged again from the record; and the safeguards' own judging."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from chaos.checks import Limits, judge
from chaos.checks.safeguards import check as safeguard
from chaos.commands.canary import Length, Steps
from chaos.commands.canary import command as canary_command
from chaos.histogram import Histogram
from chaos.model import History, Interval, Kind, Outcome

SECONDS = 20


def rows(release, per_second, *, failed=0):
    latency = Histogram()
    for i in range(per_second):
        latency.record(0.01 + 0.0001 * i)
    return [
        Interval(
            started=1000.0 + second,
            seconds=1.0,
            sample="read[0]",
            kind=Kind.READ,
            release=release,
            sent=per_second,
            good=per_second - failed,
            statuses={"200": per_second - failed, **({"500": failed} if failed else {})},
            latency=latency.text(),
        )
        for second in range(SECONDS)
    ]


def step(failed=0, base=0, **facts):
    told = {"gate": "roll.canary", "family": "canary", "weight": "50", "due": "yes", "over": "no", "decision": "promote"}
    told |= {"first": "yes", "width": "1"}
    return History(
        experiment="canary.50",
        started=1000.0,
        facts={**told, **facts},
        intervals=(*rows("baseline", 100, failed=base), *rows("candidate", 100, failed=failed)),
    )


BACK = {"decision": "pause", "back": "0.20", "after.baseline": "300", "after.candidate": "0", "since": "0.5"}


def outcomes(history):
    return {one.check: (one.gate, one.outcome) for one in judge(history, Limits(schema=None))}


def test_a_promotion_is_decided_again():
    assert outcomes(step()) == {"canary.50": ("roll.canary", Outcome.PASS)}
    assert outcomes(step(decision="hold"))["canary.50"][1] is Outcome.INCONCLUSIVE


def test_a_promotion_that_the_record_does_not_bear_out_is_none():
    assert outcomes(step(failed=5))["canary.50"][1] is Outcome.FAIL


def test_a_pause_fails_the_candidate_and_proves_the_pausing():
    found = outcomes(step(failed=5, **BACK))
    assert found["canary.50"] == ("roll.canary", Outcome.FAIL)
    assert found["pause.50"] == ("roll.pause", Outcome.PASS)


@pytest.mark.parametrize("wrong", [{"back": ""}, {"after.candidate": "3"}])
def test_a_pause_that_does_not_put_everything_back_fails(wrong):
    assert outcomes(step(failed=5, **{**BACK, **wrong}))["pause.50"][1] is Outcome.FAIL


def test_nobody_seen_after_the_way_back_is_no_proof():
    assert outcomes(step(failed=5, **{**BACK, "after.baseline": "0"}))["pause.50"][1] is Outcome.INCONCLUSIVE


def test_what_both_do_is_nobodys_failure():
    assert outcomes(step(failed=5, base=5, **BACK)) == {"canary.50": ("roll.canary", Outcome.INCONCLUSIVE)}


def drill(failed, **facts):
    return replace(step(failed=failed, gate="roll.pause", family="canary-drill", **{**BACK, **facts}), experiment="canary.drill")


def test_a_drill_that_is_paused_in_time_proves_the_pausing():
    assert outcomes(drill(10)) == {"pause.drill": ("roll.pause", Outcome.PASS)}


def test_a_drill_that_is_paused_too_late_fails():
    assert outcomes(drill(30)) == {"pause.drill": ("roll.pause", Outcome.FAIL)}  # 600 requests


def test_a_bad_release_that_does_not_fail_shows_nothing():
    assert outcomes(drill(0, decision="hold"))["pause.drill"][1] is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("reached", "outcome"), [("100", Outcome.PASS), ("25", Outcome.INCONCLUSIVE), ("0", Outcome.INCONCLUSIVE)]
)
def test_only_a_hundred_per_cent_is_a_roll_out(reached, outcome):
    facts = {
        "gate": "roll.canary",
        "family": "canary-end",
        "reached": reached,
        "steps": "5,100",
        "seconds": "60",
        "ended": "paused",
    }
    assert outcomes(History(experiment="canary", started=0.0, facts=facts)) == {"canary": ("roll.canary", outcome)}


# -- safeguards -----------------------------------------------------------------------------------------------------------------


def guard(what, **facts):
    told = {"what": what, "gate": "roll.safeguards", "family": "safeguards", **facts}
    return safeguard(History(experiment=f"safeguard.{what}", started=0.0, facts=told), Limits())


@pytest.mark.parametrize(
    ("on", "off", "outcome"),
    [
        ({"good": "200", "x": "400"}, {"good": "200", "x": "200"}, Outcome.PASS),
        ({"good": "200", "x": "400"}, {"good": "200", "x": "400"}, Outcome.FAIL),  # off does nothing
        ({"good": "200", "x": "200"}, {"good": "200", "x": "200"}, Outcome.FAIL),  # on does nothing
        ({"good": "503", "x": "400"}, {"good": "200", "x": "200"}, Outcome.INCONCLUSIVE),
    ],
)
def test_the_flag_works_both_ways(on, off, outcome):
    assert guard("allowlist", on=json.dumps(on), off=json.dumps(off), flag="F").outcome is outcome


OFF = {"shut evil ": "400", "open apex /": "400", "served page /": "200"}


@pytest.mark.parametrize(
    ("on", "outcome"),
    [
        ({"shut evil ": "400", "open apex /": "200", "served page /": "200"}, Outcome.PASS),
        ({"shut evil ": "200", "open apex /": "200", "served page /": "200"}, Outcome.FAIL),
        ({"shut evil ": "400", "open apex /": "200", "served page /": "400"}, Outcome.FAIL),
        (
            {"shut evil ": "400", "open apex /": "400", "served page /": "200"},
            Outcome.INCONCLUSIVE,
        ),  # it may be for something else
    ],
)
def test_the_bypass_opens_only_what_it_is_for(on, outcome):
    assert guard("bypass", off=json.dumps(OFF), on=json.dumps(on), flag="B=1").outcome is outcome


WARM = {"first": [0.05, 0.05], "steady": [0.05] * 24, "opened": 0, "bad": 0}
COLD = {**WARM, "first": [0.05, 0.33], "opened": 1}


@pytest.mark.parametrize(
    ("starts", "fast", "outcome"),
    [
        ([WARM] * 3, [], Outcome.PASS),
        ([WARM, WARM, COLD], [], Outcome.PASS),
        ([WARM, COLD, COLD], [WARM] * 2, Outcome.INCONCLUSIVE),
        ([COLD] * 3, [WARM] * 2, Outcome.FAIL),
        ([COLD] * 3, [COLD] * 2, Outcome.INCONCLUSIVE),  # a program that compiles at its first request: no question of pools
        ([{**WARM, "bad": 1}] * 3, [], Outcome.INCONCLUSIVE),
    ],
)
def test_a_cold_pool_is_told_from_a_slow_start(starts, fast, outcome):
    found = guard("pools", starts=json.dumps(starts), fast=json.dumps(fast), handshake="0.28")
    assert found.outcome is outcome, found.detail


CHAIN = {"before": "ready", "unready": "2.0", "again": "1.0", "exited": "", "within": "15", "lives": json.dumps(["200"] * 4)}


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, Outcome.PASS),
        ({"unready": ""}, Outcome.FAIL),
        ({"lives": json.dumps(["200", "503"])}, Outcome.FAIL),
        ({"again": ""}, Outcome.FAIL),
        ({"exited": "exit status 1"}, Outcome.FAIL),
        ({"before": "503"}, Outcome.INCONCLUSIVE),
    ],
)
def test_the_chain_is_looked_at(change, outcome):
    assert guard("chain", **{**CHAIN, **change}).outcome is outcome


# -- the command ----------------------------------------------------------------------------------------------------------------


def test_lengths_and_steps_are_read():
    assert [Length().convert(text, None, None) for text in ("90", "90s", "30m", "2h")] == [90, 90, 1800, 7200]
    assert Steps().convert("5,25,50,100", None, None) == (5, 25, 50, 100)


@pytest.mark.parametrize(
    "options",
    [["--steps", "5,25"], ["--steps", "50,25,100"], ["--steps", "a"], ["--hold", "soon"], ["--rate", "0"], ["--steps", "0,100"]],
)
def test_what_makes_no_sense_is_a_usage_error(options):
    done = CliRunner().invoke(canary_command, options)
    assert done.exit_code == 2
    assert "Usage" in done.output
