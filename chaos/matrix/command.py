"""`chaos-gate matrix`, from the real PostgreSQL to what is shown."""

from __future__ import annotations

import json
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from chaos import __version__
from chaos.environments.local import LocalEnvironment
from chaos.errors import EvidenceUnwritable, UsageError
from chaos.faults.wire.rows import ROWS, VALID
from chaos.matrix import drivers, show, trials
from chaos.processes import Reaper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.faults.wire.rows import Row
    from chaos.matrix.drivers import Driver
    from chaos.matrix.trials import Result


def chosen_rows(only: Sequence[str]) -> list[Row]:
    """The rows named, by their own or the catalogue's id; all without names. UsageError for one that is not there."""
    every = [row for row in ROWS if row is not VALID]
    unknown = [name for name in only if name not in {row.id for row in every} | {row.base for row in every}]
    if unknown:
        raise UsageError(
            f"there is no row {unknown[0]!r}", remedy="name one of the catalogue: C1, P5, A7, C18.accept, ...", where="--only"
        )
    return [row for row in every if not only or row.id in only or row.base in only]


def chosen_drivers(names: Sequence[str], given: Sequence[str]) -> list[Driver]:
    """The bundled ones (those named, else all) and the caller's own, which replace one of the same name."""
    own = [drivers.given(text) for text in given]
    bundled = [one for one in drivers.bundled() if one.name not in {mine.name for mine in own}]
    known = {one.name for one in bundled}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"no driver {unknown[0]!r} is known", remedy=f"known are: {', '.join(sorted(known))}", where="--bundled")
    return [one for one in bundled if not names or one.name in names] + own


def measure(chosen: Sequence[Driver], rows: Sequence[Row]) -> tuple[list[Result], dict[str, str]]:
    """The results, and what they were measured on."""
    screen = Console(stderr=True)
    run_dir = Path(tempfile.mkdtemp(prefix="chaos-gate-matrix-"))
    started = time.monotonic()
    sys.setswitchinterval(0.0005)  # the wires share this interpreter with each other
    try:
        with Reaper(f"matrix-{secrets.token_hex(4)}") as reaper, screen.status("starting PostgreSQL") as status:
            environment = LocalEnvironment(reaper=reaper, run_dir=run_dir)
            environment.start()
            try:
                server = _server(environment, run_dir)
                results = trials.run(chosen, rows, server, say=lambda what, done, of: status.update(f"{done} of {of} · {what}"))
            finally:
                environment.stop()
            facts = {
                "chaos_gate": __version__,
                "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "postgresql": environment.versions["PostgreSQL"],
                "seconds": f"{time.monotonic() - started:.0f}",
                "limit_seconds": f"{trials.LIMIT:g}",
            }
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    return results, facts


def _server(environment: LocalEnvironment, run_dir: Path) -> trials.Server:
    postgres, authority = environment.postgres, environment.authority
    files = {"crl": authority.crl(), "stale_crl": authority.crl(stale=True), "no_crl": run_dir / "no-such.crl"}
    return trials.Server(
        port=postgres.port,
        user=postgres.app_user,
        password=postgres.app_password,
        database=postgres.app_database,
        host=postgres.host,
        ca_file=postgres.ca_file,
        issue=authority.issue,
        host_of=lambda text: text.replace("{host}", postgres.host),
        files=files,
    )


def execute(*, only: Sequence[str], names: Sequence[str], given: Sequence[str], output: Path | None, json_wanted: bool) -> None:
    """Measure, print, and write matrix.json, matrix.html and matrix.md into `output` when there is one."""
    rows, chosen = chosen_rows(only), chosen_drivers(names, given)
    if output is not None:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvidenceUnwritable(
                f"cannot be written: {error.strerror}", remedy="name another -o", where=str(output)
            ) from error
    results, facts = measure(chosen, rows)
    by_id = {row.id: row for row in rows}
    data = json.dumps(show.as_json(by_id, results, facts), indent=1) + "\n"
    if json_wanted:
        sys.stdout.write(data)
    screen = Console(stderr=json_wanted, width=None if sys.stdout.isatty() else 150)
    for part in show.terminal(by_id, results):
        screen.print(part)
    screen.print(f"{sum(len(one.cells) for one in results)} cells in {facts['seconds']} s, PostgreSQL {facts['postgresql']}")
    if output is not None:
        for name, text in {
            "matrix.json": data,
            "matrix.html": show.page(by_id, results, facts),
            "matrix.md": show.markdown(by_id, results),
        }.items():
            (output / name).write_text(text, encoding="utf-8")
        screen.print(f"written: {output}/matrix.html, matrix.json, matrix.md")
