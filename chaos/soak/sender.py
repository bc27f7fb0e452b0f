"""What sends a soak's load: one process here, told by the plan of the soak what to send."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from chaos.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.campaign import Campaign
    from chaos.model import Interval, Operation
    from chaos.soak.plan import Plan
    from chaos.traffic.load import LoadPlan


class Sender(Protocol):
    """Open-loop load (`chaos.traffic.load.Load`): what was due is counted where it was due, whatever came of it."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End, and wait for what is under way."""

    def mark(self, stratum: str) -> None:
        """From now on 'steady', or 'fault'."""

    def rate(self, per_second: float) -> None:
        """From now on so many; 0 pauses."""

    def change(self, plan: LoadPlan) -> None:
        """From now on other requests."""

    def take(self) -> tuple[tuple[Interval, ...], tuple[Operation, ...]]:
        """What was completed since the last time, each once: stretches, and a few of the failed requests and acknowledged writes."""

    def check(self) -> None:
        """PartFailed when it has died."""


def distributed() -> None:
    """UsageError when this installation has nothing to send from more than one machine with."""
    if find_spec("locust") is None:
        raise UsageError(
            "more than one sender needs Locust, which is not installed",
            remedy="pip install 'chaos-gate[distributed]'",
            where="--workers",
        )


def orders(plan: Plan, campaign: Campaign) -> LoadPlan:
    """Load on the campaign's target, as it is now: its address, and what `prepare` saved."""
    from chaos.traffic.load import LoadPlan  # noqa: PLC0415  (only a real soak sends anything)

    rig = campaign.rig
    return LoadPlan(
        target=campaign.config.target,
        base_url=rig.target.base_url,
        rate=plan.rate,
        values=dict(rig.driver.session.values),
        headers=dict(rig.driver.session.extra_headers),
        seed=campaign.seed,
        every=plan.every / plan.factor,
        limits=tuple(sorted(set(campaign.collector.limits.seconds.values()))),
    )


def made(what: LoadPlan, campaign: Campaign, directory: Path) -> Sender:
    """One sender on this machine, not started."""
    from chaos.traffic.load import Load  # noqa: PLC0415

    return Load(what, reaper=campaign.rig.reaper, directory=directory)
