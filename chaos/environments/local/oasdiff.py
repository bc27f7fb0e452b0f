"""oasdiff: found, or built once. It tells what differs between two OpenAPI descriptions, and what of it breaks a client.

    python -m chaos.environments.local.oasdiff         finds or builds it, and prints where it is

It is in no Python, npm or Debian package, so it is built from the Go module proxy as Toxiproxy is: a minute, once.
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

VERSION = "1.37.0"
PART = go_module.Part(
    name="oasdiff",
    module="github.com/oasdiff/oasdiff",
    version=VERSION,
    sum="h1:4/KuuhVDHF7ltTYNPRvdn9IIbcPRvGRTdJxBErbD5pQ=",
    oldest_go=(1, 26),  # its go.mod says so
    remedy=f"put oasdiff {VERSION} on PATH, or make the network reachable and run this again",
    takes="once, about a minute",
    room=" (1 GB)",
)


def find() -> Path | None:
    """On PATH in this major version, else in the cache; None when it would have to be built."""
    if (given := shutil.which("oasdiff")) and _numbers(_version(given)) >= _numbers(VERSION):
        return Path(given)
    kept = user_cache() / f"oasdiff-{VERSION}"
    return kept if kept.is_file() else None


def ensure(say: Say = lambda _: None) -> Path:
    """What `find` finds, else a new build into the cache; PartMissing when none can be had."""
    found = find()
    if found is None:
        cache = user_cache()
        with lock(cache / ".lock-oasdiff"):
            found = find()
            if found is None:
                found = cache / f"oasdiff-{VERSION}"
                _build(found, say)
    return found


def _version(binary: str | Path) -> str:
    """Such as '1.37.0'; '' when it does not run or names none."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version v?(\d+\.\d+\.\d+)", done.stdout + done.stderr)
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    """(1, 37, 0); () for none, which is older than any. A later major version may speak otherwise: taken for none, too."""
    found = tuple(int(part) for part in version.split(".") if part)
    return found if found[:1] == (1,) else ()


def _build(target: Path, say: Say) -> None:
    with go_module.workshop(PART, say) as (go, room):
        binary = go_module.install(PART, go, room, package="", stamp=f"{PART.module}/build.Version", version=_version)
        go_module.keep(binary, target)


if __name__ == "__main__":
    go_module.main(ensure)
