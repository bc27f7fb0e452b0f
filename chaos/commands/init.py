"""`chaos-gate init`."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import click

from chaos.errors import EvidenceUnwritable, UsageError

NAME = "chaos.toml"
DOCUMENTS = "documents"


@click.command("init")
@click.option("--force", is_flag=True, help="overwrite what is there")
@click.option("--documents", is_flag=True, help="write the documents of the review to start from, into documents/")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
def command(directory: Path, *, force: bool, documents: bool) -> None:
    """Write a chaos.toml to start from, or the documents that the review asks for."""
    place = directory / NAME
    if documents:
        _documents(directory / DOCUMENTS, place, force=force)
        return
    if place.exists() and not force:
        raise UsageError("there is one already", remedy="edit it, or overwrite it with --force", where=str(place))
    _write(place, files("chaos").joinpath("template.toml").read_text(encoding="utf-8"))
    click.echo(f"{place}: written. Edit it, then: chaos-gate run -c {place}")


def _documents(directory: Path, config: Path, *, force: bool) -> None:
    from chaos.documents import write_texts  # noqa: PLC0415

    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    known: dict[str, object] = {}
    with suppress(tomllib.TOMLDecodeError):  # `chaos-gate run` says what is wrong with it
        known = tomllib.loads(text)
    target = known.get("target")
    name = str(target.get("name", "")) if isinstance(target, dict) else ""
    written = write_texts(directory, target=name or "the service", today=datetime.now(UTC).date(), force=force)
    click.echo("\n".join(f"{one}: written" for one in written))
    click.echo("Fill in what stands in [[double brackets]]; the date is that of the last review.")
    lines = f'[documents]\ndirectory = "{DOCUMENTS}"\n'
    if known and "documents" not in known:
        _write(config, text.rstrip() + "\n\n" + lines)
        click.echo(f"{config}: [documents] added. Then: chaos-gate run -c {config} --only documents")
    elif not known:
        click.echo(f"Then add to {config}:\n\n{lines}")


def _write(place: Path, text: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"cannot write it: {error.strerror}"
        raise EvidenceUnwritable(what, remedy="choose a directory that can be written", where=str(place)) from error
