"""The sender as a process: how exact it is, what it can send, what becomes of it when it is frozen or killed, and a real service."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from benchmarks.load_accuracy.frozen import truth
from chaos.config import Target
from chaos.config import load as load_config
from chaos.errors import PartFailed
from chaos.histogram import merged
from chaos.model import Kind
from chaos.processes import Reaper
from chaos.targets import reference
from chaos.traffic.load import Load, LoadPlan, Mix
from chaos.traffic.load.arrivals import Arrivals
from chaos.traffic.load.distributed import Distributed
from chaos.traffic.load.nodes import machine
from tests.unit.reference_service import lab

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def frozen(**options):
    """(port, when its schedule began)."""
    argv = [sys.executable, "-m", "benchmarks.load_accuracy.frozen", *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            port, begun = process.stdout.readline().split()
            yield int(port), float(begun)
        finally:
            process.kill()


def _reading(port):
    return Target.model_validate({"name": "x", "url": f"http://127.0.0.1:{port}", "live": "/", "read": [{"path": "/"}]})


@contextlib.contextmanager
def loading(directory, port, **more):
    one = _reading(port)
    plan = LoadPlan(**({"target": one, "base_url": one.url, "rate": 200, "every": 1.0, "seed": 7, "mix": Mix(invalid=0)} | more))
    with Reaper("load") as reaper:
        made = Load(plan, reaper=reaper, directory=directory / "load")
        made.start()
        yield made


def quantiles(values):
    ordered = sorted(values)
    return [ordered[int(share * len(ordered))] for share in (0.5, 0.95, 0.99)]


def test_latency_counts_from_the_plan_through_a_freeze(tmp_path):
    """A shorter benchmarks/load_accuracy: frozen for 0.5 s in 5. A closed loop would have sent next to nothing meanwhile."""
    shape = {"service": 0.02, "freeze": 0.5, "every": 20.0, "begin": 2.5}
    with frozen(**shape) as (port, begun), loading(tmp_path, port, every=5.0, seed=11) as load:
        time.sleep(5.5)
        load.stop()
        intervals, operations = load.take()
    first = intervals[0]
    arrivals, waits = Arrivals(seed=11, weights=[1.0], rate=200, start=first.started), []
    while len(waits) < first.planned:
        waits.append(truth(arrivals.take()[0], begun=begun, **shape))
    assert first.good == first.sent == first.planned > 600
    seen = [merged([first.latency]).quantile(share) for share in (0.5, 0.95, 0.99)]
    expected = quantiles(waits)
    assert expected[2] > 0.3  # the freeze is in it
    for one, other in zip(seen, expected, strict=True):
        assert other * 0.98 < one < other + 0.4  # other work on this machine only ever adds
    assert sum(one > 0.121 for one in waits) <= first.over["0.12"] < first.planned * 0.5
    assert not operations


def test_one_core_sends_more_than_a_thousand_requests_a_second(tmp_path):
    """By the processor time that each costs, on a slow and busy machine too. benchmarks/load_accuracy/throughput.py measures it."""
    with frozen(service=0, freeze=0) as (port, _), loading(tmp_path, port, rate=1_600) as load:
        process = psutil.Process(load.pid)
        before = process.cpu_times()
        time.sleep(3.0)
        after = process.cpu_times()
        load.stop()
        intervals, _ = load.take()
    whole = sum(one.planned for one in intervals)
    assert whole > 300
    assert sum(one.good + one.dropped for one in intervals) == whole
    cost = (after.user + after.system - before.user - before.system) / (whole * 3.0 / sum(one.seconds for one in intervals))
    assert cost < 1 / 1_000


def test_a_frozen_sender_accuses_nobody_and_its_seconds_are_not_covered(tmp_path):
    with frozen(service=0.01, freeze=0) as (port, _), loading(tmp_path, port, every=0.5) as load:
        time.sleep(0.7)
        os.kill(load.pid, signal.SIGSTOP)
        time.sleep(1.8)
        os.kill(load.pid, signal.SIGCONT)
        time.sleep(0.8)
        load.check()
        load.stop()
        intervals, _ = load.take()
        assert load.counts["absent"] > 100
    assert all(one.good == one.planned for one in intervals)
    away = sum(one.seconds * (1 - one.covered) for one in intervals if one.sample)
    empty = sum(after.started - before.started - before.seconds for before, after in itertools.pairwise(intervals))
    assert 1.5 < away + empty < 3.0


def test_a_sender_that_was_killed_is_told(tmp_path):
    with frozen(service=0.01, freeze=0) as (port, _), loading(tmp_path, port) as load:
        load.check()
        os.kill(load.pid, signal.SIGKILL)
        time.sleep(0.5)
        with pytest.raises(PartFailed, match="ended by itself"):
            load.check()
        with pytest.raises(PartFailed):
            load.mark("fault")
        with pytest.raises(PartFailed):
            load.stop()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Four seconds of the whole mix against the reference service: (intervals, operations, what the service logged)."""
    with lab(tmp_path_factory.mktemp("mix")) as room:
        service = room.start()
        one = load_config(Path(reference.__file__).with_name("chaos.toml")).target
        item = service.ask("/api/items", "POST", json_body={"name": "first"}).json["id"]
        mix = Mix(reads=0.3, writes=0.2, invalid=0.1, unknown=0.1, seo=0.2, provider=0.1)
        plan = LoadPlan(
            target=one,
            base_url=f"http://127.0.0.1:{service.port}",
            rate=50,
            every=1.0,
            mix=mix,
            seed=3,
            values={"item": str(item)},
        )
        with Reaper("mix") as reaper:
            load = Load(plan, reaper=reaper, directory=room.directory / "load")
            load.start()
            time.sleep(3.0)
            load.mark("fault")
            load.stop()
            yield *load.take(), service


def test_the_whole_mix_is_answered_as_it_should_be(seen):
    intervals, operations, _ = seen
    assert [one for one in operations if not one.ok] == []
    assert all(one.good == one.planned for one in intervals)
    samples = {one.sample for one in intervals}
    assert {"read[0]", "read[3]", "write[0]", "unknown-host", "seo"} <= samples
    assert sum(one.sample.startswith("invalid") for one in intervals) > 3
    strangers = [one.statuses for one in intervals if one.sample == "unknown-host"]
    assert all(set(one) == {"400"} for one in strangers)
    assert {one.kind for one in intervals} == {Kind.READ, Kind.WRITE, Kind.INVALID, Kind.HOST}


def test_the_crawler_found_the_pages_that_were_written(seen):
    _, _, service = seen
    asked = {(line["host"], line["route"]) for line in service.log() if line["event"] == "request"}
    hosts = {host for host, _ in asked if host and host.endswith(".landing.example.test")}
    assert {"/robots.txt", "/sitemap.xml", "/"} <= {path for host, path in asked if host in hosts}
    assert len(hosts) > 3  # the three that a pattern stands for, and those that the sitemap names


def test_acknowledged_writes_are_there_to_be_read_back(seen):
    _, operations, service = seen
    writes = [one for one in operations if one.kind is Kind.WRITE]
    assert writes
    for one in writes[:5]:
        assert one.unique in service.ask(f"/api/items?name={one.unique}").body.decode()


def test_three_workers_of_locust_and_one_of_them_is_killed(tmp_path):
    """On loopback, real ones: nothing that the others recorded is lost, and the gap is seen."""
    with frozen(service=0.005, freeze=0) as (port, _), Reaper("distributed") as reaper:
        config = SimpleNamespace(target=_reading(port))
        plan = LoadPlan(target=config.target, base_url=config.target.url, rate=60, every=1.0, seed=4, mix=Mix(invalid=0))
        load = Distributed(plan, workers=3, reaper=reaper, directory=tmp_path / "load", config=config, patience=4.0)
        load.start()
        time.sleep(2.0)
        os.kill(load.workers[1].pid, signal.SIGKILL)
        time.sleep(5.0)
        load.check()
        (lost,) = load.lost
        load.stop()
        intervals, operations = load.take()
    assert load.counts["missing"] == 0
    assert not operations
    assert all(one.good == one.planned == one.sent for one in intervals)
    after = [one for one in intervals if one.started >= intervals[0].started + 3.0]
    assert len(after) >= 3
    assert all(one.covered < 0.7 for one in after)
    turns = [turn for turn in range(3) if machine(turn) != lost]
    start, away = intervals[0].started, sum(one.seconds * (0.6667 - one.covered) for one in after)
    for one in after[:-1]:
        planned = sum(_planned(turn, start, one.started, one.started + one.seconds) for turn in turns)
        assert planned - 40 * away - 1 <= one.planned <= planned  # exact, but for what the workers themselves had no time for


def _planned(turn, start, since, until):
    arrivals = Arrivals(seed=4, weights=[1.0], rate=60, start=start, turn=(turn, 3))
    arrivals.skip(since)
    return arrivals.skip(until)
