"""Python packages of other versions than ours, beside ours: a pinned requirements file, put into a directory of the cache once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.environments.local.cache import lock, user_cache
from chaos.environments.local.go_module import last_words
from chaos.errors import PartMissing

if TYPE_CHECKING:
    from collections.abc import Callable


def packages(requirements: Path, say: Callable[[str], None] = lambda _text: None) -> Path:
    """The directory that holds what `requirements` (with hashes) names; for PYTHONPATH, where it goes before what is installed.

    Nothing of this interpreter's own packages is touched. One directory for each text of the file and each version of Python; whoever
    comes first fills it. PartMissing when pip cannot.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(requirements.read_bytes() + version.encode()).hexdigest()[:12]
    cache = user_cache()
    made = cache / f"python-{requirements.stem}-{key}"
    with lock(cache / ".lock-python"):
        if not made.is_dir():
            say(f"fetching the packages of {requirements.name}, once")
            room = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
            try:
                _fetch(requirements, room)
                room.chmod(0o755)
                room.rename(made)
            finally:
                shutil.rmtree(room, ignore_errors=True)
    return made


def _fetch(requirements: Path, room: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    done = subprocess.run(
        [*pip, "--require-hashes", "--target", str(room), "-r", str(requirements)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PartMissing(
            f"pip could not fetch the packages that {requirements} names",
            remedy="see that this machine reaches a package index, then run it again",
            where="packages",
            tail=last_words(done.stderr),
        )
