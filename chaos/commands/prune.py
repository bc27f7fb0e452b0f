"""`chaos-gate prune`."""

from __future__ import annotations

import time
from pathlib import Path

import click


@click.command("prune")
@click.argument("base", type=click.Path(path_type=Path), default=Path("evidence"))
@click.option("--keep", type=click.IntRange(0), default=20, show_default=True, help="the newest ones, whatever their age")
@click.option("--days", type=click.FloatRange(0), default=90, show_default=True, help="how long all others are kept")
@click.option("--dry-run", is_flag=True, help="only say what would go")
def command(base: Path, *, keep: int, days: float, dry_run: bool) -> None:
    """Remove evidence that is too old: never the latest, and never one whose faults were not healed."""
    from chaos.evidence import retention  # noqa: PLC0415

    found = retention.held(base, now=time.time(), kept=keep, days=days)
    for one in found:
        click.echo(f"{'keep' if one.why else 'go  '}  {one.place}" + (f"  {one.why}" if one.why else ""))
    if dry_run:
        return
    gone = retention.prune(found)
    click.echo(f"{len(gone)} removed, {len(found) - len(gone)} kept")
