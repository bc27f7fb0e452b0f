"""`chaos-gate rollback`: the one command, and its drill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chaos.commands.options import config_option

if TYPE_CHECKING:
    from chaos.campaign import Campaign
    from chaos.cases import Case
    from chaos.collector import Request
    from chaos.model import History

DRILLS = ("releases", "restore", "all")


@click.command("rollback")
@click.option(
    "--state", type=click.Path(path_type=Path), default=Path("rollout.json"), show_default=True, help="the roll-out's state"
)
@click.option(
    "--drill",
    type=click.Choice(DRILLS),
    is_flag=False,
    flag_value="releases",
    help="rehearse: bad releases rolled back again and again (releases, when nothing is said), the database put back (restore), or all",
)
@config_option
@click.option("--times", type=click.IntRange(1, 10_000), default=20, show_default=True, help="of a drill: roll-backs, at least")
@click.option("--only", multiple=True, metavar="ID", help="of a drill: such as rollback.ca or rollback.rename.100")
@click.option("--evidence", metavar="DIR", help="of a drill: where its evidence goes (default: evidence/<time>-<id>)")
@click.option("--seed", type=int, help="of a drill: of all that is random")
@click.option("--backend", type=click.Choice(["auto", "local", "docker"]), default="auto", show_default=True, help="of a drill")
@click.option("--json", "as_json", is_flag=True, help="of a drill: evidence.json on stdout")
@click.pass_context
def command(context: click.Context, /, *, state: Path, drill: str | None, as_json: bool, **options: Any) -> None:
    """Put the last good release back, in one command, and wait until it serves; or rehearse that: --drill."""
    if drill is None:
        _carry_out(context, state)
        return
    from chaos import campaign  # noqa: PLC0415
    from chaos.collector import Request  # noqa: PLC0415

    times, only = options.pop("times"), options.pop("only")
    _check_names(only)
    told = " ".join(["chaos-gate", *sys.argv[1:]])
    request = Request(profile="rollback", only=("rollback",), command=told, settles=("res.rollback",), **options)
    context.exit(campaign.execute(request, _Work(request, drill, times, only), name="rollback", as_json=as_json))


def _check_names(only: tuple[str, ...]) -> None:
    """Each --only has to name a drill; else a UsageError with 'did you mean'."""
    from chaos.gates import named  # noqa: PLC0415
    from chaos.rollout.releases import known  # noqa: PLC0415

    for name in only:
        named(name, known())


def _carry_out(context: click.Context, state: Path) -> None:
    """The operators' command."""
    from chaos.errors import UsageError  # noqa: PLC0415
    from chaos.rollout.rollback import State, roll_back  # noqa: PLC0415

    flags = {one.name: one.opts[-1] for one in context.command.params if one.name not in {"state", "drill", "help"}}
    for name, flag in flags.items():
        if name and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{flag} belongs to a drill", remedy="add --drill, or leave it out")
    seconds = roll_back(State.read(state))
    click.echo(f"rolled back: serving again after {seconds:.1f} s (limit 600 s)")


class _Work:
    """What is done between the rig's coming up and its going down."""

    def __init__(self, request: Request, drill: str, times: int, only: tuple[str, ...]) -> None:
        self.request, self.drill, self.times, self.only = request, drill, times, only

    def __call__(self, campaign: Campaign) -> None:
        """Roll-backs, then restores."""
        if self.drill in {"releases", "all"}:
            self._releases(campaign)
        if self.drill in {"restore", "all"}:
            self._restores(campaign)

    def _releases(self, campaign: Campaign) -> None:
        from chaos.rollout import releases, rollbacks  # noqa: PLC0415

        drills = releases.chosen(campaign.config.target, self.only)
        if not drills:
            drills, absent = releases.others(campaign.config.target, self.only)
            self._not_applicable(campaign, [one.case for one in drills], absent)
            return
        if absent := next((why for one in drills[:1] if one.kind != "deploy" and (why := one.case.absent(campaign.config))), ""):
            self._not_applicable(campaign, [one.case for one in drills], absent)
            return
        rollbacks.rehearse(
            campaign.rig,
            drills,
            times=self.times,
            command=(sys.executable, "-m", "chaos"),
            record=lambda history: self._record(campaign, history),
            show=lambda title, done, total: campaign.screen.breaking(title, done, total, None),
        )

    def _restores(self, campaign: Campaign) -> None:
        from chaos.cases.restore import RESTORE  # noqa: PLC0415

        for done, case in enumerate(RESTORE):
            absent = case.absent(campaign.config)
            if absent or (absent := campaign.rig.hides(case.id)):
                self._not_applicable(campaign, [case], absent)
                continue
            campaign.screen.breaking(case.title, done, len(RESTORE), None)
            campaign.prove(case)

    def _record(self, campaign: Campaign, history: History) -> bool:
        from dataclasses import replace  # noqa: PLC0415

        from chaos.checks import judge  # noqa: PLC0415
        from chaos.model import Outcome  # noqa: PLC0415

        whole = history.experiment == "rollback.times"
        chosen = f"--times {self.times}" if whole else f"--times 1 --only {history.experiment}"
        given = f" -c {self.request.given}" if self.request.given else ""
        line = f"chaos-gate rollback --drill {chosen}{given} --seed {campaign.seed}"
        findings = [replace(one, rerun=line) for one in judge(history, campaign.collector.limits)]
        campaign.record(history, findings)
        return all(one.outcome is not Outcome.FAIL for one in findings)

    def _not_applicable(self, campaign: Campaign, cases: list[Case], absent: str) -> None:
        from chaos.model import Finding, Outcome  # noqa: PLC0415

        campaign.add(
            Finding(check=one.id, gate=one.gate, outcome=Outcome.NOT_APPLICABLE, detail=absent, experiment=one.id)
            for one in cases
        )
