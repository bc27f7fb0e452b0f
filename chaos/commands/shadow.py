"""`chaos-gate shadow`."""

from __future__ import annotations

from pathlib import Path

import click

from chaos.commands.options import config_option


@click.command("shadow")
@config_option
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--share", type=float, help="how much of it, 0.1 to 0.2 (default: 0.15; all of a log with fewer than 2,000 lines)")
@click.option("--most", type=click.IntRange(1), default=10_000, show_default=True, help="at most so many requests")
@click.option("--seed", type=int, default=1, show_default=True, help="of the choice")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="write them there, scrubbed (else: only say)"
)
def command(*, log: Path, given: str | None, share: float | None, most: int, seed: int, output: Path | None) -> None:
    """Take the reads out of an access log that may be replayed: a seeded share, GET and HEAD only, nobody's data in them.

    What is written is itself a log that `chaos-gate run --shadow FILE` replays, and may leave production. Nothing is sent.
    """
    from chaos.config import load  # noqa: PLC0415
    from chaos.evidence.disk import write_text  # noqa: PLC0415
    from chaos.session import config_path  # noqa: PLC0415
    from chaos.traffic.host_names import listed  # noqa: PLC0415
    from chaos.traffic.shadow import as_lines, draw  # noqa: PLC0415

    drawn = draw(log, seed=seed, most=most, share=share, serves=listed(load(config_path(given)).target.hosts))
    click.echo(drawn.told())
    if output is not None:
        write_text(output, as_lines(drawn))
