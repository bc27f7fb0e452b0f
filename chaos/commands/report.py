"""`chaos-gate report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chaos.commands.options import directory_argument

if TYPE_CHECKING:
    from pathlib import Path


@click.command("report")
@directory_argument
def command(directory: Path) -> None:
    """Write the report of recorded evidence again."""
    from chaos.recheck import rewrite  # noqa: PLC0415

    click.echo(str(rewrite(directory)))
