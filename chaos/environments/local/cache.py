"""Directories that outlive a run, filled once under a lock by whoever comes first. Standard library only: set-up uses it."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import PartMissing

if TYPE_CHECKING:
    from collections.abc import Iterator


def user_cache() -> Path:
    """$CHAOS_CACHE, $XDG_CACHE_HOME/chaos-gate, ~/.cache/chaos-gate, else the temp directory: the first that can be written."""
    candidates: list[Path] = []
    if given := os.environ.get("CHAOS_CACHE"):
        candidates.append(Path(given).absolute())
    if given := os.environ.get("XDG_CACHE_HOME"):
        candidates.append(Path(given).absolute() / "chaos-gate")
    with suppress(RuntimeError):  # no home directory is known
        candidates.append(Path.home() / ".cache" / "chaos-gate")
    candidates.append(Path(tempfile.gettempdir()) / f"chaos-gate-{os.getuid()}")
    for path in candidates:
        with suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
            if os.access(path, os.W_OK | os.X_OK):
                return path
    raise PartMissing(
        f"no cache directory can be written: tried {', '.join(map(str, candidates))}",
        remedy="set CHAOS_CACHE to a directory that can",
        where="cache",
    )


def shared_cache() -> Path:
    """A cache that other users of this machine can pass through but not write: for what PostgreSQL's user has to read."""
    for base in ("/var/tmp", tempfile.gettempdir()):  # noqa: S108  # its owner and mode are checked below
        path = Path(base) / f"chaos-gate-{os.getuid()}"
        with suppress(OSError):
            path.mkdir(mode=0o755, exist_ok=True)
            seen = path.lstat()
            if stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o022:
                path.chmod(0o755)  # whatever the umask
                return path
    raise PartMissing(
        f"{path} is not a directory that belongs to this user alone",
        remedy=f"remove {path}, or see who made it",
        where="cache",
    )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Waits until this process is the only one inside. The lock file stays: removing it would let two in."""
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield
