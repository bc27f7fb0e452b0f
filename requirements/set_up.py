"""Makes .venv what the Makefile needs. Run by whatever Python is there, so: standard library only, and old syntax.

    python3 requirements/set_up.py run|test [NAME_OF_PYTHON]

'run' is the product, its servers and nothing else; 'test' adds what its tests need. At the end it touches .venv/.stamp-STAGE-any and
.venv/.stamp-STAGE-NAME; the Makefile calls it when one that it wants is missing or older than the pins.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--retries", "2", "--no-input"]


class Impossible(Exception):  # noqa: N818  # not an error of ours: something the machine does not have
    """What could not be had, in one line, with the remedy."""


def main():
    # type: () -> int
    """0, or 4 with one clear line."""
    stage, name = sys.argv[1], (sys.argv[2:] or ["any"])[0]
    started = time.monotonic()
    building = None
    try:
        fresh = make_venv()
        building = start_building()
        say("installing the pinned packages" + (" (the first time: a minute or two)" if fresh else ""))
        install(["--require-hashes", "-r", str(ROOT / "requirements" / "run.txt")])
        if stage == "test":
            install(["--require-hashes", "-r", str(ROOT / "requirements" / "test.txt")])
        install(["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
        finish_building(building)
        building = None
    except Impossible as missing:
        sys.stderr.write("set-up: %s\n" % missing)
        return 4
    finally:
        if building is not None:
            building.terminate()
            building.wait()
    for done in {"run", stage}:
        for known in {"any", name}:
            (VENV / (".stamp-%s-%s" % (done, known))).touch()
    say("done in %.0f s" % (time.monotonic() - started))
    return 0


def say(text):
    # type: (str) -> None
    """To people: standard output may be --json."""
    sys.stderr.write("set-up: %s\n" % text)
    sys.stderr.flush()


def make_venv():
    # type: () -> bool
    """True when a new one was made: there was none, or one of another Python, or of a checkout that has moved."""
    if sys.version_info < OLDEST:
        version = "%d.%d" % sys.version_info[:2]
        raise Impossible("Python 3.11 or newer is needed, this is %s -> name one: make PYTHON=python3.12 chaos" % version)
    identity = "%s %s %s\n" % (sys.version, os.path.realpath(sys.executable), ROOT)
    made = VENV / ".made"
    if made.is_file() and made.read_text() == identity and PYTHON.exists():
        return False
    shutil.rmtree(str(VENV), ignore_errors=True)
    for way in (with_ensurepip, with_systems_pip, with_virtualenv):
        if way() and subprocess.run([str(PYTHON), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0:
            made.write_text(identity)
            return True
        shutil.rmtree(str(VENV), ignore_errors=True)
    package = "python%d.%d-venv" % sys.version_info[:2] if "/usr/bin" in sys.executable else "a Python that has ensurepip"
    raise Impossible("%s has neither ensurepip nor pip nor virtualenv -> apt-get install %s" % (sys.executable, package))


def quietly(*argv):
    # type: (str) -> bool
    """Whether the command could be run and ended well."""
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def with_ensurepip():
    # type: () -> bool
    """The usual way; Debian has it in a package of its own (python3-venv)."""
    return quietly(sys.executable, "-c", "import ensurepip") and quietly(sys.executable, "-m", "venv", str(VENV))


def with_systems_pip():
    # type: () -> bool
    """Debian's python3-pip, or the wheel that it installs others from, can fill an empty one."""
    if not quietly(sys.executable, "-m", "venv", "--without-pip", str(VENV)):
        return False
    if quietly(sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "pip"):
        return True
    wheels = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    return bool(wheels) and quietly(str(PYTHON), str(wheels[-1] / "pip"), "install", "--no-index", str(wheels[-1]))


def with_virtualenv():
    # type: () -> bool
    """Whoever has no ensurepip may have virtualenv, or uv."""
    return quietly(sys.executable, "-m", "virtualenv", str(VENV)) or quietly(
        "uv", "venv", "--seed", "--python", sys.executable, str(VENV)
    )


def start_building():
    # type: () -> subprocess.Popen
    """The Toxiproxy server is looked for, or built, beside the installation: it needs nothing of it but pip."""
    argv = [str(PYTHON), "-m", "chaos.environments.local.toxiproxy"]
    env = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    return subprocess.Popen(argv, cwd=str(ROOT), env=env, stdout=subprocess.DEVNULL)


def finish_building(building):
    # type: (subprocess.Popen) -> None
    """Its messages went to the terminal already."""
    if building.poll() is None:
        say("waiting for Toxiproxy's build")
    if building.wait() != 0:
        raise Impossible("the Toxiproxy server could not be had: see above")


def install(what):
    # type: (list) -> None
    """With pip, from wherever pip is configured to get packages."""
    done = subprocess.run([str(PYTHON)] + PIP + what, cwd=str(ROOT), stderr=subprocess.PIPE, universal_newlines=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()[-1:]
        text = "; ".join(line.replace("ERROR: ", "").strip() for line in errors[-2:])[:400]
        raise Impossible("Python packages could not be had (%s) -> see whether pip reaches its index from here" % text)


if __name__ == "__main__":
    sys.exit(main())
