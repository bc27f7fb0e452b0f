"""A file system of its own for PostgreSQL's WAL, so small that it can be filled: a disk that is really full, and nobody else's.

It is a tmpfs in a mount namespace that one process holds. It exists for whoever entered that namespace and nowhere else, and ends with
the last process in it: nothing is ever left mounted, whoever is killed. See mount_namespaces(7), tmpfs(5).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import PartFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.processes import Process, Reaper

SIZE = 96 << 20  # bytes: PostgreSQL's own WAL and then some; the rest is taken by `fill`
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "sleep")
FILLER = "chaos-gate-filler"


def lacking() -> str:
    """Why this machine has no such thing; '' when it has."""
    if not sys.platform.startswith("linux"):
        return "a small file system in a mount namespace of its own is Linux's"
    if os.geteuid() != 0:
        return "mounting a small file system needs root (CAP_SYS_ADMIN)"
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        return f"no {', '.join(missing)} (util-linux) on this machine"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no file system may be mounted here: {tried.stderr.strip()[:120]}" if tried.returncode else ""


class Room:
    """`place` as the processes inside see it; `reach` the same from outside, by /proc. Raises PartFailed when it cannot be had."""

    def __init__(self, place: Path, *, reaper: Reaper, log: Path, user: tuple[int, int] | None) -> None:
        self.place = place
        place.mkdir(mode=0o700, exist_ok=True)
        owner = f",uid={user[0]},gid={user[1]}" if user else ""
        mount = f'mount -t tmpfs -o size={SIZE},mode=0700{owner} tmpfs "$0" && touch "$0/.mounted" && exec sleep 86400'
        self.process: Process = reaper.spawn(
            ["unshare", "--mount", "/bin/sh", "-c", mount, str(place)],
            name="small file system",
            cwd=Path("/"),
            env={"PATH": os.environ.get("PATH", os.defpath)},
            log=log,
        )
        self.reach = Path(f"/proc/{self.process.pid}/root{place}")
        deadline = time.monotonic() + 5
        while not (self.reach / ".mounted").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                words = self.process.tail()
                self.process.kill()
                raise PartFailed("no small file system came up", remedy="read its last words", where="mount", tail=words)
            time.sleep(0.005)
        (self.reach / ".mounted").unlink()

    def entered(self, argv: Sequence[str], user: tuple[int, int] | None) -> list[str]:
        """`argv` inside, as `user`. All of them exec: the process is the program in the end, and keeps its pid."""
        lower = (
            ["setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups", "--pdeathsig", "QUIT", "--"] if user else []
        )
        return ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", "--", *lower, *argv]

    def fill(self) -> int:
        """Takes all that is free; how many bytes that were."""
        taken = 0
        with (self.reach / FILLER).open("ab", buffering=0) as stream:
            for size in (1 << 20, 1 << 12):  # ENOSPC ends each
                with suppress(OSError):
                    while True:
                        taken += stream.write(bytes(size)) or 0
        return taken

    def empty(self) -> None:
        """Gives it back."""
        (self.reach / FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        """Ends it, and everything in it with it."""
        self.process.kill()
        with suppress(OSError):
            self.place.rmdir()
