"""`chaos-gate verify`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chaos.commands.options import directory_argument

if TYPE_CHECKING:
    from chaos.verify import Report


@click.command("verify")
@directory_argument
@click.option("--key", type=click.Path(path_type=Path), metavar="PUBLIC", help="the signer's public key, or certificate, in PEM")
@click.option("--json", "as_json", is_flag=True, help="the result as JSON on stdout")
def command(directory: Path, key: Path | None, as_json: bool) -> None:
    """Check evidence without trust in whoever made it: signature, files, hash chain, and every number recomputed.

    Exit: 0 it verifies, 1 it does not (what and where is said), 2 usage, 4 environment. Needs no network, only the directory.
    """
    report = verified(directory, key)
    if as_json:
        click.echo(json.dumps(report.as_data(), indent=1))
    else:
        click.echo(report.as_text() + _table(report.gates), nl=False)
    sys.exit(1 if report.problems else 0)


def verified(directory: Path, key: Path | None) -> Report:
    """What `chaos.verify` says of it. Raises UsageError for what is no evidence, or no public key; EnvironmentFault."""
    from chaos import verify  # noqa: PLC0415
    from chaos.errors import EnvironmentFault, UsageError  # noqa: PLC0415

    if not directory.is_dir():
        raise UsageError("there is no evidence here", remedy="name a directory that `chaos-gate run` wrote", where=str(directory))
    try:
        return verify.verify(directory, key)
    except verify.KeyUnusable as error:
        raise UsageError(str(error), remedy="give the public half: openssl pkey -in KEY -pubout", where=str(key)) from error
    except OSError as error:
        raise EnvironmentFault(
            f"the evidence cannot be read: {error.strerror}", remedy="make it readable", where=str(error.filename or directory)
        ) from error


def _table(gates: dict[str, tuple[int, int]]) -> str:
    """How far down each gate was recomputed: no more is claimed than was done."""
    whole = [name for name, (raw, of) in gates.items() if raw == of]
    partly = [f"{name} ({raw} of {of})" for name, (raw, of) in gates.items() if 0 < raw < of]
    findings = [name for name, (raw, _) in gates.items() if not raw]
    told = (
        ("from the raw rows", whole),
        ("some findings from the raw rows, the others as they were found", partly),
        ("from the findings of the checks, as they were found", findings),
    )
    return "".join(f"recomputed {how}: {', '.join(names)}\n" for how, names in told if names)
