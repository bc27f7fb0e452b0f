"""oasdiff: found, or built once. It tells what differs between two OpenAPI descriptions, and what of it breaks a client.

    python -m chaos.environments.local.oasdiff         finds or builds it, and prints where it is

It is in no Python, npm or Debian package, so it is built from the Go module proxy as Toxiproxy is: a minute, once.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from chaos.environments.local.cache import lock, user_cache
from chaos.environments.local.toxiproxy import Say, last_words, machines_go, wheels_go
from chaos.errors import ChaosError, PartMissing

VERSION = "1.37.0"
# The module's hash in Go's checksum database: whatever proxy it came through, this is what was built.
SUM = "h1:4/KuuhVDHF7ltTYNPRvdn9IIbcPRvGRTdJxBErbD5pQ="
_MODULE = "github.com/oasdiff/oasdiff"
_OLDEST_GO = (1, 26)  # its go.mod says so
_REMEDY = f"put oasdiff {VERSION} on PATH, or make the network reachable and run this again"


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
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-gate-build-", ignore_cleanup_errors=True) as name:
            room = Path(name)
            go = machines_go(_OLDEST_GO) or wheels_go(room / "go", say, part="oasdiff", remedy=_REMEDY)
            say(f"oasdiff {VERSION} is built with {go} (once, about a minute)")
            binary = _compile(go, room)
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
            remedy="make room on the disk (1 GB), or set CHAOS_CACHE and TMPDIR elsewhere",
            where="oasdiff",
        ) from error


def _compile(go: Path, room: Path) -> Path:
    env = {
        **os.environ,
        "CGO_ENABLED": "0",
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
    stamp = f"-s -w -X {_MODULE}/build.Version={VERSION}"
    done = subprocess.run(
        [go, "install", "-trimpath", "-ldflags", stamp, f"{_MODULE}@v{VERSION}"],
        env=env,
        cwd=room,
        capture_output=True,
        text=True,
        check=False,
    )
    binary = room / "out" / "oasdiff"
    if done.returncode != 0 or not binary.is_file():
        raise PartMissing(
            f"its source, {_MODULE} v{VERSION}, could not be had from the Go module proxy or not be built",
            remedy=_REMEDY,
            where="oasdiff",
            tail=last_words(done.stderr),
        )
    made_of = subprocess.run([go, "version", "-m", binary], env=env, capture_output=True, text=True, check=False).stdout
    if SUM not in made_of or _version(binary) != VERSION:
        raise PartMissing(
            f"what was built is not oasdiff {VERSION} (expected the module hash {SUM})",
            remedy="find out what the Go module proxy in GOPROXY serves",
            where="oasdiff",
        )
    return binary


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))  # so that what was built half is removed
    try:
        print(ensure(lambda text: print(text, file=sys.stderr, flush=True)))  # noqa: T201  # it is a command
    except ChaosError as error:
        print(error, file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
