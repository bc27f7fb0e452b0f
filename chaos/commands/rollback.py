"""`chaos-gate rollback`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("rollback")
@click.option(
    "--state", type=click.Path(path_type=Path), default=Path("rollout.json"), show_default=True, help="the roll-out's state"
)
def command(state: Path) -> None:
    """Put the last good release back, in one command, and wait until it serves."""
    from chaos.rollout.rollback import State, roll_back  # noqa: PLC0415

    seconds = roll_back(State.read(state))
    click.echo(f"rolled back: serving again after {seconds:.1f} s (limit 600 s)")
