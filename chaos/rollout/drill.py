"""The roll-back drill: put a bad release behind the edge, see it fail, roll it back by the one command, and count.

The bad release is the target itself with a wrong CA file, so it can be made of any target: its connections to the database are
refused by its own verification, as after a certificate mistake. Where [target.candidate] is given that is not used here: a
candidate is a release to be judged, not a bad one.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import urlsplit

from chaos.checks.rollback import SEEN_ABOVE
from chaos.errors import ChaosError
from chaos.model import History, Kind, now
from chaos.rollout.rollback import State
from chaos.statistics import lower
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chaos.cases import Case
    from chaos.experiment import Recording
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

SEEING = 40.0  # s: as long as a bad release is left out at the most
MORE = 4  # readers while the bad release is out: it may take its time for each of the failures that have to be seen
COMMAND = 120.0  # s for the command in the drill; the gate's own limit is ten minutes
STEADY = 30.0  # s in which the good release has to serve, after the command has ended


def run(rig: Rig, case: Case, recording: Recording, command: Sequence[str]) -> History:
    """The drill's history: traffic through the edge, facts 'bad.from', 'bad.to', 'steady.after', 'exit'."""
    del case
    driver, facts = rig.driver, recording.facts
    bad = wrong_ca(rig)
    ports = {"good": rig.target.address[1], "bad": bad.address[1]}
    edge = rig.environment.edge(ports)
    direct = driver.session.base_url
    state = State(url=f"http://127.0.0.1:{edge.port}", good="good", admin_url=edge.admin_url, upstreams=ports, **probe(rig))
    place = rig.run_dir / rig.worker / "rollout.json"
    state.write(place)
    try:
        driver.session.base_url = state.url
        edge.set_weights({"good": 100, "bad": 0})
        bad.start()
        with suppress(ChaosError):  # it need not come up: it is a bad release
            bad.wait_ready(3.0)
        driver.begin_clients(None)
        time.sleep(0.5)
        edge.set_weights({"good": 0, "bad": 100})
        facts["bad.from"] = str(now())
        for _ in range(MORE):
            driver.add_reader()
        wait_for(lambda: seen(rig, float(facts["bad.from"])), SEEING)
        facts["bad.to"] = str(now())
        command_given([*command, "rollback", "--state", str(place)], facts, rig.run_dir)
        steady_after(rig, facts)
        driver.end_clients()
        writes = [one for one in driver.recorder.since(recording.started) if one.kind is Kind.WRITE and one.ok]
        driver.read_back(writes)
    finally:
        driver.end_clients()
        driver.session.base_url = direct
        bad.stop()
        edge.stop()
    return recording.history()


def wrong_ca(rig: Rig) -> CommandTarget:
    """The target itself, not started, trusting the wrong authority."""
    wrong = rig.identity("untrusted-ca").chain_file
    return rig.second_instance("bad-release", values=rig.trusting(wrong, rig.start_path))


class Probe(TypedDict):
    """The request that shows whether a release serves, as `State` has it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str


def probe(rig: Rig) -> Probe:
    """The first read of chaos.toml, a GET where there is one, with all that it carries."""
    session, samples = rig.driver.session, rig.driver.samples[Kind.READ]
    sample = next((one for one in samples if one.request.method == "GET"), samples[0])
    sent = session.build(sample.request, "rollback")
    url = urlsplit(sent.url)
    path = url.path + (f"?{url.query}" if url.query else "")
    return Probe(method=sent.method, path=path, headers=sent.headers, body=sent.body.decode())


def seen(rig: Rig, since: float) -> bool:
    """The gate has seen enough when even the lower bound of the failure rate is above the limit, from at least 20 requests."""
    reads = [one for one in rig.driver.recorder.since(since) if one.kind is Kind.READ and one.started >= since]
    return len(reads) >= 20 and lower(sum(not one.ok for one in reads), len(reads)) > SEEN_ABOVE


def command_given(command: Sequence[str], facts: dict[str, str], cwd: Path) -> None:
    """Carry the one command out; facts 'given', 'ended' (when), 'exit', 'output'."""
    facts["given"] = str(now())
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=COMMAND, check=False)
        facts["exit"], facts["output"] = str(done.returncode), (done.stdout + done.stderr)[-400:]
    except subprocess.TimeoutExpired:
        facts["exit"], facts["output"] = "no end", f"not finished after {COMMAND:g} s"
    facts["ended"] = str(now())


def steady_after(rig: Rig, facts: dict[str, str]) -> None:
    """From the command to the first request after it since which all have been answered well, for five in a row."""
    given = float(facts["given"])

    def reads() -> list[tuple[float, float, bool]]:
        return [
            (one.started, one.finished, one.ok)
            for one in rig.driver.recorder.since(given)
            if one.kind is Kind.READ and one.started >= given
        ]

    def steady() -> bool:
        last = reads()[-5:]
        return len(last) == 5 and all(ok for _, _, ok in last)

    if not wait_for(steady, STEADY):
        return
    failed_last = max((started for started, _, ok in reads() if not ok), default=given)
    first = min(finished for started, finished, ok in reads() if ok and started >= failed_last)
    facts["steady.after"] = f"{first - given:.3f}"
