"""`chaos-gate report`."""

from __future__ import annotations

from pathlib import Path

import click

from chaos.commands.options import config_option


@click.command("report")
@click.argument("directory", type=click.Path(path_type=Path), default=None, required=False)
@click.option("--template", is_flag=True, help="the scorecard with the targets only, before any run, as PDF and HTML")
@config_option
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="where the template goes (default: here)")
def command(directory: Path | None, *, template: bool, given: str | None, output: Path | None) -> None:
    """Write the report and the scorecard of recorded evidence again (default: evidence/latest), or the scorecard's template."""
    from chaos.errors import UsageError  # noqa: PLC0415
    from chaos.recheck import rewrite, write_template  # noqa: PLC0415

    if template and directory is not None:
        raise UsageError("a template is made before any run", remedy="leave the directory out, or --template", where="report")
    if not template and (given or output):
        raise UsageError("-c and -o are for --template", remedy="add --template, or leave them out", where="report")
    places = write_template(given, output or Path()) if template else rewrite(directory or Path("evidence/latest"))
    for place in places:
        click.echo(str(place))
