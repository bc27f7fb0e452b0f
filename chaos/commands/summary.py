"""`chaos-gate summary`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from chaos.commands.options import config_option, directory_argument


@click.command("summary")
@directory_argument
@config_option
@click.option("--webhook", envvar="CHAOS_WEBHOOK", metavar="URL", help="post it there (a secret: better in CHAOS_WEBHOOK)")
@click.option("--shape", type=click.Choice(["slack", "plain"]), default="slack", show_default=True, help="of what is posted")
@click.option("--github", is_flag=True, help="write the job summary, and an annotation for each failed gate (GitHub Actions)")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="where they go (default: into the evidence)"
)
def command(directory: Path, *, given: str | None, webhook: str | None, shape: str, github: bool, output: Path | None) -> None:
    """Write the daily summaries and the KPIs of recorded evidence; post them, or show them in a pipeline."""
    from chaos import attestation  # noqa: PLC0415
    from chaos.errors import UsageError  # noqa: PLC0415
    from chaos.evidence import summary  # noqa: PLC0415
    from chaos.evidence.disk import written  # noqa: PLC0415
    from chaos.export import webhook as outside  # noqa: PLC0415
    from chaos.recheck import opened  # noqa: PLC0415

    job = os.environ.get("GITHUB_STEP_SUMMARY", "")
    if github and not job:
        raise UsageError(
            "there is no GITHUB_STEP_SUMMARY here", remedy="use --github in a step of GitHub Actions", where="--github"
        )
    if webhook:
        outside.checked(webhook)
    run, limits = opened(directory, given)
    secrets = (webhook,) if webhook else ()
    place = output or directory
    whole = summary.write(place, run, limits=limits, secrets=secrets)
    if output is None:
        attestation.reseal(directory)
    click.echo(str(place / "summary.html"))
    if github:
        with written(Path(job)), Path(job).open("a", encoding="utf-8") as file:
            file.write(summary.markdown(whole, secrets=secrets))
        for line in outside.workflow_commands(whole, secrets=secrets):
            click.echo(line)
    if webhook:
        attempts = outside.post(webhook, outside.SHAPES[shape](whole, secrets=secrets))
        click.echo(f"posted to the webhook at attempt {attempts}")
