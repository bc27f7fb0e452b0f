"""The candidate beside the baseline under the same load: `rel.delta`, each request drawn to one of the two.

Both stand behind our edge with equal weights, on one database, so whatever the machine does meanwhile it does to both: no interleaving
is closer than that. Reads only, open loop, at a rate that leaves either of them mostly idle. The history's intervals carry `release`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.errors import CANDIDATE
from chaos.environments.local.edge import UPSTREAM
from chaos.errors import TargetFailed
from chaos.experiment.asking import ask
from chaos.model import Kind
from chaos.traffic.load import Load, LoadPlan
from chaos.traffic.load.plan import Mix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.model import History, Interval
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

READS = 27_500  # an arm: 25,000 tell a P99 within 5 % (statistics.md, Rates), and the draw is not exactly even
LONGEST = 240.0  # s: what is too slow for so many is asked for so long, and the finding says what is missing
WARMING = 15.0  # s of load before it counts: caches, pools, compilers
BUSY = 0.35  # share of one of the two's time, at the most, by what a read takes when nobody else asks
FASTEST = 150.0  # requests/s an arm
BLOCKS = 48  # stretches of time that are drawn again in the bootstrap
LOOKS = 12  # reads from which is learnt how long one takes


def delta(rig: Rig, case: Case, recording: Recording) -> History:
    """The load through the edge, as intervals of both releases; facts 'rate' (requests/s an arm)."""
    del case
    if not rig.ours:
        recording.facts["absent"] = "needs another instance of the target, and it runs elsewhere ([target] url)"
        return recording.history()
    # Of the same age: a release that has been up for an hour has warmed up what one that was just started has not.
    releases = {"baseline": rig.second_instance("delta-baseline", path=rig.path), "candidate": rig.candidate()}
    try:
        for one in releases.values():
            one.start()
        for one in releases.values():
            one.wait_ready(rig.config.target.startup_timeout)
        if wrong := _refused(rig, releases):
            return recording.history(control=wrong)
        intervals = _through_the_edge(rig, recording, {name: one.address[1] for name, one in releases.items()})
    except TargetFailed as error:
        return recording.history(control=f"a release does not come up: {error.what}")
    finally:
        for one in releases.values():
            one.stop()
    return replace(recording.history(), intervals=intervals)


def _refused(rig: Rig, releases: Mapping[str, CommandTarget]) -> str:
    """Why one cannot be asked what the target is asked, with the same log-in; '' when both can."""
    for name, one in releases.items():
        session = replace(rig.driver.session, base_url=one.base_url)
        for sample in rig.driver.samples[Kind.READ]:
            done = ask(rig.driver, session, sample, client=CANDIDATE).operation
            if not done.ok:
                return f"the {name} answers {done.status or done.error} to {sample.key}, asked as the target is"
    return ""


def _through_the_edge(rig: Rig, recording: Recording, ports: Mapping[str, int]) -> tuple[Interval, ...]:
    edge = rig.environment.edge(ports)
    try:
        edge.set_weights(dict.fromkeys(ports, 50))
        names = {f"127.0.0.1:{port}": name for name, port in ports.items()}
        return _asked(rig, recording, f"http://127.0.0.1:{edge.port}", names)
    finally:
        edge.stop()


def _asked(rig: Rig, recording: Recording, url: str, releases: dict[str, str]) -> tuple[Interval, ...]:
    rate = _rate(rig)
    recording.facts["rate"] = f"{rate:.1f}"
    seconds = min(LONGEST, READS / rate)
    plan = LoadPlan(
        target=rig.config.target,
        base_url=url,
        rate=2 * rate,
        values=dict(rig.driver.session.values),
        headers=dict(rig.driver.session.extra_headers),
        mix=Mix(reads=1.0, writes=0.0, invalid=0.0, unknown=0.0, seo=0.0, provider=0.0),
        seed=rig.seed,
        every=seconds / BLOCKS,
        release_header=UPSTREAM,
        releases=releases,
    )
    load = Load(plan, reaper=rig.reaper, directory=rig.run_dir / rig.worker / "delta")
    load.start()
    try:
        begun = time.monotonic()
        while time.monotonic() < begun + WARMING + seconds:
            time.sleep(0.5)
            rig.check_parts()
            load.check()
    finally:
        load.stop()
    seen, _ = load.take()
    first = min((one.started for one in seen), default=0.0)
    return tuple(one for one in seen if one.started >= first + WARMING)


def _rate(rig: Rig) -> float:
    """Requests a second that an arm is asked, by what one takes."""
    samples = rig.driver.samples[Kind.READ]
    took = [rig.driver.once(samples[turn % len(samples)]).seconds for turn in range(LOOKS)]
    return max(1.0, min(FASTEST, BUSY / max(1e-4, sorted(took)[len(took) // 2])))
