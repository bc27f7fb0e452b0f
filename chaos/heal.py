"""`chaos-gate heal`: undo by hand what ledgers of faults still hold, when neither the run nor its watchdog could."""

from __future__ import annotations

import sys
from pathlib import Path

from chaos import healing, ledger
from chaos.errors import UsageError

EVIDENCE = Path("evidence")


def heal(given: Path | None) -> int:
    """Heals the ledger given (a file, or the evidence directory that it is in), or all of `evidence/`; returns the exit code.

    A run that still goes on is left alone: it heals by itself. 4 when something could not be healed, and what and why is said.
    """
    paths = [_named(given)] if given else sorted(EVIDENCE.glob(f"*/{ledger.NAME}"))
    code, open_ones = 0, 0
    for path in dict.fromkeys(path.resolve() for path in paths):
        before = ledger.account(path)
        open_ones += len(before.open)
        if alive := ledger.living(path):
            _busy(path, alive, given)
            continue
        after = ledger.settle(path, by="hand", wait=0.0)
        for name, entry in before.open.items():
            failed = name in after.open
            where = f" ({entry['where']})" if entry["where"] else ""
            sys.stdout.write(
                f"{'NOT HEALED' if failed else 'healed'}  {entry['fault']}{where}"
                f"{': ' + ledger.reason(path, name) if failed else ''}\n"
            )
        if after.open:
            sys.stdout.write(f"  -> make that reachable, then again: chaos-gate heal --ledger {path}\n")
            code = 4
    if not open_ones:
        sys.stdout.write(f"nothing to heal: {len(paths)} ledger{'' if len(paths) == 1 else 's'} looked at, no fault is open\n")
    return code


def _named(given: Path) -> Path:
    path = given / ledger.NAME if given.is_dir() else given
    if not path.is_file():
        raise UsageError(
            "there is no ledger of faults here",
            remedy=f"name one ({ledger.NAME}), or the evidence directory that holds it",
            where=str(given),
        )
    if not healing.entries(path.read_bytes()):
        raise UsageError("this is no ledger of faults", remedy=f"name one: it is called {ledger.NAME}", where=str(path))
    return path


def _busy(path: Path, alive: list[int], given: Path | None) -> None:
    told = f"the run that writes it is still on (pid {', '.join(map(str, alive))}), and heals by itself"
    if given:
        raise UsageError(told, remedy="end it first (Ctrl-C, or SIGTERM): it heals what it broke", where=str(path))
    sys.stdout.write(f"left alone  {path}: {told}\n")
