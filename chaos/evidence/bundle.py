"""The evidence directory: evidence.json, junit.xml, report and scorecard beside the store, and `latest` that points to it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.errors import UsageError
from chaos.evidence import accepted, schema, summary
from chaos.evidence.disk import write_text, written
from chaos.evidence.junit import junit
from chaos.evidence.streak import strip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.checks import Limits
    from chaos.evidence.record import Run
    from chaos.evidence.store import Store

LATEST = "latest"
REPORT = "report.html"


def write(
    directory: Path,
    run: Run,
    store: Store,
    *,
    secrets: Sequence[str] = (),
    latest: bool | None = None,
    previous: Path | None = None,
    limits: Limits | None = None,
) -> None:
    """Writes all files of a run, evidence.json first: what decides is there even if what explains it could not be drawn.

    `secrets` are values that no output may hold (those of known shapes are taken out anyway). `latest`: point `latest` beside the
    directory to it (None: only when that is in a directory named 'evidence', so that `--evidence /tmp/x` leaves /tmp alone).
    `previous`: the evidence directory to compare with (None: the one that `latest` points to, if it is of the same target and
    profile). `limits` are what a soak's hours are held against in its summaries (None: gates.toml's). Raises EvidenceUnwritable.
    """
    hidden = tuple(secrets)
    run = replace(run, recordings=store.recordings)
    with written(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "evidence.json", schema.evidence_json(run, secrets=hidden))
    store.save(run, secrets=hidden)
    accepted.write(directory, run, secrets=hidden)
    write_text(directory / "junit.xml", junit(run, seconds=store.seconds(), secrets=hidden))
    before = _before(directory, run, previous)
    from chaos.evidence.report import read, report  # noqa: PLC0415  (matplotlib and jinja2: 0.7 s, and only here)

    series = read(run, secrets=hidden)
    write_text(directory / REPORT, report(run, series=series, before=before, damaged=store.damaged, secrets=hidden))
    from chaos.evidence import scorecard  # noqa: PLC0415  (as above)

    digest = hashlib.sha256((directory / "evidence.json").read_bytes()).hexdigest()
    scorecard.write(directory, scorecard.card(run, strip=strip(series.hours), digest=digest), secrets=hidden)
    if summary.is_long(run):
        summary.write(directory, run, limits=limits, secrets=hidden)
    if latest or (latest is None and directory.absolute().parent.name == "evidence"):
        point(directory)


def _before(directory: Path, run: Run, previous: Path | None) -> schema.Evidence | None:
    """The last run of the same target and profile; None when there is none, or none that can be read."""
    place = previous or resolve(directory.absolute().parent / LATEST)
    if place is None or place.resolve() == directory.resolve():
        return None
    with contextlib.suppress(UsageError):
        found = schema.read(place / "evidence.json")
        if (found.target, found.profile) == (run.target, run.profile):
            return found
    return None


def point(directory: Path) -> Path:
    """Lets `latest` beside the directory point to it, in one step; returns the link.

    Where links cannot be made (some mounts), or a real directory has that name, `latest.txt` holds the directory's name.
    """
    directory = directory.absolute()
    link = directory.parent / LATEST
    partial = directory.parent / f".{LATEST}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        partial.symlink_to(directory.name, target_is_directory=True)
        partial.replace(link)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        named = link.with_suffix(".txt")
        write_text(named, directory.name + "\n")
        return named
    return link


def resolve(directory: Path) -> Path | None:
    """The evidence directory that a path means: itself, or what `latest` (link or `latest.txt`) points to; None: not there."""
    named = directory.with_suffix(".txt")
    if directory.name == LATEST and not directory.exists() and named.is_file():
        directory = directory.parent / named.read_text(encoding="utf-8").strip()
    return directory if directory.is_dir() else None
