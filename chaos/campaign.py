"""A run that is not pytest's: a soak, a canary, a roll-back. One rig and one segment of the evidence, in this process.

    execute(request, work)      prepare -> own -> rig up -> work(campaign) -> rig down -> judge -> evidence -> exit code

`work` records histories as it goes, each kept in one transaction, and adds the findings that its own checks made of them. Verdict,
evidence, interruption and clean-up are those of every run (chaos.runner, chaos.collector).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from chaos import experiment
from chaos.checks import judge
from chaos.evidence import policy
from chaos.evidence.attested import PLAN
from chaos.evidence.store import SEGMENTS, Segment
from chaos.model import now
from chaos.rig import Rig
from chaos.runner import conduct, get_parts, header, prepared
from chaos.terminal import Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from chaos.cases import Case
    from chaos.collector import Collector, Request
    from chaos.config import Config
    from chaos.model import Finding, History


@dataclass
class Campaign:
    """What the work of a long run is handed. `name` is that of its segment and of its rig's worker."""

    name: str
    collector: Collector
    screen: Screen
    segment: Segment
    bound: bool = False  # whether what the run is going to do is chained

    @property
    def config(self) -> Config:
        """chaos.toml."""
        return self.collector.config

    @property
    def directory(self) -> Path:
        """The evidence directory."""
        return self.collector.directory

    @property
    def run_dir(self) -> Path:
        """The scratch directory, which goes with the run."""
        return self.collector.run_dir

    @property
    def seed(self) -> int:
        """Of all that is random."""
        return self.collector.seed

    @cached_property
    def rig(self) -> Rig:
        """Brought up on first use; taken down with the run."""
        rig = Rig(
            config=self.config,
            run_id=self.collector.run_id,
            run_dir=self.run_dir,
            worker=self.name,
            seed=self.seed,
            runner=os.getpid(),
            backend=self.collector.backend,
            evidence=self.directory,
        )
        try:
            rig.start()
        except BaseException:
            rig.close()
            raise
        self.collector.parts.update(rig.versions)
        versions = " · ".join(f"{name} {version}" for name, version in rig.versions.items())
        self.screen.phase("environment", versions, None)
        return rig

    def record(self, history: History, findings: Iterable[Finding] = ()) -> None:
        """Keep one history, whole or not at all, and what was made of it."""
        found = tuple(findings)
        self._bind()
        self.segment.append(history, found)
        self.collector.findings += found

    def _bind(self) -> None:
        """Chain the plan before the first record, where it was made after policy.json."""
        if not self.bound:
            self.bound = True
            known = (policy.read(self.directory) or {}).get("plan", {})
            for name, digest in policy.plans(self.directory).items():
                if known.get(name) != digest:
                    self.segment.phase(f"{PLAN}{name} {digest}", now())

    def add(self, findings: Iterable[Finding]) -> None:
        """Findings that belong to no history of their own."""
        found = tuple(findings)
        self.segment.add(found)
        self.collector.findings += found

    def prove(self, case: Case, moved: Callable[[History], History] | None = None) -> tuple[Finding, ...]:
        """Run one case of the catalogue on the rig, judge and keep it. What is raised ends the run.

        `moved` is applied to what was recorded before anything is made of it: a run whose clock is not the real one puts it there.
        """
        history = experiment.run(self.rig, case)
        self.rig.check_parts()
        history = moved(history) if moved is not None else history
        findings = judge(history, self.collector.limits)
        self.record(history, findings)
        return findings

    def close(self) -> None:
        """Take down what was brought up."""
        try:
            if "rig" in self.__dict__:
                self.rig.close()
        finally:
            self.segment.close()


def execute(request: Request, work: Callable[[Campaign], None], *, name: str, as_json: bool, parts: bool = True) -> int:
    """Everything between the command line and the exit code of a long run; see this module's first words.

    Without `parts` nothing is fetched or built: no rig will be asked for.
    """
    screen = Screen(sys.stderr if as_json else sys.stdout)
    collector = prepared(request, screen)

    def whole() -> None:
        header(collector, screen)
        if parts:
            get_parts(collector, screen)
        collector.fix()
        segment = Segment(collector.directory / SEGMENTS / f"{name}.sqlite", secrets=collector.secrets)
        campaign = Campaign(name, collector, screen, segment)
        try:
            work(campaign)
        finally:
            campaign.close()

    return conduct(collector, screen, whole, as_json=as_json)
