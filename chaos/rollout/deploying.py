"""A roll-back by the team's own tooling ([target.deploy]): the candidate is put out by `deploy`, seen by its version header, and rolled
back by the one command, which carries out `rollback` and waits until the former version serves again.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from chaos.config import expand
from chaos.experiment.asking import ask
from chaos.model import Kind, now
from chaos.rollout.drill import command_given, probe, steady_after
from chaos.rollout.rehearsal import WATCH
from chaos.rollout.rollback import State
from chaos.targets import CommandTarget
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment import Recording
    from chaos.model import History
    from chaos.rig import Rig
    from chaos.rollout.rehearsal import Stage

SEEING = 120.0  # s for the candidate to be served, at the most
ENOUGH = 5  # answers of it
LONGEST = 600.0  # s for `deploy`


def run(rig: Rig, case: Case, recording: Recording, *, stage: Stage) -> History:
    """One roll-back. Facts as `chaos.rollout.rehearsal` has them; 'seen': which release answered, 'version.after': which still does."""
    del case
    deploy, facts, driver = rig.config.target.deploy, recording.facts, rig.driver
    assert deploy is not None
    before = _version(rig)
    if not before:
        return recording.history(control=f"answers have no {deploy.version_header}: nobody can see which release they come from")
    place = stage.room / "rollout.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    state = State(
        url=driver.session.base_url,
        good="baseline",
        command=command_of(rig, deploy.rollback, "baseline"),
        cwd=str(rig.config.target.cwd),
        env=env_of(rig),
        version_header=deploy.version_header,
        version=before,
        **probe(rig),
    )
    state.write(place)
    facts |= {"release": f"{deploy.version_header} other than {before}", "percent": "100"}
    driver.begin_clients(None)
    try:
        time.sleep(0.5)
        facts["bad.from"] = str(now())
        if failed := put_out(rig, "candidate"):
            return recording.history(control=failed)
        answers: list[str] = []
        if not wait_for(lambda: _other(rig, before, answers), SEEING, every=0.1):
            return recording.history(control=f"`deploy` ended well, and the candidate answered nothing within {SEEING:g} s")
        facts["seen"] = f"{len(answers)} answers came from release {answers[-1]!r}"
        facts["bad.to"] = str(now())
        command_given([*stage.command, "rollback", "--state", str(place)], facts, rig.run_dir)
        steady_after(rig, facts)
        time.sleep(WATCH)
        driver.end_clients()
        for sample in driver.samples[Kind.WRITE]:
            driver.once(sample)
        if (after := _version(rig)) != before:
            facts["version.after"] = after
        driver.read_back([one for one in driver.recorder.since(recording.started) if one.kind is Kind.WRITE and one.ok])
        return recording.history()
    finally:
        driver.end_clients()
        if _version(rig) != before:  # where the roll-back did nothing
            put_out(rig, "baseline")


def _version(rig: Rig) -> str:
    """Which release answers now, in its own words; '' when no answer says it."""
    deploy = rig.config.target.deploy
    assert deploy is not None
    asked = ask(rig.driver, rig.driver.session, rig.driver.samples[Kind.READ][0], client="drill")
    return asked.headers.get(deploy.version_header.lower(), "")


def _other(rig: Rig, before: str, answers: list[str]) -> bool:
    version = _version(rig)
    answers += [version] if version not in {"", before} else []
    return len(answers) >= ENOUGH


def command_of(rig: Rig, argv: tuple[str, ...], version: str, weight: int = 100) -> tuple[str, ...]:
    """`deploy` or `rollback`, its placeholders filled in."""
    return tuple(expand(argv, {**rig.target.values, "version": version, "weight": str(weight)}))


def env_of(rig: Rig) -> dict[str, str]:
    """What the target itself is started with, where it is started here."""
    return rig.target.recipe()[1] if isinstance(rig.target, CommandTarget) else {}


def put_out(rig: Rig, version: str, weight: int = 100) -> str:
    """Give a release so many per cent of the requests, by the team's own command; '' or why that failed."""
    deploy = rig.config.target.deploy
    assert deploy is not None
    argv = command_of(rig, deploy.deploy, version, weight)
    try:
        done = subprocess.run(
            argv,
            cwd=rig.config.target.cwd,
            env={**os.environ, **env_of(rig)},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`{' '.join(argv)}` could not be carried out: {error}"
    return (
        "" if done.returncode == 0 else f"`{' '.join(argv)}` ended with {done.returncode}: {(done.stdout + done.stderr)[-200:]}"
    )
