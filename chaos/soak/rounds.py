"""Rounds of the functional suite: `chaos-gate run`, as a process and in an environment of its own, and what it found.

Each leaves whole evidence in rounds/N of the soak's directory, which `recheck` and `report` read like any other. The findings are taken
over as they stand, named after the round, so that the soak's gates are those of everything that was seen.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.collector import TOLD
from chaos.errors import PartFailed, UsageError
from chaos.evidence.store import STORE, Store
from chaos.processes import Reaper, tail

if TYPE_CHECKING:
    from chaos.campaign import Campaign
    from chaos.config import Config
    from chaos.evidence.record import Run
    from chaos.model import Finding
    from chaos.processes import Process
    from chaos.soak.plan import Round

OLDEST = 48.0  # hours that an earlier run may lie back
ENDING = 45.0  # s for a round to heal and stop
WHOLE = {0, 1, 3}  # exit codes of a run that came to its end: GO or CLEAR, NO-GO, INCONCLUSIVE


@dataclass
class Running:
    """A round that is on."""

    planned: Round
    directory: Path
    process: Process
    reaper: Reaper

    @classmethod
    def begin(cls, campaign: Campaign, planned: Round, *, apart: bool) -> Running:
        """Start it. With `apart` one worker has to do, for the load wants the machine as well."""
        directory = campaign.directory / "rounds" / str(planned.number)
        directory.mkdir(parents=True, exist_ok=True)
        request = campaign.collector.request
        argv = [sys.executable, "-m", "chaos", "run", "--profile", planned.profile, "--evidence", str(directory)]
        argv += ["--seed", str(campaign.seed + planned.number), "--backend", request.backend]
        argv += ["-c", str(Path(request.given).resolve())] if request.given else []
        argv += ["-n", "1"] if apart else []
        env = {name: value for name, value in os.environ.items() if name not in TOLD}
        reaper = Reaper(campaign.collector.run_id)
        process = reaper.spawn(argv, name=f"round {planned.number}", cwd=Path.cwd(), env=env, log=directory / "run.log")
        return cls(planned, directory, process, reaper)

    def ended(self) -> bool:
        """Whether it has come to its end."""
        return self.process.poll() is not None

    def wait(self, campaign: Campaign) -> Path:
        """Until it has; its evidence directory. PartFailed when it could not be carried out."""
        begun = time.monotonic()
        try:
            while not self.ended():
                spent = time.monotonic() - begun
                campaign.screen.going("round", f"{self.planned.profile} suite, before the load begins · {spent:.0f} s", None)
                time.sleep(0.2)
        finally:
            self.stop()
        code = self.process.poll()
        if code not in WHOLE:
            raise PartFailed(
                f"the functional suite ended with exit code {code}",
                remedy="mend what it says, or hand over an earlier run: --functional DIR",
                where=str(self.directory / "run.log"),
                tail=tail(self.directory / "run.log", 8),
            )
        return self.directory

    def stop(self) -> Path:
        """End it, if it has not: healed, stopped. Its evidence directory."""
        try:
            self.process.stop(ENDING)
        finally:
            self.reaper.close()
        return self.directory


def findings(directory: Path, planned: Round) -> tuple[Finding, ...]:
    """Of a round, as the soak keeps them: named after it. None when it was interrupted before it found anything."""
    if not (directory / STORE).is_file():
        return ()
    with Store(directory / STORE) as store:
        run = store.run()
    return tuple(replace(one, experiment=f"{name(planned)}: {one.experiment or one.check}") for one in run.findings)


def name(planned: Round) -> str:
    """By which a round is known: the beginning of its findings' `experiment`."""
    return f"round {planned.number}"


def taken(directory: Path, config: Config, *, profile: str) -> Run:
    """An earlier run that stands for the first round. UsageError when it is of another target, too old, too short, or none."""
    run = _stored(directory)
    old = (time.time() - run.finished) / 3600
    wrong = ""
    if run.target != config.target.name:
        wrong = f"it is of target {run.target!r}, and this one is called {config.target.name!r}"
    elif old > OLDEST:
        wrong = f"it is {old:.0f} hours old; {OLDEST:.0f} at most say something of the same release"
    elif profile == "soak" and run.profile != "nightly":
        wrong = f"it is a {run.profile} run: a soak that can end GO needs every functional gate"
    elif run.only or run.environment_error or run.profile not in {"quick", "nightly"}:
        wrong = "it is no whole run of the functional suite"
    if wrong:
        raise UsageError(
            f"this run cannot stand for the functional round: {wrong}",
            remedy="make one: chaos-gate run --profile nightly",
            where=str(directory),
        )
    return run


def _stored(directory: Path) -> Run:
    path = directory / STORE
    if not path.is_file():
        raise UsageError("there is no evidence here", remedy="name a directory that `chaos-gate run` wrote", where=str(directory))
    with Store(path) as store:
        return store.run()


def note(run: Run, directory: str) -> str:
    """What the verdict has to say of it."""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.finished))
    return f"functional gates by an earlier {run.profile} run that ended {when} UTC: {directory}"
