"""`chaos-gate canary` as anyone would call it: on the reference beside a candidate of it, or on two releases of a team's own front."""

import json
import os
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import httpx

from chaos.processes import free_port
from tests.detection.conftest import REFERENCE, TARGETS, Outcome, dumps, with_environment
from tests.detection.tiny_run import until

SERVICE = Path(__file__).with_name("planted_canary.py")
FRONT = TARGETS / "two_releases"
SHORT = ("--no-safeguards", "--steps", "50,100", "--compress", "--hold", "120", "--rate", "150")


def beside(directory, defect):
    """The reference's chaos.toml, whose candidate is the reference with one defect."""
    made = with_environment(REFERENCE, directory, {})
    raw = tomllib.loads(made.read_text(encoding="utf-8"))
    raw["target"]["candidate"] = {"start": [sys.executable, str(SERVICE), defect, "--port", "{port}"]}
    made.write_text(dumps(raw), encoding="utf-8")
    return made


def environment():
    """Without pytest's own, and with our interpreter first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CHAOS_R"))} | {"PATH": path}


def command(config, *options):
    return [sys.executable, "-m", "chaos", "canary", "-c", str(config), "--seed", "1", "--evidence", "evidence", *options]


def canary(config, directory, *options, timeout=400):
    """Run it to its end."""
    done = subprocess.run(
        command(config, *(options or SHORT), "--json"),
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.stdout, done.stderr
    return Outcome(done.returncode, json.loads(done.stdout), done.stderr, directory / "evidence")


@contextmanager
def front(directory, defect=""):
    """A running front, its chaos.toml, and the file that holds the candidate's share."""
    port, share = free_port(), directory / "share"
    running = subprocess.Popen([sys.executable, str(FRONT / "service.py"), str(port), str(share), *filter(None, [defect])])
    deploy = [sys.executable, str(FRONT / "deploy.py"), str(share)]
    config = directory / "chaos.toml"
    raw = {
        "target": {
            "name": "two-releases",
            "url": f"http://127.0.0.1:{port}",
            "live": "/healthz",
            "read": [{"path": "/items/1"}],
            "deploy": {
                "deploy": [*deploy, "{version}", "{weight}"],
                "rollback": [*deploy, "baseline", "0"],
                "version_header": "X-Release",
            },
        }
    }
    config.write_text(dumps(raw), encoding="utf-8")

    def up():
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        assert until(up, 20)
        yield config, share
    finally:
        running.kill()
        running.wait()
