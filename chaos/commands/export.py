"""`chaos-gate export`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from chaos.commands.options import config_option


@click.group("export")
def command() -> None:
    """What operators run: alerting rules, and the exporter of certificates that they read."""


@command.command("prometheus")
@config_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="write it there (default: stdout)")
def export_prometheus(given: str | None, output: Path | None) -> None:
    """Write the Prometheus alerting rules, with the thresholds of gates.toml and of [gates] in chaos.toml."""
    from chaos.config import load  # noqa: PLC0415
    from chaos.export import prometheus  # noqa: PLC0415
    from chaos.gates import load as load_gates  # noqa: PLC0415
    from chaos.session import config_path  # noqa: PLC0415

    text = prometheus.rules(load_gates(load(config_path(given)).gates))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


@command.command("certificates")
@click.option("--server", "servers", multiple=True, metavar="HOST:PORT", help="a PostgreSQL server to look at (repeatable)")
@click.option("--file", "files", multiple=True, type=click.Path(path_type=Path), help="a PEM file to look at (repeatable)")
@click.option("--expect", type=click.Path(path_type=Path), help="the certificate file that the one --server has to serve")
@click.option("--wait", type=float, default=0.0, help="with --expect: seconds in which it may begin to")
@click.option("--listen", metavar="HOST:PORT", help="serve /metrics there, for ever")
@click.option("--text", is_flag=True, help="print what Prometheus would read, and end")
def export_certificates(
    *, servers: tuple[str, ...], files: tuple[Path, ...], expect: Path | None, wait: float, listen: str | None, text: bool
) -> None:
    """Say when certificates and revocation lists end, and whether a server serves what is on its disk.

    Exit 1 when something cannot be seen, has ended, or is not served as on disk.
    """
    from chaos.errors import UsageError  # noqa: PLC0415
    from chaos.export import certificates as exporter  # noqa: PLC0415

    if not servers and not files:
        raise UsageError("nothing to look at", remedy="name a --server HOST:PORT or a --file", where="export certificates")
    if expect is not None and len(servers) != 1:
        raise UsageError("--expect is for one server", remedy="name exactly one --server", where="--expect")
    expected = ((servers[0], expect),) if expect is not None else ()
    watched = exporter.Watched(servers=servers, files=files, expect=expected)
    if listen:
        exporter.serve(watched, listen)
    if text:
        click.echo(exporter.exposition(watched), nl=False)
        return
    endings, said, mismatches = exporter.await_served(watched, wait)
    for line in exporter.table(endings, said, mismatches):
        click.echo(line)
    ended = any(one.not_after <= time.time() for one in endings)
    sys.exit(1 if ended or any((*said.values(), *mismatches.values())) else 0)
