"""`chaos-gate canary`."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from chaos.commands.options import config_option

if TYPE_CHECKING:
    from chaos.campaign import Campaign
    from chaos.model import History
    from chaos.rollout.watching import Plan

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
LEAST = 5.0  # s that a compressed step lasts
SHORTEST = 600.0  # s that a step may be held, at the least, where nobody says how long
ENOUGH = 3000  # requests of the candidate that prove what can be proven


class Steps(click.ParamType[tuple[int, ...]]):
    """'5,25,50,100': per cent, rising, the last one 100."""

    name = "PERCENT,..."

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Raises click's own usage error."""
        try:
            steps = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of per cents; for example 5,25,50,100", param, ctx)
        if steps[-1] != 100 or any(not 0 < one <= 100 for one in steps) or list(steps) != sorted(set(steps)):
            self.fail(f"{value!r}: per cents rise, and the last one is 100; for example 5,25,50,100", param, ctx)
        return steps


class Length(click.ParamType[float]):
    """'90', '90s', '30m', '2h', as seconds."""

    name = "SECONDS|h"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises click's own usage error."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)?", str(value).strip())
        if not found:
            self.fail(f"{value!r} is no length of time; for example 90, 30m or 2h", param, ctx)
        return float(found[1]) * UNITS[found[2] or ""]


@click.command("canary")
@config_option
@click.option(
    "--steps", type=Steps(), default="5,25,50,100", show_default=True, help="the candidate's shares, one after the other"
)
@click.option("--hours", type=click.FloatRange(0, 1000), default=24.0, show_default=True, help="length of the whole, by plan")
@click.option(
    "--hold",
    type=Length(),
    help="how long a step that is not proven may be held beyond the plan (default: as long again, or what proving takes)",
)
@click.option("--compress", is_flag=True, help="each step lasts only until it is proven")
@click.option("--rate", type=click.FloatRange(1, 5000), default=100.0, show_default=True, help="requests a second")
@click.option("--safeguards/--no-safeguards", default=True, show_default=True, help="first demonstrate roll.safeguards")
@click.option("--seed", type=int, help="seed of everything that is random (default: a fresh one, printed)")
@click.option("--evidence", metavar="DIR", help="where the evidence goes (default: evidence/<UTC time>-<id>)")
@click.option("--json", "as_json", is_flag=True, help="evidence.json on stdout, and nothing else; people read stderr")
def command(
    *,
    given: str | None,
    steps: tuple[int, ...],
    hours: float,
    hold: float | None,
    compress: bool,
    rate: float,
    safeguards: bool,
    seed: int | None,
    evidence: str | None,
    as_json: bool,
) -> None:
    """Roll [target.candidate] out beside [target], step by step: promoted by proof, paused by itself, rolled back at once.

    First a bad release is planted, to see that it is paused. Exit 0 when the candidate was promoted, 1 when it was paused for what it
    did. rollout.json in the evidence directory is what `chaos-gate rollback --state` needs, should this process be killed.
    """
    from chaos.campaign import execute  # noqa: PLC0415
    from chaos.collector import Request  # noqa: PLC0415
    from chaos.rollout.watching import Plan  # noqa: PLC0415

    dwell = LEAST if compress else hours * 3600 / len(steps)
    patience = max(SHORTEST, 0.0 if compress else dwell, ENOUGH / (rate * steps[0] / 100)) if hold is None else hold
    plan = Plan(steps=steps, dwell=dwell, hold=patience, rate=rate)
    request = Request(
        given=given,
        profile="canary",
        evidence=evidence,
        seed=seed,
        command=" ".join(["chaos-gate", *sys.argv[1:]]),
        settles=("roll.canary", "roll.pause", *(("roll.safeguards",) if safeguards else ())),
    )
    sys.exit(execute(request, lambda campaign: _work(campaign, plan, safeguards=safeguards), name="canary", as_json=as_json))


def _work(campaign: Campaign, plan: Plan, *, safeguards: bool) -> None:
    from chaos.checks import judge  # noqa: PLC0415
    from chaos.model import Finding, Outcome  # noqa: PLC0415
    from chaos.rollout.canary import STATE, conduct  # noqa: PLC0415
    from chaos.rollout.watching import Told  # noqa: PLC0415

    def record(history: History) -> None:
        rerun = (
            f"{campaign.collector.request.command} --seed {campaign.seed}"
            if campaign.collector.request.seed is None
            else campaign.collector.request.command
        )
        campaign.record(history, (replace(one, rerun=rerun) for one in judge(history, campaign.collector.limits)))

    told = Told(record=record, say=lambda text: campaign.screen.phase("roll-out", text), state=campaign.directory / STATE)
    if safeguards:
        _demonstrate(campaign)
    absent = conduct(campaign.rig, replace(plan, seed=campaign.seed), told)
    campaign.add(
        Finding(check=gate.removeprefix("roll."), gate=gate, outcome=Outcome.NOT_APPLICABLE, detail=why)
        for gate, why in absent.items()
    )


def _demonstrate(campaign: Campaign) -> None:
    """Each safeguard that applies to this target."""
    from chaos.cases.safeguards import SAFEGUARDS  # noqa: PLC0415

    for case in SAFEGUARDS:
        if not case.absent(campaign.config):
            for found in campaign.prove(case):
                campaign.screen.phase("safeguard", f"{found.outcome}: {found.detail}")
