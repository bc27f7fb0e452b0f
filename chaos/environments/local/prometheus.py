"""Prometheus and promtool: found, or built once. They run the alerting rules that operators get.

    python -m chaos.environments.local.prometheus      finds or builds them, and prints where they are

On PATH they are often there already (Debian's package `prometheus`). They are in no Python package, so else they are built from the
Go module proxy as Toxiproxy is: 3 minutes, once, with 2 GB of room meanwhile. Service discovery, which takes most of the time, is
left out by Prometheus' own build tag; nothing that evaluates rules is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.environments.local import go_module
from chaos.environments.local.cache import lock, user_cache
from chaos.errors import PartMissing

if TYPE_CHECKING:
    from chaos.environments.local.go_module import Say

VERSION = "3.13.5"
_TAG = "v0.313.5"  # 3.13.5, as its Go module is numbered
_OLDEST = (2, 40)  # promtool and the HTTP API have not changed since in what is used here
_TAGS = "remove_all_sd"
PART = go_module.Part(
    name="Prometheus",
    module="github.com/prometheus/prometheus",
    version=VERSION,
    sum="h1:5/kewqSFNlHQa9NqZxrOkXCBlEuJOvb+8gFOUxSWFv0=",
    oldest_go=(1, 25),
    remedy="put prometheus and promtool on PATH (Debian: apt-get install prometheus), or make the network reachable and run this again",
    takes="once, about 3 minutes; promtool with it",
    room=" (2 GB)",
)


@dataclass(frozen=True, slots=True)
class Tools:
    """Where both are, and of which version."""

    prometheus: Path
    promtool: Path
    version: str


def find() -> Tools | None:
    """Both on PATH, else both in the cache; None when they would have to be built."""
    on_path = [shutil.which(name) for name in ("prometheus", "promtool")]
    if all(on_path):
        server, tool = (Path(str(one)) for one in on_path)
        version = _version(tool)
        if version and _numbers(version) >= _OLDEST and _version(server):
            return Tools(server, tool, version)
    kept = user_cache() / f"prometheus-{VERSION}"
    return Tools(kept / "prometheus", kept / "promtool", VERSION) if kept.is_dir() else None


def ensure(say: Say = lambda _: None) -> Tools:
    """What `find` finds, else a new build into the cache; PartMissing when none can be had."""
    found = find()
    if found is None:
        cache = user_cache()
        with lock(cache / ".lock-prometheus"):
            found = find()
            if found is None:
                _build(cache / f"prometheus-{VERSION}", say)
                found = find()
    assert found is not None
    return found


def _version(binary: Path) -> str:
    """Such as '3.13.5'; '' when it does not run."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version (\d+\.\d+\S*)", done.stdout + done.stderr)
    return found[1] if found else ""


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(re.sub(r"\D.*", "", minor) or 0)


def _build(target: Path, say: Say) -> None:
    with go_module.workshop(PART, say) as (go, room):
        made = _compile(go, room)
        making = target.with_name(f".{target.name}-{os.getpid()}")
        try:
            shutil.copytree(made, making)
            making.rename(target)
        finally:
            shutil.rmtree(making, ignore_errors=True)


def _compile(go: Path, room: Path) -> Path:
    """Its go.mod replaces modules, which `go install MODULE@VERSION` refuses: the module is fetched, and built where it lies."""
    env = go_module.settings(room)
    source = go_module.fetch(PART, go, room, tag=_TAG)
    made = room / "made"
    made.mkdir()
    stamp = f"-s -w -X github.com/prometheus/common/version.Version={VERSION}"
    options = ["-trimpath", "-buildvcs=false", "-tags", _TAGS, "-ldflags", stamp, "-o", str(made)]
    done = subprocess.run(
        [go, "build", *options, "./cmd/promtool", "./cmd/prometheus"],
        env=env,
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or _version(made / "promtool") != VERSION:
        raise PartMissing(
            "it could not be built from its source", remedy=PART.remedy, where=PART.name, tail=go_module.last_words(done.stderr)
        )
    return made


if __name__ == "__main__":
    go_module.main(lambda say: ensure(say).promtool.parent)
