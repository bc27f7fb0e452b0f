"""The real vegeta, built once from the Go module proxy with its hash pinned."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from chaos.environments.local import go_module
from chaos.environments.local.cache import lock, user_cache

if TYPE_CHECKING:
    from pathlib import Path

PART = go_module.Part(
    name="vegeta",
    module="github.com/tsenart/vegeta/v12",
    version="12.13.0",
    sum="h1:J/UiNS3f69MkL0tsRLVUUV8uXXQZxdRUchtS+GYiSFc=",
    oldest_go=(1, 22),
    remedy="make the network reachable, or leave vegeta out (--only ours,locust)",
    takes="once, about a minute",
)


def binary() -> Path:
    """Out of the cache, or built into it; PartMissing when it cannot be."""
    found = user_cache() / f"vegeta-{PART.version}"
    with lock(user_cache() / ".lock-vegeta"):
        if not found.is_file():
            with go_module.workshop(PART, print) as (go, room):
                built = _install(go, room)
                go_module.keep(built, found)
    return found


def _install(go: Path, room: Path) -> Path:
    """A major version is a part of a Go module's path, and not of its program's name."""
    env = go_module.settings(room)
    done = subprocess.run(
        [go, "install", f"{PART.module}@v{PART.version}"], env=env, cwd=room, capture_output=True, text=True, check=False
    )
    made = room / "out" / "vegeta"
    of = subprocess.run([go, "version", "-m", made], env=env, capture_output=True, text=True, check=False).stdout
    if done.returncode or not re.search(re.escape(PART.sum), of):
        raise SystemExit(f"vegeta could not be built as it is pinned: {done.stderr[-400:]}")
    return made
