"""`chaos-gate documents`."""

from __future__ import annotations

import sys

import click

from chaos.commands.options import config_option


@click.command("documents")
@config_option
def command(given: str | None) -> None:
    """Look at the documents that the review asks for: there, fresh, whole. Nothing is started.

    Exit: 0 all are, 1 one is not, 3 none are declared.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from chaos.checks.documents import judged  # noqa: PLC0415
    from chaos.config import load  # noqa: PLC0415
    from chaos.documents import UNDECLARED, examine  # noqa: PLC0415
    from chaos.model import Outcome  # noqa: PLC0415
    from chaos.session import config_path  # noqa: PLC0415

    declared = load(config_path(given)).documents
    if declared is None:
        click.echo(UNDECLARED)
        sys.exit(3)
    found = judged([one.plain() for one in examine(declared.directory)], datetime.now(UTC).date(), declared.oldest)
    for one in found:
        click.echo(f"{'holds' if one.outcome is Outcome.PASS else 'FAILS'}  {one.detail}")
        for line in one.examples:
            click.echo(f"       {line}")
    sys.exit(int(any(one.outcome is Outcome.FAIL for one in found)))
