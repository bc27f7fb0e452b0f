"""`chaos-gate soak`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from chaos.commands.options import config_option


@click.command("soak")
@config_option
@click.option("--hours", type=float, default=72.0, show_default=True, help="how long; 48 or more can end GO")
@click.option("--rate", type=float, help="requests a second, on planned times (default: 20; of a model 200)")
@click.option("--seed", type=int, help="seed of load and schedule (default: a fresh one, printed)")
@click.option("--evidence", metavar="DIR", help="where the evidence goes (default: evidence/<UTC time>-<id>)")
@click.option("--resume", metavar="DIR", help="go on with a soak that was interrupted, by its own plan; the gap is grey")
@click.option("--functional", metavar="DIR", help="the evidence of a nightly run that stands for the first functional round")
@click.option(
    "--baseline", metavar="DIR", help="the evidence of a recorded run to compare latency and throughput with (rel.delta)"
)
@click.option(
    "--compress", is_flag=True, help="on a simulated clock: 72 h in minutes; proves the logic, and is no 72 h of service"
)
@click.option(
    "--model",
    default="",
    metavar="NAME",
    help="with --compress: a modelled service, no real one (healthy, bad-hour, ...)",
)
@click.option("--workers", type=click.IntRange(1, 1000), help="so many workers of Locust send, instead of one sender")
@click.option(
    "--status", metavar="HOST:PORT", help="serve a status page, /status.json and /metrics there (127.0.0.1:0 picks a port)"
)
@click.option("--shadow", metavar="FILE", help="an access log: its reads are replayed in each round (as `run --shadow` does)")
@click.option("--backend", type=click.Choice(["auto", "local", "docker"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="evidence.json on stdout, and nothing else; people read stderr")
def command(*, as_json: bool, workers: int | None, shadow: str | None, **options: Any) -> None:
    """Load for days, faults on a schedule, and hours that are green, grey or red.

    The plan is written to schedule.json before anything happens. Ctrl-C and SIGTERM heal, stop and conclude with what there is; after
    `kill -9` or a reboot, --resume goes on. A soak of less than 48 hours ends CLEAR at best, and says what it cannot prove.
    """
    from chaos.soak.start import Asked, execute  # noqa: PLC0415

    if shadow:
        from chaos.traffic.access_log import hand_over  # noqa: PLC0415

        hand_over(Path(shadow))
    asked = Asked(command=" ".join(["chaos-gate", *sys.argv[1:]]), workers=workers or 0, **options)
    sys.exit(execute(asked, as_json=as_json))
