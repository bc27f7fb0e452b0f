"""Runs `chaos-gate run` on a target, healthy or with one defect planted, and reads its evidence."""

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engine import docker, small  # noqa: F401  (fixtures)

HERE = Path(__file__).parent
TARGETS = HERE / "targets"
REFERENCE = HERE.parents[1] / "chaos" / "targets" / "reference" / "chaos.toml"


@dataclass(frozen=True)
class Outcome:
    """Exit code, evidence.json, and what people were shown."""

    code: int
    evidence: dict
    shown: str
    directory: Path

    @property
    def failed(self):
        return {gate["id"] for gate in self.evidence["gates"] if gate["verdict"] == "fail"}

    @property
    def failed_checks(self):
        return {check["id"]: check["detail"] for check in self.evidence["checks"] if check["outcome"] == "fail"}

    @property
    def open_checks(self):
        """All that is no pass, for the message of an assertion."""
        told = {"pass", "not_applicable"}
        return {
            check["id"]: (check["outcome"], check["detail"]) for check in self.evidence["checks"] if check["outcome"] not in told
        }

    def gate(self, name):
        return next(gate for gate in self.evidence["gates"] if gate["id"] == name)


def with_environment(config, directory, extra, start=None):
    """A copy of a chaos.toml, elsewhere, whose target gets `extra` variables, or is started by another command."""
    text = config.read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    env = {**raw["target"].get("env", {}), **extra}
    raw["target"]["env"] = env
    raw["target"]["start"] = start or raw["target"]["start"]
    raw["target"]["cwd"] = str((config.parent / raw["target"].get("cwd", ".")).resolve())
    if kept := raw["target"].get("logs", {}).get("retention_file"):
        raw["target"]["logs"]["retention_file"] = str((config.parent / kept).resolve())
    made = directory / "chaos.toml"
    made.write_text(dumps(raw), encoding="utf-8")
    return made


def dumps(raw):
    """TOML of what tomllib reads: enough for chaos.toml."""
    lines = []
    for table, content in raw.items():
        lines += _table(table, content)
    return "\n".join(lines) + "\n"


def _table(name, content):
    plain = {key: value for key, value in content.items() if not _is_tables(value)}
    lines = [f"[{name}]"] + [f"{json.dumps(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in content.items():
        for entry in value if _is_tables(value) else ():
            lines += [f"[[{name}.{key}]]"] + [f"{json.dumps(one)} = {_value(each)}" for one, each in entry.items()]
    return lines


def _is_tables(value):
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _value(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def run_suite(config, directory, *, only=(), workers=1, profile="quick", seed=1, timeout=600, backend="local", options=()):
    """`chaos-gate run`, as anyone would call it; the result is read from what it left behind."""
    evidence = directory / "evidence"
    command = [sys.executable, "-m", "chaos", "run", "-c", str(config), "--evidence", str(evidence), "--json"]
    command += ["--seed", str(seed), "-n", str(workers), "--profile", profile, "--backend", backend]
    command += [part for name in only for part in ("--only", name)] + list(options)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # python services find their libraries
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CHAOS_"))}
    for name in ("CHAOS_CACHE", "CHAOS_POSTGRES_BIN", "CHAOS_POSTGRES_IMAGE", "CHAOS_TOXIPROXY_IMAGE", "CHAOS_EDGE_IMAGE"):
        if name in os.environ:
            env[name] = os.environ[name]
    done = subprocess.run(
        command, env={**env, "PATH": path}, capture_output=True, text=True, timeout=timeout, check=False, cwd=directory
    )
    try:
        read = json.loads(done.stdout)
    except ValueError:
        pytest.fail(f"no evidence on stdout (exit {done.returncode}):\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return Outcome(done.returncode, read, done.stderr, evidence)


@pytest.fixture
def suite(tmp_path):
    """`suite(config, only=..., env=...)`."""

    def run(config, *, env=None, start=None, **options):
        made = with_environment(config, tmp_path, env, start) if env is not None else config
        return run_suite(made, tmp_path, **options)

    return run
