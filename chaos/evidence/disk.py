"""What the disk says, as an error that people can act on; and files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import TYPE_CHECKING

from chaos.errors import EvidenceUnwritable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Turns what the disk says into EvidenceUnwritable: full, read-only, not permitted, not a directory, broken."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        full = code == sqlite3.SQLITE_FULL or "full" in str(error)
        if not full and code not in {
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_BUSY,
        }:
            raise
        raise _unwritable(path, str(error), full=full) from error
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error), full=error.errno in _FULL) from error


def _unwritable(path: Path, why: str, *, full: bool) -> EvidenceUnwritable:
    mend = "free space on that disk" if full else "make the directory writable"
    return EvidenceUnwritable(
        f"the evidence could not be written ({why}); what was written before is kept",
        remedy=f"{mend}, or name another directory with --evidence",
        where=str(path),
    )


def write_text(path: Path, text: str) -> None:
    """Beside the file, then renamed over it: a reader sees the old text or the new one. Raises EvidenceUnwritable."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """As `write_text`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
