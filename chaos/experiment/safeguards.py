"""Flag, bypass, warm pools and the pinned chain, each shown on instances of the target that are started for it, on the twin path."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.safeguards import FIRST, STARTS, slow_starts
from chaos.config import Request
from chaos.faults.network import SessionProber
from chaos.faults.toxiproxy import Toxic
from chaos.faults.wire import Impostor, Relay
from chaos.model import Effect, History, Kind, Rung, Window, now
from chaos.targets.ready import ask, question
from chaos.traffic.host_names import HostNames, Words
from chaos.traffic.requests import Sample, send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.cases import Case
    from chaos.config import Flag, Flags
    from chaos.experiment.core import Recording
    from chaos.model import Operation
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

UNKNOWN = 4  # unknown hosts that are asked for
DELAY = 40  # ms: a connection that has to be made first shows, whatever the machine does
ROUNDS = 12  # of requests after the first ones: what is usual for the same instance
LEAST = 15.0  # s in which a health check that looks now and then has looked
LIVES = 4  # answers of the liveness path that are wanted while the chain is wrong
PAUSE = 0.25  # s between two looks


def run(rig: Rig, case: Case, recording: Recording) -> History:
    """The one that the case names."""
    recording.path = rig.start_path
    recording.facts["what"] = case.what
    flags = rig.config.target.flags
    assert flags is not None
    history = {"allowlist": _allowlist, "bypass": _bypass, "pools": _pools, "chain": _chain}[case.what](rig, recording, flags)
    return replace(history, operations=())


@contextmanager
def _instance(rig: Rig, name: str, env: dict[str, str] | None = None) -> Iterator[CommandTarget]:
    """Started and ready; ended with the block."""
    instance = rig.second_instance(f"safeguard-{name}", env=env)
    try:
        instance.start()
        instance.wait_ready(rig.config.target.startup_timeout)
        yield instance
    finally:
        instance.stop()


def _answer(rig: Rig, instance: CommandTarget, host: str, path: str = "") -> str:
    """What a good read, or `path`, is answered under another Host: a status, or why there was none."""
    session = replace(rig.driver.session, base_url=instance.base_url)
    read = rig.driver.samples[Kind.READ][0]
    sample = replace(read, request=Request(method="GET", path=path)) if path else read
    done = rig.driver.call(send(session, sample, deadline=rig.driver.deadline, headers={"Host": host}))
    return str(done.status or done.error)


def _words(rig: Rig) -> Words:
    hosts = rig.config.target.hosts
    assert hosts is not None
    return Words(hosts=HostNames(**hosts.model_dump()), seed=rig.seed, path="/")


# -- flags ----------------------------------------------------------------------------------------------------------------------


def _allowlist(rig: Rig, recording: Recording, flags: Flags) -> History:
    """One instance with the flag on, one with it off: the same unknown hosts, and a good one."""
    flag = flags.host_allowlist
    if flag is None:
        recording.facts["absent"] = "no host_allowlist in [target.flags]"
        return recording.history()
    words = _words(rig)
    unknown = [words.evil() for _ in range(UNKNOWN)]
    for name, value in (("on", flag.on), ("off", flag.off)):
        with _instance(rig, f"allowlist-{name}", {flag.env: value}) as instance:
            told = {"good": _answer(rig, instance, words.g), **{host: _answer(rig, instance, host) for host in unknown}}
        recording.facts[name] = json.dumps(told)
    recording.facts["flag"] = f"{flag.env}={flag.on} / {flag.env}={flag.off}"
    return recording.history()


def _bypass(rig: Rig, recording: Recording, flags: Flags) -> History:
    """The allow-list on, the bypass off and on: what it may open, what it has to, and what has to stay shut."""
    flag = flags.emergency_bypass
    if flag is None:
        recording.facts["absent"] = "no emergency_bypass in [target.flags]"
        return recording.history()
    words = _words(rig)
    asked = _asked(rig, words)
    for name, value in (("off", flag.off), ("on", flag.on)):
        with _instance(rig, f"bypass-{name}", {**_enforcing(flags.host_allowlist), flag.env: value}) as instance:
            told = {f"{what} {host} {path}": _answer(rig, instance, host, path) for what, host, path in asked}
        recording.facts[name] = json.dumps(told)
    recording.facts["flag"] = f"{flag.env}={flag.on}"
    return recording.history()


def _enforcing(flag: Flag | None) -> dict[str, str]:
    return {flag.env: flag.on} if flag else {}


def _asked(rig: Rig, words: Words) -> list[tuple[str, str, str]]:
    """(what for, Host, path): 'shut' has to be refused with the bypass as without it, 'open' is what it is for, 'served' is listed."""
    seo = [bare for pattern in words.hosts.seo if (bare := pattern.lower())]
    domains = [one.removeprefix("*.") for one in seo if one.startswith("*.")]
    target = rig.config.target
    health = next((one for one in (target.ready, target.live) if one and "://" not in one), "")
    unknown = [words.evil() for _ in range(UNKNOWN)]
    asked = [("shut", host, "") for host in (*unknown, *words.misses("allowed", "seo"))]
    asked += [("open", host, "/") for domain in domains for host in (domain, f"{words.label()}.{words.label()}.{domain}")]
    asked += [("served", one.replace("*", words.label()), "/") for one in seo] + [("served", words.g, "")]
    if health:
        asked += [("open", unknown[0], health), ("served", words.g, health)]
    return asked


# -- pools ----------------------------------------------------------------------------------------------------------------------


def _pools(rig: Rig, recording: Recording, flags: Flags) -> History:
    """Several starts on a slow path. Where first requests are slow, two more on a fast one: is it the path, or the program itself?"""
    del flags
    facts = recording.facts
    toxic = Toxic("latency", attributes={"latency": DELAY})
    name = rig.start_path.name
    prober = SessionProber(rig.conninfo_at(rig.start_path.port), rig.start_path.port)
    before, injected = prober.connect(), now()
    rig.control.add(name, toxic)
    try:
        slower = prober.connect()
        facts["handshake"] = f"{max(0.0, slower.seconds - before.seconds):.3f}"
        took = slower.how == before.how == "answer" and slower.seconds - before.seconds >= DELAY / 1000
        starts = [_start(rig, f"pools-{turn}") for turn in range(STARTS)]
    finally:
        rig.control.remove(name, toxic)
    effect = Effect(
        took=took, seen=f"a session of ours took {before.seconds:.2f} s without it and {slower.seconds:.2f} s with it"
    )
    recording.windows.append(
        Window(fault=f"{DELAY} ms on the path", scope="start", injected=injected, healed=now(), effect=effect)
    )
    facts["starts"] = json.dumps(starts)
    if slow_starts(starts, float(facts["handshake"])) > 1:
        facts["fast"] = json.dumps([_start(rig, f"pools-fast-{turn}") for turn in range(2)])
    return recording.history()


def _start(rig: Rig, name: str) -> dict[str, object]:
    """Seconds of the first requests of a fresh instance, at once, and of the same ones later; connections opened meanwhile."""
    with _instance(rig, name) as instance:
        session = replace(rig.driver.session, base_url=instance.base_url)
        sample = rig.driver.samples[Kind.READ][0]

        async def together() -> list[Operation]:
            return await asyncio.gather(
                *(send(session, sample, deadline=rig.driver.deadline, stall=rig.driver.stalls.between) for _ in range(FIRST))
            )

        asked = now()
        first = rig.driver.call(together())
        opened = sum(asked <= one.opened for one in rig.start_path.connections(asked))
        steady = [one for _ in range(ROUNDS) for one in rig.driver.call(together())]
    bad = sum(not one.ok for one in (*first, *steady))
    return {
        "first": [round(one.seconds, 4) for one in first],
        "steady": [round(one.seconds, 4) for one in steady],
        "opened": opened,
        "bad": bad,
    }


# -- the chain ------------------------------------------------------------------------------------------------------------------


def _chain(rig: Rig, recording: Recording, flags: Flags) -> History:
    """A running instance whose connections are cut, and whose database then presents a chain of another authority; and back."""
    del flags
    facts, path = recording.facts, rig.start_path
    patience = max(LEAST, 2 * rig.config.target.database.recovery)
    with _instance(rig, "chain") as instance:
        facts["before"] = _ready(rig, instance) or "ready"
        impostor = Impostor(rig.identity("untrusted-ca"), then="close")
        injected = now()
        path.wire.behave(impostor)
        path.wire.sever()
        try:
            unready, lives = _until(rig, instance, patience, ready=False)
            met = sum(one.behaviour == impostor.name and one.reached >= Rung.SSL_REQUEST for one in path.connections(injected))
        finally:
            path.wire.behave(Relay())
            path.wire.sever()
        effect = Effect(took=met > 0, seen=f"{met} connections of the instance met the other chain", count=met)
        recording.windows.append(Window(fault="another chain", scope="reconnect", injected=injected, healed=now(), effect=effect))
        again, _ = _until(rig, instance, patience, ready=True)
        facts |= {"unready": unready, "again": again, "lives": json.dumps(lives), "exited": instance.exited()}
        facts["within"] = f"{patience:g}"
    return recording.history()


def _ready(rig: Rig, instance: CommandTarget) -> str:
    url, headers = question(rig.config.target, instance.values, instance.base_url)
    return ask(url, headers, timeout=rig.driver.deadline)


def _until(rig: Rig, instance: CommandTarget, patience: float, *, ready: bool) -> tuple[str, list[str]]:
    """Seconds until `ready` says so twice in a row ('' when it does not), and what `live` said meanwhile. A read keeps it awake."""
    began, row, lives, first = time.monotonic(), 0, list[str](), ""
    session = replace(rig.driver.session, base_url=instance.base_url)
    samples: list[Sample] = [one for one in (rig.live,) if one]
    while time.monotonic() - began < patience:
        at = time.monotonic() - began
        said = _ready(rig, instance)
        row = row + 1 if bool(said) is not ready else 0
        first = (first or f"{at:.1f}") if row else ""
        for sample in samples:
            done = rig.driver.call(send(session, sample, deadline=rig.driver.deadline))
            lives.append(str(done.status or done.error))
        if row >= 2 and (ready or len(lives) >= LIVES or not samples):
            return first, lives
        if instance.exited():
            return "", lives
        rig.driver.call(send(session, rig.driver.samples[Kind.READ][0], deadline=rig.driver.deadline))
        time.sleep(PAUSE)
    return "", lives
