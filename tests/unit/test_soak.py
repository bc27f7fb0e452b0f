"""The conductor of a soak: plan, clock, minutes, sampled writes, the modelled service, resume after kill -9, and what people see."""

import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaos.checks.limits import Limits
from chaos.cli import cli
from chaos.config import load
from chaos.errors import UsageError
from chaos.evidence.record import Run
from chaos.evidence.store import SEGMENTS, Segment, Store, merge
from chaos.histogram import merged
from chaos.model import Finding, Interval, Kind, Operation, Outcome, Verdict
from chaos.session import config_path
from chaos.soak import plan as planning
from chaos.soak import rounds
from chaos.soak.clock import Clock
from chaos.soak.minutes import EXPERIMENT, FAILED_KEPT, sampled, slim
from chaos.soak.modelled import MODELS, Modelled
from chaos.soak.plan import Round
from chaos.soak.status import Page, as_json, html, metrics
from chaos.soak.tally import intervals
from chaos.soak.view import Snapshot
from chaos.soak.writes import judged
from chaos.terminal import Screen

CONFIG = load(config_path(None))
KILLS = 20 if os.environ.get("CHAOS_DETECTION") == "all" else 3


def drawn(**options):
    return planning.draw(CONFIG, **{"hours": 72.0, "rate": 20.0, "seed": 7, "given": None, **options})


def operation(number, **values):
    usual = {"kind": Kind.WRITE, "method": "POST", "path": "/", "sample": "write[0]", "started": float(number)}
    return Operation(**{**usual, "finished": number + 0.1, "unique": f"u{number}", "ok": True, "status": 201, **values})


# -- plan -------------------------------------------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_plan():
    assert drawn() == drawn()
    assert drawn(seed=8).faults != drawn().faults


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = drawn(functional="/x", baseline="/y")
    replace(plan, started=5.0).write(tmp_path)
    assert planning.read(tmp_path) == plan


def test_a_day_meets_every_family_of_faults_and_two_rounds_a_soak():
    plan = drawn()
    kinds = {case.id: case.family for case in planning.suited(CONFIG)}
    assert {kinds[one.case] for one in plan.faults if one.at < 24 * 3600} == set(kinds.values())
    assert [one.at for one in plan.faults] == sorted(one.at for one in plan.faults)
    assert all(0 < one.at < plan.seconds for one in plan.faults)
    assert [(one.at / 3600, one.profile) for one in plan.rounds] == [(0, "nightly"), (24, "nightly"), (48, "nightly")]


def test_a_short_soak_has_a_quick_round_and_two_faults_or_none():
    short = drawn(hours=0.05)
    assert (short.profile, len(short.faults), [one.profile for one in short.rounds]) == ("smoke", 2, ["quick"])
    assert drawn(hours=0.02).faults == ()


def test_a_compressed_soak_takes_minutes_and_has_few_faults():
    fast = drawn(compress=True)
    assert fast.seconds / fast.factor + 15 * len(fast.faults) < 300
    assert fast.called == "reference (compressed)"
    assert "compressed" in fast.facts()
    assert "compressed" not in drawn().facts()


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf"), 1e9])
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(UsageError, match="--hours"):
        drawn(hours=hours)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "soak"}', '{"seed": 1, "profile": "quick", "experiments": []}'])
def test_what_is_no_plan_of_a_soak_is_refused(tmp_path, text):
    (tmp_path / planning.NAME).write_text(text)
    with pytest.raises(UsageError, match="no soak to go on with"):
        planning.read(tmp_path)


# -- clock ------------------------------------------------------------------------------------------------------------------------


def test_a_compressed_clock_runs_at_its_own_pace_around_a_fault(monkeypatch):
    at = 1000.0
    monkeypatch.setattr("chaos.soak.clock.now", lambda: at)
    clock = Clock(at=5000.0, factor=100.0)
    at = 1010.0
    assert clock.now() == 6000.0
    clock.real()
    at = 1016.0
    assert clock.now() == 6006.0
    clock.fast()
    at = 1017.0
    assert clock.now() == 6106.0
    [before, across] = clock.intervals(
        [
            Interval(started=1005.0, seconds=2.0, sample="a", kind=Kind.READ),
            Interval(started=1009.0, seconds=4.0, sample="a", kind=Kind.READ),
        ]
    )
    assert (before.started, before.seconds) == (5500.0, 200.0)
    assert (across.started, across.seconds) == (5900.0, 103.0)
    [moved] = clock.operations([operation(1012, planned=1011.5)])
    assert (moved.planned, moved.started, moved.seconds) == (6001.5, 6002.0, pytest.approx(0.1))


def test_the_real_clock_moves_nothing():
    seen = (Interval(started=1.0, seconds=2.0, sample="a", kind=Kind.READ),)
    clock = Clock()
    clock.real()
    assert clock.intervals(seen) is seen


# -- what is kept -----------------------------------------------------------------------------------------------------------------


def test_a_flood_of_failures_is_kept_as_a_few_of_each_kind():
    flood = [operation(i, ok=False, status=503, body="x" * 4096) for i in range(500)]
    kept = sampled([*flood, operation(501, ok=False, status=None, error="timeout")])
    assert len(kept) == FAILED_KEPT
    assert {(one.status, one.error) for one in kept} == {(503, ""), (None, "timeout")}


def test_what_an_experiment_asked_becomes_intervals_of_the_fault():
    these = [
        operation(i, kind=Kind.READ, sample="read[0]", ok=i < 8, status=200 if i < 8 else None, error="" if i < 8 else "timeout")
        for i in range(10)
    ]
    [one] = intervals([*these, operation(99)], 0.0, 20.0, limits=(0.05,))
    assert (one.stratum, one.planned, one.good, one.statuses) == ("fault", 10, 8, {"200": 8, "timeout": 2})
    assert one.over == {"0.05": 10}
    assert len(merged([one.latency])) == 10


@pytest.mark.parametrize(
    ("shown", "lost", "doubled"),
    [
        ([1, 1, 1, 1], 0, 0),
        ([1, 0, 1, 1], 1, 0),
        ([0, 0, 1, 1], 0, 0),  # a list that shows the newest only
        ([1, 1, 0, 0], 0, 0),  # or the first page only
        ([1, 1, 2, 1], 0, 1),
        ([0, 0, 0, 0], 0, 0),  # nothing at all is shown: that is another finding
    ],
)
def test_a_write_is_lost_where_the_list_has_a_hole(shown, lost, doubled):
    writes = [operation(i) for i in range(4)]
    answers = {one.unique: replace(one, kind=Kind.READ_BACK, occurrences=times) for one, times in zip(writes, shown, strict=True)}
    seen = judged(writes, answers, {"write[0]": 1})
    assert (seen.lost, seen.doubled) == (lost, doubled)


# -- model ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_wrong_in_one_way(name):
    plan = replace(drawn(model=name, compress=True, rate=50.0), started=1e9)
    model = Modelled(plan, Limits(seconds={"rel.p95": 0.12, "rel.p99": 0.3}))
    assert model.minute(5).intervals == model.minute(5).intervals
    early, middle, late = ([model.minute(hour * 60 + place) for place in range(20, 25)] for hour in (1, 36, 70))
    assert all(early)
    assert all(late)
    assert (None in middle) == (name == "gap")

    def share(minutes):
        steady = [one for minute in minutes if minute for one in minute.intervals if one.stratum == "steady"]
        return sum(one.planned - one.good for one in steady) / sum(one.planned for one in steady)

    def gauge(minutes, what):
        return sum(one.value for minute in minutes for one in minute.gauges if one.name == what) / len(minutes)

    def median(minutes):
        return merged(one.latency for minute in minutes for one in minute.intervals).quantile(0.5)

    assert (name == "bad-hour") == (None not in middle and share(middle) > 0.01)
    assert (name == "leak-memory") == (gauge(late, "target.memory") > 1.5 * gauge(early, "target.memory"))
    assert (name == "leak-connections") == (gauge(late, "database.sessions") > 3 * gauge(early, "database.sessions"))
    assert (name == "leak-latency") == (median(late) > 2 * median(early))


# -- as a command -----------------------------------------------------------------------------------------------------------------


def begun(place, *options):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "CHAOS_R"))}
    with (Path(place) / "out").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "chaos", "soak", *options],
            cwd=place,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )


def soaked(place, *options):
    """Exit code and all output."""
    process = begun(place, *options)
    code = process.wait(120)
    return code, (Path(place) / "out").read_text()


MODEL = ("--compress", "--model", "healthy", "--rate", "4", "--hours", "1", "--seed", "3", "--evidence", "e")


def minutes(directory):
    """Number -> what was recorded of it, but for the runner's own memory; each there once."""
    with Store(directory / SEGMENTS / "soak.sqlite") as store:
        kept = [one for one in store.histories() if one.experiment == EXPERIMENT]
    numbers = [int(one.facts["minute"]) for one in kept]
    assert len(numbers) == len(set(numbers)), "a minute was counted twice"
    return {number: [replace(each, started=0.0) for each in one.intervals] for number, one in zip(numbers, kept, strict=True)}


def test_killed_at_any_moment_nothing_is_lost_but_the_gap(tmp_path):
    place, dice = tmp_path / "killed", random.Random(5)
    place.mkdir()
    process, gaps = begun(place, *MODEL), []
    for _ in range(KILLS):
        segment = place / "e" / SEGMENTS / "soak.sqlite"
        for _ in range(600):
            if process.poll() is not None or segment.is_file():
                break
            time.sleep(0.05)
        time.sleep(dice.uniform(0.0, 0.6))
        process.kill()
        process.wait()
        if not segment.is_file() or (place / "e" / "evidence.json").is_file():
            break
        held = minutes(place / "e")  # readable, whatever was under way
        gaps.append(max(held, default=-1))
        process = begun(place, "--resume", "e")
    assert process.wait(120) in {0, 3}, (place / "out").read_text()
    plan = replace(planning.read(place / "e"), started=0.0)
    model = Modelled(plan, Limits(seconds={"rel.p95": 0.12, "rel.p99": 0.3}))
    resumed = minutes(place / "e")
    for number, seen in resumed.items():  # what an undisturbed soak of this seed holds
        assert seen == [replace(one, started=0.0) for one in slim(model.minute(number).intervals)]
    missing = set(range(60)) - set(resumed)
    assert len(missing) <= 2 * len(gaps)
    assert all(any(last < number <= last + 2 for last in gaps) for number in missing)


def test_interrupted_it_concludes_and_can_go_on(tmp_path):
    process = begun(tmp_path, *MODEL)
    for _ in range(600):
        if process.poll() is not None or (tmp_path / "e" / SEGMENTS / "soak.sqlite").is_file():
            break
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    said = (tmp_path / "out").read_text
    assert process.wait(60) == 130, said()
    assert json.loads((tmp_path / "e" / "evidence.json").read_text())["verdict"] == "INCONCLUSIVE"
    assert "interrupted; everything was healed" in said()
    assert soaked(tmp_path, "--resume", "e")[0] in {0, 3}, said()
    again = CliRunner().invoke(cli, ["soak", "--resume", str(tmp_path / "e")])
    assert again.exit_code == 2
    assert "this soak is finished" in again.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--hours", "0"), "--hours: 0 is no number of hours"),
        (("--hours", "-1"), "--hours: -1 is no number of hours"),
        (("--hours", "nan"), "--hours: nan is no number of hours"),
        (("--rate", "0"), "--rate: 0 is no rate"),
        (("--model", "healthy"), "--model: a model has no real clock"),
        (("--compress", "--model", "helthy"), "--model: unknown model 'helthy'"),
        (("--resume", "nowhere"), "no soak to go on with"),
        (("--functional", "nowhere"), "nowhere: there is no evidence here"),
        (("--baseline", "nowhere"), "nowhere: there is no evidence here"),
        (("--status", "here"), "--status: 'here' is no HOST:PORT"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path, monkeypatch, options, told):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["soak", *options])
    assert done.exit_code == 2, done.output
    assert told in done.output
    assert len(done.output.splitlines()) == 2
    assert not (tmp_path / "evidence").exists()


def test_it_goes_on_with_its_own_chaos_toml_only(tmp_path):
    toml = tmp_path / "chaos.toml"
    toml.write_text('[target]\nname = "x"\nurl = "http://127.0.0.1:1"\nlive = "/"\n[[target.read]]\npath = "/"\n')
    plan = planning.draw(load(toml), hours=1.0, rate=5.0, seed=1, given=str(toml), compress=True, model="healthy")
    (tmp_path / "e").mkdir()
    plan.write(tmp_path / "e")
    toml.write_bytes(toml.read_bytes() + b"\n# changed\n")
    done = CliRunner().invoke(cli, ["soak", "--resume", str(tmp_path / "e")])
    assert done.exit_code == 2
    assert "not the one that this soak was planned with" in done.output


# -- rounds -----------------------------------------------------------------------------------------------------------------------


def stored(directory, **values):
    """Evidence of a run with one finding, as `chaos-gate run` leaves it."""
    finding = Finding(
        check="C1.reconnect", gate="sec.verify_full", outcome=Outcome.PASS, detail="refused", n=3, experiment="C1.reconnect"
    )
    usual = {
        "version": "1",
        "target": "reference",
        "profile": "nightly",
        "seed": 1,
        "verdict": Verdict.CLEAR,
        "started": time.time() - 3600,
    }
    run = Run(**{**usual, "finished": time.time() - 60, "findings": (finding,), **values})
    with Segment(directory / SEGMENTS / "main.sqlite"):
        pass
    with merge(directory) as store:
        store.save(run)
    return directory


def test_an_earlier_run_stands_for_a_round_and_its_findings_are_named_after_it(tmp_path):
    directory = stored(tmp_path)
    assert rounds.taken(directory, CONFIG, profile="soak").target == "reference"
    [found] = rounds.findings(directory, Round(number=2, at=0.0, profile="nightly"))
    assert (found.check, found.experiment, found.n) == ("C1.reconnect", "round 2: C1.reconnect", 3)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"target": "orders"}, "it is of target 'orders'"),
        ({"finished": time.time() - 49 * 3600}, "hours old"),
        ({"profile": "quick"}, "it is a quick run"),
        ({"profile": "smoke"}, "it is a smoke run"),
        ({"only": "C1"}, "no whole run"),
        ({"environment_error": "the disk is full"}, "no whole run"),
    ],
)
def test_only_a_whole_fresh_run_of_the_same_target_stands_for_a_round(tmp_path, values, told):
    with pytest.raises(UsageError, match=told):
        rounds.taken(stored(tmp_path, **values), CONFIG, profile="soak")


# -- what people see --------------------------------------------------------------------------------------------------------------


def test_in_ci_a_long_run_says_how_it_stands_once_an_hour():
    out = io.StringIO()
    screen = Screen(out, live=False)
    for minute in range(180):
        screen.going("soak", f"hour {minute // 60}", 3600.0, mark=str(minute // 60))
    assert out.getvalue().splitlines() == [f"soak          hour {hour} \N{MIDDLE DOT} 60 min left" for hour in range(3)]


SOME = Snapshot(
    target="orders <b>",
    verdict="NO-GO",
    elapsed=3.5,
    planned=72.0,
    rate=20.0,
    streak=2,
    longest=2,
    colours=("green", "red", "green", "grey"),
    requests=12_345,
    failed=7,
    p95=0.0123,
    p99=0.034,
    injected=3,
    healed=2,
    now="breaking: PostgreSQL offers no TLS",
    gates=(("rel.p95", "PASS", "P95 <= 120 ms", "fine"), ("rep.go", "NOT PROVEN", "48 h", "needs 46 more")),
    wrong=("hour 1 was red",),
)


def test_the_page_shows_it_whole_with_no_script_and_no_request_to_anywhere():
    page = html(SOME)
    assert "orders &lt;b&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert 'http-equiv="refresh"' in html(SOME, live=True)
    assert all(
        text in page for text in ("NO-GO", "12,345", "2 green, 1 grey, 1 red", "PostgreSQL offers no TLS", "hour 1 was red")
    )


def test_metrics_are_prometheus_text():
    from prometheus_client.parser import text_string_to_metric_families

    read = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics(SOME))
        for sample in family.samples
    }
    assert all(name[0].startswith("chaos_gate_") for name in read)
    assert read["chaos_gate_verdict", "NO-GO"] == 1
    assert read["chaos_gate_verdict", "GO"] == 0
    assert read["chaos_gate_hours", "green"] == 2
    assert read["chaos_gate_requests_total", "steady"] == 12_345
    assert read["chaos_gate_read_latency_seconds", "0.95"] == 0.0123
    assert read["chaos_gate_faults_injected_total",] == 3
    assert read["chaos_gate_gate", "rep.go", "not_proven"] == 1


def test_the_json_is_the_same():
    assert json.loads(as_json(SOME))["hours"] == {"green": 2, "grey": 1, "red": 1}
    assert json.loads(as_json(SOME)) == json.loads(json.dumps(asdict(SOME) | {"hours": SOME.hours}))


def test_the_status_page_is_served_before_and_after_the_start():
    with Page.at("127.0.0.1:0") as page:
        for path, media in (("", "text/html"), ("status.json", "application/json"), ("metrics", "text/plain")):
            with urllib.request.urlopen(page.url + path, timeout=5) as answer:
                assert answer.headers["Content-Type"].startswith(media)
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(page.url + "etc/passwd", timeout=5)


def test_a_taken_port_is_told_before_anything_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="cannot be served"):
        Page.at(f"127.0.0.1:{taken.getsockname()[1]}")
