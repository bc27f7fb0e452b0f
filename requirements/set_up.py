"""Makes .venv what the Makefile needs. Run by whatever Python is there, so: standard library only, syntax of Python 3.7.

    python3 requirements/set_up.py run|test [NAME_OF_PYTHON]

'run' is the product, its servers and nothing else; 'test' adds what its tests need. At the end it touches .venv/.stamp-STAGE-any and
.venv/.stamp-STAGE-NAME; the Makefile calls it when one that it wants is missing or older than the pins.
"""

# ruff: noqa: INP001  # a script, not a package

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--retries", "2", "--no-input"]


class Impossible(Exception):  # noqa: N818  # not an error of ours: something the machine does not have
    """What could not be had, in one line, with the remedy."""


def main() -> int:
    """0, or 4 with one clear line."""
    stage, name = sys.argv[1], (sys.argv[2:] or ["any"])[0]
    started = time.monotonic()
    building = None
    try:
        fresh = make_venv(name)
        building = start_building()
        say("installing the pinned packages" + (" (the first time: a minute or two)" if fresh else ""))
        install(["--require-hashes", "-r", str(ROOT / "requirements" / "run.txt")])
        if stage == "test":
            install(["--require-hashes", "-r", str(ROOT / "requirements" / "test.txt")])
        install(["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
        finish_building(building)
        building = None
    except Impossible as missing:
        sys.stderr.write(f"set-up: {missing}\n")
        return 4
    finally:
        if building is not None:
            with suppress(ProcessLookupError):  # it has ended by itself: its failure may be why we are here
                os.killpg(building.pid, signal.SIGTERM)
            building.wait()
    for done in {"run", stage}:
        for known in {"any", name}:
            (VENV / f".stamp-{done}-{known}").touch()
    say(f"done in {time.monotonic() - started:.0f} s")
    return 0


def say(text: str) -> None:
    """To people: standard output may be --json."""
    sys.stderr.write(f"set-up: {text}\n")
    sys.stderr.flush()


def make_venv(name: str) -> bool:
    """True when a new one was made: there was none, one of another Python than was asked for, or one of a checkout that moved."""
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < OLDEST:
        raise Impossible(f"Python 3.11 or newer is needed, this is {version} -> name one: make PYTHON=python3.12 chaos")
    identity = f"{ROOT}\n{sys.version} {os.path.realpath(sys.executable)}\n"
    made = VENV / ".made"
    was = made.read_text() if made.is_file() and PYTHON.exists() else ""
    if was == identity or (name == "any" and was.startswith(f"{ROOT}\n")):
        return False
    shutil.rmtree(str(VENV), ignore_errors=True)
    for way in (with_ensurepip, with_systems_pip, with_virtualenv):
        if way() and subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            made.write_text(identity)
            return True
        shutil.rmtree(str(VENV), ignore_errors=True)
    remedy = f"apt-get install python{version}-venv" if "/usr/bin" in sys.executable else "name a Python that has one in PYTHON"
    raise Impossible(f"{sys.executable} has neither ensurepip nor pip nor virtualenv -> {remedy}")


def quietly(*argv: str) -> bool:
    """Whether the command could be run and ended well."""
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def with_ensurepip() -> bool:
    """The usual way; Debian has it in a package of its own (python3-venv)."""
    return quietly(sys.executable, "-c", "import ensurepip") and quietly(sys.executable, "-m", "venv", str(VENV))


def with_systems_pip() -> bool:
    """Debian's python3-pip, or the wheel that it installs others from, can fill an empty one."""
    if not quietly(sys.executable, "-m", "venv", "--without-pip", str(VENV)):
        return False
    if quietly(sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "pip"):
        return True
    wheels = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    return bool(wheels) and quietly(str(PYTHON), str(wheels[-1] / "pip"), "install", "--no-index", str(wheels[-1]))


def with_virtualenv() -> bool:
    """Whoever has no ensurepip may have virtualenv, or uv."""
    return quietly(sys.executable, "-m", "virtualenv", str(VENV)) or quietly(
        "uv", "venv", "--seed", "--python", sys.executable, str(VENV)
    )


def start_building() -> subprocess.Popen[bytes]:
    """The Toxiproxy server is looked for, or built, beside the installation: it needs nothing of it but pip."""
    argv = [str(PYTHON), "-m", "chaos.environments.local.toxiproxy"]
    env = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    return subprocess.Popen(argv, cwd=str(ROOT), env=env, stdout=subprocess.DEVNULL, start_new_session=True)


def finish_building(building: subprocess.Popen[bytes]) -> None:
    """Its messages went to the terminal already."""
    if building.poll() is None:
        say("waiting for Toxiproxy's build")
    if building.wait() != 0:
        raise Impossible("the Toxiproxy server could not be had: see above")


def install(what: list[str]) -> None:
    """With pip, from wherever pip is configured to get packages."""
    done = subprocess.run([str(PYTHON), *PIP, *what], cwd=str(ROOT), stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()[-1:]
        text = "; ".join(line.replace("ERROR: ", "").strip() for line in errors[-2:])[:400]
        raise Impossible(f"Python packages could not be had ({text}) -> see whether pip reaches its index from here")


if __name__ == "__main__":
    sys.exit(main())
