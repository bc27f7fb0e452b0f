"""The Toxiproxy server's binary: found, or built once. Standard library only: set-up runs it before anything is installed.

    python -m chaos.environments.local.toxiproxy       finds or builds it, and prints where it is

It is in no Python, npm or Debian package (https://github.com/Shopify/toxiproxy), so it is built from the Go module proxy.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.environments.local import go_module
from chaos.environments.local.cache import lock, user_cache

if TYPE_CHECKING:
    from chaos.environments.local.go_module import Say

VERSION = "2.12.0"
PART = go_module.Part(
    name="Toxiproxy",
    module="github.com/Shopify/toxiproxy/v2",
    version=VERSION,
    sum="h1:d1x++lYZg/zijXPPcv7PH0MvHMzEI5aX/YuUi/Sw+yg=",
    oldest_go=(1, 23),
    remedy=f"put a toxiproxy-server {VERSION} on PATH, or make the network reachable and run this again",
)


def ensure(say: Say = lambda _: None) -> Path:
    """`toxiproxy-server` 2.12 on PATH, else the one in the cache, else a new build into it; PartMissing when none can be had."""
    if (given := shutil.which("toxiproxy-server")) and _version(given).startswith("2.12."):
        return Path(given)
    cache = user_cache()
    target = cache / f"toxiproxy-server-{VERSION}"
    if not target.is_file():
        with lock(cache / ".lock-toxiproxy"):
            if not target.is_file():
                _build(target, say)
    return target


def _version(binary: str | Path) -> str:
    """Such as '2.12.0'; '' when it does not run."""
    try:
        done = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version (\S+)", done.stdout + done.stderr)
    return found[1] if found else ""


def _build(target: Path, say: Say) -> None:
    with go_module.workshop(PART, say) as (go, room):
        binary = go_module.install(PART, go, room, package="cmd/server", stamp=f"{PART.module}.Version", version=_version)
        go_module.keep(binary, target)


if __name__ == "__main__":
    go_module.main(ensure)
