"""`chaos-gate export`: what operators run, written from gates.toml and chaos.toml."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chaos.commands.options import config_option

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.export.policy import Policy

output_option = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="write it there (default: stdout)"
)
job_option = click.option(
    "--job", metavar="NAME", help="what Prometheus calls the target's job (default: its name in chaos.toml; '' for any)"
)
metrics_option = click.option(
    "--metrics",
    "seen",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="what the target's metrics path answered, saved: names and labels are taken from it",
)
directory_option = click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR", help="they go there"
)


@click.group("export")
def command() -> None:
    """What operators run: alerting rules, dashboards, roll-out checks, SLOs; and the exporter of certificates."""


def _policy(given: str | None, job: str | None, seen: Path | None) -> Policy:
    """What everything is made of."""
    from chaos.config import load  # noqa: PLC0415
    from chaos.export.policy import Policy  # noqa: PLC0415
    from chaos.export.signals import signals  # noqa: PLC0415
    from chaos.gates import load as load_gates  # noqa: PLC0415
    from chaos.session import config_path  # noqa: PLC0415

    config = load(config_path(given))
    target = config.target
    called = target.name if job is None else job
    found = None
    if target.metrics is not None:
        found = signals(target.metrics.names, seen=_exposition(seen) if seen else None, job=called)
    return Policy(target=target.name, gates=load_gates(config.gates), metrics=found, job=called)


def _exposition(path: Path) -> list[Any]:
    from chaos.checks.panels import NotPrometheusError, read  # noqa: PLC0415
    from chaos.errors import UsageError  # noqa: PLC0415

    try:
        text = path.read_text(encoding="utf-8")
        return read(text, "openmetrics" if text.rstrip().endswith("# EOF") else "")
    except (NotPrometheusError, UnicodeDecodeError) as error:
        remedy = "save what the target's metrics path answers, for example with curl"
        raise UsageError(str(error), remedy=remedy, where=str(path)) from error


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _of_policy(make: Callable[[Policy], str], name: str, words: str) -> None:
    """A subcommand that writes one text made of the policy."""

    @command.command(name, help=words)
    @config_option
    @job_option
    @metrics_option
    @output_option
    def export(given: str | None, job: str | None, seen: Path | None, output: Path | None) -> None:
        _write(make(_policy(given, job, seen)), output)


@command.command("prometheus")
@config_option
@job_option
@metrics_option
@click.option(
    "--only", multiple=True, type=click.Choice(["certificates", "target", "soak"]), help="only these groups (repeatable)"
)
@click.option("--tests", type=click.Path(dir_okay=False, path_type=Path), help="with -o: their unit tests, for promtool, there")
@output_option
def export_prometheus(
    *, given: str | None, job: str | None, seen: Path | None, only: tuple[str, ...], tests: Path | None, output: Path | None
) -> None:
    """Write the Prometheus alerting and recording rules, with the thresholds of gates.toml and of [gates] in chaos.toml."""
    from chaos.errors import UsageError  # noqa: PLC0415
    from chaos.export import prometheus  # noqa: PLC0415

    if tests is not None and output is None:
        raise UsageError("the tests name the file of the rules", remedy="say where the rules go: -o FILE", where="--tests")
    policy, wanted = _policy(given, job, seen), only or prometheus.GROUPS
    _write(prometheus.rules(policy, wanted), output)
    if tests is not None and output is not None:
        _write(prometheus.unit_tests(policy, str(output.resolve()), wanted), tests)


@command.command("grafana")
@config_option
@job_option
@metrics_option
@directory_option
def export_grafana(*, given: str | None, job: str | None, seen: Path | None, output: Path) -> None:
    """Write Grafana dashboards: the target's panels with the gates' thresholds, and a running soak."""
    from chaos.export import grafana  # noqa: PLC0415

    made = grafana.dashboards(_policy(given, job, seen))
    _write_all({f"{name}.json": text for name, text in made.items()}, output)


def _argo(policy: Policy) -> str:
    from chaos.export import argo  # noqa: PLC0415

    return argo.rollout(policy)


def _openslo(policy: Policy) -> str:
    from chaos.export import openslo  # noqa: PLC0415

    return openslo.objects(policy)


def _alertmanager(policy: Policy) -> str:
    from chaos.export import alertmanager  # noqa: PLC0415

    return alertmanager.config(policy)


_of_policy(_argo, "argo", "Write Argo Rollouts analysis templates, and a roll-out in steps of 5, 25, 50 and 100 %.")
_of_policy(_openslo, "openslo", "Write OpenSLO v1 objects: SLOs, their indicators and alert policies.")
_of_policy(_alertmanager, "alertmanager", "Write Alertmanager routes and receivers for the exported alerts, by severity.")


def _locust(given: str | None) -> str:
    from chaos.config import load  # noqa: PLC0415
    from chaos.session import config_path  # noqa: PLC0415
    from chaos.traffic.load.locustfile import locustfile  # noqa: PLC0415

    return locustfile(load(config_path(given)))


@command.command("locust")
@config_option
@output_option
def export_locust(given: str | None, output: Path | None) -> None:
    """Write the locustfile with which workers on other machines send the load of a run."""
    _write(_locust(given), output)


@command.command("all")
@config_option
@job_option
@metrics_option
@directory_option
def export_all(*, given: str | None, job: str | None, seen: Path | None, output: Path) -> None:
    """Write everything, with a README that says what each file is and how it can be checked."""
    from chaos.export import everything  # noqa: PLC0415

    also = {"locustfile.py": ("Locust: the load, from more machines", _locust(given))}
    _write_all(everything.files(_policy(given, job, seen), also), output)


def _write_all(files: Mapping[str, str], directory: Path) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(text, path)
        click.echo(str(path))


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
