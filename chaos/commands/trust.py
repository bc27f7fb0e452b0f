"""`chaos-gate trust`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from chaos.commands.options import directory_argument
from chaos.commands.verify import verified


@click.command("trust")
@directory_argument
@click.option("--key", type=click.Path(path_type=Path), metavar="PUBLIC", help="the signer's public key, as `verify` takes it")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("trust"), show_default=True)
def command(directory: Path, key: Path | None, output: Path) -> None:
    """Write pages for customers (posture, one-pager, FAQ) from evidence that verifies; they say nothing that it does not prove.

    Exit 1, and no page, when it does not verify.
    """
    from chaos.export import trust  # noqa: PLC0415

    report = verified(directory, key)
    if report.problems:
        click.echo(f"chaos-gate: {directory} does not verify, so nothing is said of it\n{report.as_text()}", err=True, nl=False)
        sys.exit(1)
    for place in trust.write(directory, output, origin=report.origin or "origin not checked"):
        click.echo(str(place))
