"""Where everything of a soak goes, in one order: into the segment, to what judges it, and to whoever looks on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.checks import judge
from chaos.checks.longrun import recorded
from chaos.evidence.store import SEGMENTS, STORE, Segment, Store
from chaos.model import now

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chaos.campaign import Campaign
    from chaos.model import Finding, History
    from chaos.soak.minutes import Judging, Minute
    from chaos.soak.plan import Plan
    from chaos.soak.view import View

LAST = "verdict"  # the segment of what is only said at the end: a soak that goes on after all begins it anew


@dataclass
class Keeping:
    """One per soak."""

    campaign: Campaign
    plan: Plan
    judging: Judging
    view: View
    concluded: bool = field(default=False)

    def minute(self, minute: Minute) -> None:
        """One minute, whole or not at all."""
        history = minute.history(self.plan)
        self.campaign.record(history, judge(history, self.campaign.collector.limits))
        self.seen(history)

    def compare(self, directory: Path) -> None:
        """Keep what a recorded run was like beside this run's own minutes, so that a recheck needs nothing else (rel.delta)."""
        with Store(directory / STORE) as store:
            history = recorded(store.histories(), before=self.plan.started)
        self.campaign.record(history)
        self.seen(history)

    def seen(self, history: History) -> None:
        """A history that is in the segment."""
        self.judging.feed(history)
        self.view.feed(history)

    def phase(self, name: str, at: float | None = None) -> None:
        """Something of the plan was come to, and is not done again by a soak that goes on."""
        self.campaign.segment.phase(name, now() if at is None else at)

    def found(self, findings: Iterable[Finding]) -> None:
        """Findings that are no history's of this soak: of a round."""
        these = tuple(findings)
        self.campaign.add(these)
        self.view.found(these)

    def conclude(self, more: Iterable[Finding] = ()) -> None:
        """What the whole of it came to. Once."""
        if self.concluded:
            return
        self.concluded = True
        found = (*self.judging.findings(), *more)
        self.campaign.collector.findings += found
        path = self.campaign.directory / SEGMENTS / f"{LAST}.sqlite"
        path.unlink(missing_ok=True)
        with Segment(path) as segment:
            segment.add(found)
