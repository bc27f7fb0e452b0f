"""`chaos-gate pack`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from chaos.commands.options import config_option, directory_argument


@click.command("pack")
@directory_argument
@config_option
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="where it goes (default: pack, beside the evidence)"
)
def command(directory: Path, given: str | None, output: Path | None) -> None:
    """Put all that a Go/No-Go review looks at into one directory, with an index: from one run, in one command.

    Exit: 0 it is complete, 3 a part is missing, or says that something is not well (the index tells), 2 usage, 4 environment.
    """
    from chaos.pack import INCOMPLETE, INDEX, pack  # noqa: PLC0415

    place, made = pack(directory, output, Path(given).absolute() if given else None)
    for one in made:
        click.echo(f"{one.state:<9}{one.part.title:<30}{one.reason}".rstrip())
    click.echo(str(place / INDEX))
    sys.exit(INCOMPLETE if any(one.reason for one in made) else 0)
