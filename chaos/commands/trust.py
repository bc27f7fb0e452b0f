"""`chaos-gate trust`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from chaos.commands.options import directory_argument


@click.command("trust")
@directory_argument
@click.option("--key", type=click.Path(path_type=Path), metavar="PUBLIC", help="the signer's public key, as `verify` takes it")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("trust"), show_default=True)
def command(directory: Path, key: Path | None, output: Path) -> None:
    """Write pages for customers (posture, one-pager, FAQ) from evidence that verifies; they say nothing that it does not prove.

    Exit 1, and no page, when it does not verify.
    """
    from chaos.errors import UsageError  # noqa: PLC0415
    from chaos.export import trust  # noqa: PLC0415
    from chaos.verify import KeyUnusable, verify  # noqa: PLC0415

    if not directory.is_dir():
        raise UsageError("there is no evidence here", remedy="name a directory that `chaos-gate run` wrote", where=str(directory))
    try:
        report = verify(directory, key)
    except KeyUnusable as error:
        raise UsageError(str(error), remedy="give the public half: openssl pkey -in KEY -pubout", where=str(key)) from error
    if report.problems:
        click.echo(f"chaos-gate: {directory} does not verify, so nothing is said of it\n{report.as_text()}", err=True, nl=False)
        sys.exit(1)
    for place in trust.write(directory, output, origin=report.origin or "origin not checked"):
        click.echo(str(place))
