"""`chaos-gate soc2`."""

from __future__ import annotations

from pathlib import Path

import click

from chaos.commands.options import directory_argument


@click.command("soc2")
@directory_argument
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("soc2"), show_default=True)
def command(directory: Path, output: Path) -> None:
    """Write which SOC 2 and HIPAA criteria a run's gates support, as a page and as CSV for auditors."""
    from chaos.export import soc2  # noqa: PLC0415
    from chaos.gates import load  # noqa: PLC0415

    for place in soc2.write(directory, output, load()):
        click.echo(str(place))
