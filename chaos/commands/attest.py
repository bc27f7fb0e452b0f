"""`chaos-gate attest`."""

from __future__ import annotations

from pathlib import Path

import click

from chaos.commands.options import directory_argument


@click.command("attest")
@directory_argument
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="a private key in PEM, Ed25519 or ECDSA (default: CHAOS_SIGNING_KEY)",
)
def command(directory: Path, key: Path | None) -> None:
    """Write attestation.json: an in-toto Statement over every file of the evidence, signed when there is a key.

    A run writes it by itself at its end; this is for a key that the run did not have, or after files were added.
    """
    from chaos import attestation  # noqa: PLC0415
    from chaos.evidence import bundle, signing  # noqa: PLC0415
    from chaos.evidence.statement import ATTESTATION  # noqa: PLC0415

    by = signing.signer(key) if key is not None else attestation.key()
    place = bundle.resolve(directory) or directory
    attestation.seal(place, by)
    told = f"signed by key {by.public_key.keyid}" if by is not None else "unsigned: integrity only, no origin"
    click.echo(f"{place / ATTESTATION}: {told}")
