"""Rails and abort conditions by themselves; what they do to a run is in tests/detection/test_staging.py."""

import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from chaos.cases import BY_ID, lacking
from chaos.config import load
from chaos.environments.abort import Watch, judge
from chaos.environments.remote import RemoteEnvironment, refusal
from chaos.environments.remote.rails import NO_PROXY
from chaos.errors import ConfigError, PartFailed
from chaos.evidence import words
from chaos.model import Finding, Kind, Operation, Outcome, now
from tests.detection.tiny_run import until
from tests.unit import evidence_sample

TARGET = '[target]\nname = "x"\nurl = "https://User@Staging.example.test:8443"\nlive = "/"\n[[target.read]]\npath = "/"\n'


def config(tmp_path, environment, target=TARGET):
    (tmp_path / "chaos.toml").write_text(f"{target}[environment]\n{environment}\n", encoding="utf-8")
    return load(tmp_path / "chaos.toml")


PROXY = 'toxiproxy = "http://proxy.example.test:8474"\nproxy = "database"\n'


@pytest.mark.parametrize(
    ("environment", "refused"),
    [
        (PROXY + 'allow = ["staging.example.test", "proxy.example.test"]', ""),
        (PROXY + 'allow = ["STAGING.example.test", "proxy.example.test", "more.example.test"]', ""),
        (PROXY + 'allow = ["proxy.example.test"]', "staging.example.test not in"),
        (PROXY + 'allow = ["staging.example.test"]', "proxy.example.test not in"),
        (PROXY + 'allow = ["example.test"]', "staging.example.test and proxy.example.test not in"),
        (PROXY + 'allow = ["user"]', "staging.example.test and proxy.example.test not in"),
        (PROXY, "staging.example.test and proxy.example.test not in"),
        ('allow = ["staging.example.test"]', NO_PROXY),
    ],
)
def test_both_hosts_have_to_be_named(tmp_path, environment, refused):
    found = refusal(config(tmp_path, environment))
    assert refused in found
    assert bool(found) is bool(refused)


def test_what_only_looks_is_never_refused_and_what_is_ours_always_applies(tmp_path):
    there = config(tmp_path, "")
    assert BY_ID["steady"].absent(there) == ""
    assert BY_ID["network.refused.new"].absent(there) == NO_PROXY
    assert "another instance" in BY_ID["C1.start"].absent(there)
    assert "runs elsewhere" in BY_ID["C1.reconnect"].absent(there)
    assert "PostgreSQL" in BY_ID["pool.locks"].absent(there)
    started = TARGET.replace('url = "https://User@Staging.example.test:8443"', 'start = ["x", "{port}"]')
    here = config(tmp_path, "", started)
    assert lacking(here) == {}
    assert BY_ID["pool.locks"].absent(here) == ""


@pytest.mark.parametrize(
    ("environment", "line", "what"),
    [
        (PROXY + 'allow = ["*.example.test"]', 10, "'*.example.test' is no host"),
        (PROXY + 'allow = ["a.example.test", "https://b.example.test"]', 10, "'https://b.example.test' is no host"),
        (PROXY + 'allow = ["a.example.test:8474"]', 10, "is no host"),
        (PROXY + 'probe = "nowhere"', 10, "'nowhere' is no address"),
        ('toxiproxy = "https://a.example.test:8474"\nproxy = "x"', 8, "no URL of Toxiproxy's control API"),
        ('toxiproxy = "http://a.example.test"\nproxy = "x"', 8, "no URL of Toxiproxy's control API"),
        ('probe = "a:1"', 8, "probe without toxiproxy"),
        ('proxy = "database"', 8, "proxy without toxiproxy"),
        ("abort = { }", 8, "abort without a condition"),
        ("abort = { error_rate = 90 }", 8, "error_rate"),
        ('abort = { eror_rate = 0.9, file = "x" }', 8, "did you mean 'error_rate'?"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path, environment, line, what):
    with pytest.raises(ConfigError) as raised:
        config(tmp_path, environment)
    assert what in raised.value.render()
    assert raised.value.where.endswith(f"chaos.toml:{line}")


@pytest.mark.parametrize(
    ("toxiproxy", "listen", "probe", "found"),
    [
        ("http://10.1.2.3:8474", "[::]:5432", None, ("10.1.2.3", 5432)),
        ("http://10.1.2.3:8474", "0.0.0.0:5432", "db.example.test:15432", ("db.example.test", 15432)),
        ("http://127.0.0.1:8474", "127.0.0.1:5432", None, ("127.0.0.1", 5432)),
        ("http://[::1]:8474", "[::1]:5432", None, ("::1", 5432)),
        ("http://10.1.2.3:8474", "127.0.0.1:5432", None, None),
        ("http://toxiproxy.example.test:8474", "localhost:5432", None, None),
    ],
)
def test_where_the_proxy_is_reached_from_here(toxiproxy, listen, probe, found):
    environment = RemoteEnvironment(SimpleNamespace(toxiproxy=toxiproxy, proxy="database", probe=probe))
    if found:
        assert environment._address(listen) == found
    else:
        with pytest.raises(PartFailed, match="the loopback of its own machine"):
            environment._address(listen)


# -- abort ----------------------------------------------------------------------------------------------------------------------


def requests(count, failed=0, seconds=0.01, kind=Kind.READ):
    return [
        Operation(kind=kind, method="GET", path="/", sample="read[0]", started=1.0, finished=1.0 + seconds, ok=number >= failed)
        for number in range(count)
    ]


def conditions(**given):
    return SimpleNamespace(**{"error_rate": None, "latency": None, "over": 10.0, "file": None, "url": None, **given})


@pytest.mark.parametrize(
    ("given", "operations", "stops"),
    [
        ({"error_rate": 0.5}, requests(10, failed=6), True),
        ({"error_rate": 0.5}, requests(10, failed=5), False),
        ({"error_rate": 0.5}, requests(9, failed=9), False),
        ({"error_rate": 0.5}, requests(20, failed=20, kind=Kind.INVALID), False),
        ({"latency": 1.0}, requests(10, seconds=1.1), True),
        ({"latency": 1.0}, requests(6, seconds=0.1) + requests(5, seconds=9.0), False),
        ({}, requests(10, failed=10, seconds=9.0), False),
    ],
    ids=["above", "at", "few", "invalid", "slow", "median", "none"],
)
def test_the_traffic_says_stop(given, operations, stops):
    assert bool(judge(conditions(**given), operations)) is stops


def test_a_watch_sees_only_the_last_seconds_and_keeps_its_reason(tmp_path):
    asked = []
    held = threading.Event()

    def since(start):
        asked.append(now() - start)
        return requests(10, failed=10) if held.is_set() else ()

    watch = Watch(conditions(error_rate=0.5, over=3.0, file=tmp_path / "stop"), since)
    watch.start()
    try:
        assert until(lambda: len(asked) > 1, 5)
        assert watch.reason == ""
        held.set()
        assert until(lambda: watch.reason, 5)
    finally:
        watch.stop()
    assert max(abs(one - 3.0) for one in asked) < 0.5
    assert watch.reason == "10 of 10 requests of the last 3 s failed (error_rate = 0.5)"


def test_an_abort_is_not_told_as_a_broken_environment():
    run = replace(evidence_sample.run("environment"), environment_error="[environment] abort: stopped: x exists")
    assert words.sentence(run).startswith("stopped by an abort condition")


def test_a_reason_wakes_whoever_waits_and_only_within(tmp_path):
    class Stopped(Exception):  # noqa: N818
        pass

    def stop():
        raise Stopped

    watch = Watch(conditions(file=tmp_path / "stop"), lambda _: ())
    before = signal.getsignal(signal.SIGUSR1)
    watch.start()
    try:
        threading.Timer(0.3, (tmp_path / "stop").touch).start()
        began = time.monotonic()
        with pytest.raises(Stopped), watch.interrupting(stop):
            time.sleep(20)
        assert time.monotonic() - began < 5
        signal.raise_signal(signal.SIGUSR1)  # nobody is within: nothing happens
        with pytest.raises(Stopped), watch.interrupting(stop):  # too late is told at the door
            time.sleep(20)
    finally:
        watch.stop()
        signal.signal(signal.SIGUSR1, before)


def test_recovery_is_summed_up_over_faults_that_took_effect():
    def outage(name, measured, took=True):
        return Finding(
            check=name,
            experiment=name,
            gate="res.network",
            outcome=Outcome.PASS,
            detail="",
            n=1,
            bad=int(measured is None),
            measured=measured,
            took_effect=took,
        )

    run = evidence_sample.run()
    found = (
        outage("network.a", 1.8),
        outage("network.b", None),
        outage("network.c", 9.0, took=False),
        outage("backoff.tls", None),
    )
    side = replace(found[0], check="writes.network.a", gate="res.durability", measured=99.0)
    assert words.recovery(replace(run, findings=(*found, side), recovery_limit=10.0)) == (
        "serving again after 1 of 2 faults, slowest 1.8 s (limit 10 s)"
    )
    assert words.recovery(replace(run, findings=())) == ""
