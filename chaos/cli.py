"""The command line: parse, call, print. Every error is one message and an exit code; nobody is shown a traceback of ours."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from chaos import __version__
from chaos.commands import COMMANDS
from chaos.commands.options import config_option, directory_argument
from chaos.defect import Defect
from chaos.errors import ChaosError, EnvironmentFault
from chaos.model import INTERRUPTED, USAGE

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
# What the disk or the place says, rather than a defect of ours.
PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EIO}
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLEANING = 10.0  # s after an interruption in which another one changes nothing: healing and stopping are already under way


class Gate(click.Group):
    """Turns our errors into messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but for ChaosError, Ctrl-C, a full disk, and what nobody expected."""
        try:
            return super().invoke(ctx)
        except ChaosError as error:
            from chaos.evidence.redact import redact  # noqa: PLC0415

            _die(redact(f"chaos-gate: {error.render()}"), error.exit_code)
        except Defect as error:
            _die(error.render(), error.exit_code)
        except KeyboardInterrupt:
            _die("chaos-gate: interrupted", INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  (the last place that can spare people a traceback)
            if isinstance(error, OSError) and error.errno in PLACE and error.filename:
                _die(
                    f"chaos-gate: {error.filename}: {error.strerror}\n  -> make room, or name another place",
                    EnvironmentFault.exit_code,
                )
            found = Defect.of(error, None)
            _die(found.render(), found.exit_code)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown command is a usage error that says what was probably meant."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from chaos.gates import named  # noqa: PLC0415

            named(args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


def _die(text: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # nobody may be listening any more
        click.echo(text, err=True)
    sys.exit(code)


@click.group(cls=Gate, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="chaos-gate")
def cli() -> None:
    """Break what is around a service on PostgreSQL, and prove or disprove its Go/No-Go gates.

    Exit: 0 GO or CLEAR, 1 NO-GO, 2 usage, 3 INCONCLUSIVE, 4 environment, 130 interrupted.
    """


for _name in COMMANDS:
    cli.add_command(import_module(f"chaos.commands.{_name}").command)


@cli.command()
@config_option
@click.option("--profile", type=click.Choice(["quick", "nightly"]), default="quick", show_default=True, help="how much is run")
@click.option("--only", multiple=True, metavar="ID", help="only this gate or check (repeatable)")
@click.option("--evidence", metavar="DIR", help="where the evidence goes (default: evidence/<UTC time>-<id>)")
@click.option("--seed", type=int, help="seed of everything that is random (default: a fresh one, printed)")
@click.option(
    "-n", "--workers", type=click.IntRange(1, 64), help="environments side by side (default: [run].workers, else by cores)"
)
@click.option("--backend", type=click.Choice(["auto", "local", "docker"]), default="auto", show_default=True)
@click.option("--shadow", metavar="FILE", help="an access log (Caddy, nginx, AWS ALB, HAR): its reads are asked as well")
@click.option("--json", "as_json", is_flag=True, help="evidence.json on stdout, and nothing else; people read stderr")
@click.option("--plan", is_flag=True, help="only say what would be broken, whom it reaches and for how long; inject nothing")
def run(*, given: str | None, workers: int | None, as_json: bool, plan: bool, shadow: str | None, **options: Any) -> None:
    """Start everything, break things, and end with a verdict and an evidence directory.

    A run that ends early (exit 4, 130) writes its evidence too, and --json prints it. Only when no evidence could be written, or
    the command line or chaos.toml is wrong, stdout stays empty; the error is always on stderr. Ctrl-C, SIGTERM and SIGHUP heal
    what is broken, stop everything and keep the evidence; a few more of them meanwhile change nothing.
    """
    from chaos.collector import Request  # noqa: PLC0415
    from chaos.runner import check_names, execute  # noqa: PLC0415

    if plan:
        from chaos.plan import show  # noqa: PLC0415

        check_names(options["only"])
        sys.exit(show(given, options["only"], options["profile"], as_json=as_json))

    if shadow:
        from chaos.traffic.access_log import hand_over  # noqa: PLC0415

        hand_over(Path(shadow))
    command = " ".join(["chaos-gate", *sys.argv[1:]])
    sys.exit(execute(Request(given=given, command=command, **options), workers=workers, as_json=as_json))


@cli.command()
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="a ledger of faults (faults.jsonl), or the evidence directory that holds it (default: all in evidence/)",
)
def heal(ledger: Path | None) -> None:
    """Undo the faults that a run left behind and that neither it nor its watchdog could undo."""
    from chaos.heal import heal as mend  # noqa: PLC0415

    sys.exit(mend(ledger))


@cli.command()
@config_option
@click.option("--json", "as_json", is_flag=True)
def gates(given: str | None, as_json: bool) -> None:
    """List the gates: id, threshold, what must settle each."""
    from chaos.about import show_gates  # noqa: PLC0415

    show_gates(given, as_json=as_json)


@cli.command()
@click.option("--json", "as_json", is_flag=True)
def faults(as_json: bool) -> None:
    """List what can be broken: id, title, gate."""
    from chaos.about import show_faults  # noqa: PLC0415

    show_faults(as_json=as_json)


@cli.command()
@click.argument("name", metavar="ID")
def explain(name: str) -> None:
    """Explain a gate or a check: what it proves, how, and when it fails."""
    from chaos.about import explain as show  # noqa: PLC0415

    show(name)


@cli.command()
@config_option
@click.option("--sweep", is_flag=True, help="first remove what dead runs left in the container engine; never a living run's")
def doctor(given: str | None, sweep: bool) -> None:
    """Look at this machine: what a run needs, what is missing, and the line that mends it."""
    from chaos.doctor import examine  # noqa: PLC0415

    sys.exit(examine(given, sweep=sweep))


@cli.command()
@directory_argument
@config_option
@click.option("--json", "as_json", is_flag=True)
def recheck(directory: Path, given: str | None, as_json: bool) -> None:
    """Judge recorded evidence again, from disk, under the thresholds of now."""
    from chaos.recheck import recheck as again  # noqa: PLC0415

    sys.exit(again(directory, given, as_json=as_json))


@cli.command()
@directory_argument
@config_option
def accept(directory: Path, given: str | None) -> None:
    """Accept what the pen-test of a run found, but for what is critical: later runs say what is new, known and fixed."""
    from chaos.evidence.accepted import accept as keep  # noqa: PLC0415
    from chaos.session import config_path  # noqa: PLC0415

    place, kept, left = keep(directory, config_path(given))
    click.echo(f"{place}: {len(kept)} accepted" + "".join(f"\n  {key}" for key in kept))
    if left:
        click.echo("critical, so not accepted; mend these:" + "".join(f"\n  {key}" for key in left))


@cli.command()
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option("--last", type=click.IntRange(1), default=5, show_default=True, help="at most so many runs, the newest ones")
@click.option("--markdown", is_flag=True, help="for the summary page of a pipeline")
def compare(directories: tuple[Path, ...], last: int, markdown: bool) -> None:
    """Compare the last runs, gate by gate: those in the evidence directories named, else those in evidence/."""
    from chaos.evidence.compare import compare as compared  # noqa: PLC0415
    from chaos.evidence.compare import load, text  # noqa: PLC0415
    from chaos.evidence.compare import markdown as page  # noqa: PLC0415

    runs = compared(load(directories, base=Path("evidence"), last=last))
    click.echo(page(runs) if markdown else text(runs), nl=False)


@cli.command()
@click.option("--only", multiple=True, metavar="ROW", help="only this row of the catalogue, such as C24 (repeatable)")
@click.option("--bundled", "names", multiple=True, metavar="NAME", help="only this one of the bundled drivers (repeatable)")
@click.option("--driver", "given", multiple=True, metavar="NAME=COMMAND", help="one more driver, in any language (repeatable)")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="matrix.html, .json and .md go there")
@click.option("--json", "as_json", is_flag=True, help="the result as JSON on stdout; people read stderr")
def matrix(*, only: tuple[str, ...], names: tuple[str, ...], given: tuple[str, ...], output: Path | None, as_json: bool) -> None:
    """Put database drivers by themselves in front of hostile servers, and show what each gives away.

    A driver that is not installed is listed as such. docs/driver-matrix.md says how one is added, and what was measured.
    """
    from chaos.matrix.command import execute  # noqa: PLC0415

    execute(only=only, names=names, given=given, output=output, json_wanted=as_json)


def main() -> None:
    """Entry point."""
    handled = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup, or a shell's background
    interrupt = _Interrupt()
    for number in handled:
        signal.signal(number, interrupt)
    try:
        cli(prog_name="chaos-gate")
    except BrokenPipeError:  # somebody closed our stdout (`| head`)
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(USAGE)
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_IGN)  # the exit code stands: Python's last moments must not change it


class _Interrupt:
    """SIGTERM and SIGHUP end a run as Ctrl-C does: healed, stopped, evidence kept. Impatience does not make that go wrong."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, _number: int, _frame: object) -> None:
        if time.monotonic() - self._last > CLEANING:
            self._last = time.monotonic()
            raise KeyboardInterrupt
