"""What real frameworks make of every row of the host catalogue: at their defaults, and with their own host validation switched on.

    python benchmarks/framework_hosts.py                     prints the table
    python benchmarks/framework_hosts.py --write             writes docs/framework-hosts.md too
    python benchmarks/framework_hosts.py --only Flask        columns whose name holds that text

Django, Flask and Starlette (pinned, with hashes, in frameworks/requirements.txt; fetched once, into the cache) on gunicorn and uvicorn;
Go's net/http and Node's node:http beside them, where `go` and `node` are on PATH. Every server is a process of its own on a free
loopback port; what is asked and how it is judged is the suite's own (chaos.traffic.hosts, chaos.checks.hosts). Half a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.checks import hosts
from chaos.environments.local.pinned import packages
from chaos.errors import ChaosError
from chaos.model import Finding, History, Layer, Operation, Outcome
from chaos.traffic import layers
from chaos.traffic.host_names import HostNames, Sent
from chaos.traffic.hosts import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent / "frameworks"
DOCUMENT = Path(__file__).parents[1] / "docs" / "framework-hosts.md"
NAMES = HostNames(allowed=("app.example.test", "www.example.org"), seo=("*.pages.example.test",), health=("127.0.0.1",))
PYTHON = (sys.executable, "-m")
GUNICORN = (*PYTHON, "gunicorn", "--bind", "127.0.0.1:{port}", "--threads", "4", "--no-control-socket", "--chdir", str(HERE))
UVICORN = (*PYTHON, "uvicorn", "--port", "{port}", "--log-level", "warning", "--app-dir", str(HERE), "--http")
START, STOP = 20.0, 5.0  # seconds


@dataclass(frozen=True, slots=True)
class Column:
    """A framework on a server. `versions` are the distributions that its heading names, or the command that prints its version."""

    name: str
    command: tuple[str, ...]
    versions: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict, hash=False)
    build: tuple[str, ...] = ()


ON = {"TRUSTED": "1"}
LEGEND = (
    "The status, with `(s)` where the HTTP server gave it before the application was asked; `none`: the connection ended without",
    "an answer. `-> e`: something in the answer was built from the unknown host. **Bold** is wrong by the catalogue; what is *policy*",
    "there (good services differ) is bold only where the answer was built from the unknown host.",
)
COLUMNS = (
    Column("Django, `['*']`", (*GUNICORN, "django_app"), ("django", "gunicorn")),
    Column("Django, ALLOWED_HOSTS", (*GUNICORN, "django_app"), ("django", "gunicorn"), ON),
    Column("the same without CommonMiddleware", (*GUNICORN, "django_app"), ("django", "gunicorn"), {**ON, "COMMON": "0"}),
    Column("Flask", (*GUNICORN, "flask_app:app"), ("flask", "werkzeug", "gunicorn")),
    Column("Flask, TRUSTED_HOSTS", (*GUNICORN, "flask_app:app"), ("flask", "werkzeug", "gunicorn"), ON),
    Column("Starlette, httptools", (*UVICORN, "httptools", "starlette_app:app"), ("starlette", "uvicorn", "httptools")),
    Column("Starlette, h11", (*UVICORN, "h11", "starlette_app:app"), ("starlette", "uvicorn", "h11")),
    Column(
        "TrustedHostMiddleware, httptools",
        (*UVICORN, "httptools", "starlette_app:app"),
        ("starlette", "uvicorn", "httptools"),
        ON,
    ),
    Column("TrustedHostMiddleware, h11", (*UVICORN, "h11", "starlette_app:app"), ("starlette", "uvicorn", "h11"), ON),
    Column(
        "Go net/http",
        ("{place}/server", "{port}"),
        ("go", "version"),
        build=("go", "build", "-C", str(HERE / "go"), "-o", "{place}/server", "."),
    ),
    Column("Node node:http", ("node", str(HERE / "node" / "server.js"), "{port}"), ("node", "--version")),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one column gave."""

    operations: tuple[Operation, ...]
    findings: dict[str, Finding]


def main() -> int:
    """0, or a ChaosError's exit code."""
    parser = argparse.ArgumentParser(description="What frameworks make of the host catalogue")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    parser.add_argument("--only", default="", help="columns whose name holds this")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        room = packages(HERE / "requirements.txt", lambda text: print(text, file=sys.stderr))
        seen = {one: look for one in COLUMNS if given.only in one.name and (look := observe(one, room, given.seed)) is not None}
    except ChaosError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    text = document(seen, room, given.seed)
    print(text)
    if given.write:
        DOCUMENT.write_text(text, encoding="utf-8")
    return 0


# -- asking ---------------------------------------------------------------------------------------------------------------------


def observe(column: Column, room: Path, seed: int) -> Seen | None:
    """Every row asked of a column; None where its program is not on this machine."""
    if column.command[0] == "node" or column.build:
        program = (column.build or column.command)[0]
        if shutil.which(program) is None:
            print(f"{column.name}: left out, for {program} is not on PATH", file=sys.stderr)
            return None
    with serving(column, room) as address:
        learned = layers.learn(address, host=NAMES.allowed[0], path="/items/1")
        operations = probe(
            address,
            NAMES,
            path="/items/1",
            seed=seed,
            learned=learned,
            health=("/healthz",),
            writes=writes,
            known={"ops": ("/healthz",)},
        )
    history = History(experiment="hosts", started=0.0, operations=tuple(operations))
    return Seen(history.operations, {one.check: one for one in hosts.judge(history)})


def writes(unique: str) -> tuple[Sent, ...]:
    """The one write."""
    return (
        Sent(method="POST", path="/items", headers=(("Content-Type", "application/json"),), body=json.dumps({"name": unique})),
    )


@contextmanager
def serving(column: Column, room: Path) -> Iterator[tuple[str, int]]:
    """The address of a column's server while it runs. Its process group ends with it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as place:

        def filled(words: tuple[str, ...]) -> list[str]:
            return [word.replace("{port}", str(port)).replace("{place}", place) for word in words]

        if column.build:
            subprocess.run(filled(column.build), check=True, capture_output=True)
        env = {**os.environ, "PYTHONPATH": str(room), **column.env}
        log = Path(place, "log")
        with log.open("wb") as output:
            running = subprocess.Popen(filled(column.command), env=env, stdout=output, stderr=output, start_new_session=True)
        try:
            wait_for(port, running, log)
            yield ("127.0.0.1", port)
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            try:
                running.wait(STOP)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()


def wait_for(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it listens."""
    until = time.monotonic() + START
    while time.monotonic() < until and running.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{' '.join(map(str, running.args))} did not start:\n{log.read_text(errors='replace')[-2000:]}")  # type: ignore[union-attr]


# -- showing --------------------------------------------------------------------------------------------------------------------


def document(seen: dict[Column, Seen], room: Path, seed: int) -> str:
    """docs/framework-hosts.md."""
    made = f"{datetime.now(UTC):%Y-%m-%d}, seed {seed}, Python {platform.python_version()}"
    parts = [
        "# What frameworks make of the host catalogue",
        "",
        f"Made by `python benchmarks/framework_hosts.py --write` ({made}).",
        "The applications are in `benchmarks/frameworks`: three routes each, and host validation only as the framework itself has it.",
        "",
        *versions(seen, room),
        "",
        (HERE / "notes.md").read_text(encoding="utf-8").strip(),
        "",
        "## What each gets wrong",
        "",
        *(line for column, look in seen.items() for line in wrongs(column, look)),
        "## Every row",
        "",
        *LEGEND,
        "",
        *table(seen),
        "",
    ]
    return "\n".join(parts)


def versions(seen: dict[Column, Seen], room: Path) -> list[str]:
    """A line a column: name and versions."""
    pinned = {one.name.lower(): one.version for one in distributions(path=[str(room)])}
    lines = []
    for column in seen:
        if column.versions[0] in pinned:
            said = ", ".join(f"{name} {pinned[name]}" for name in column.versions)
        else:
            said = subprocess.run(column.versions, capture_output=True, text=True, check=True).stdout.strip()
        lines.append(f"- {column.name}: {said}")
    return lines


def wrongs(column: Column, look: Seen) -> list[str]:
    """A paragraph: the gates that are red, with their rows; what the refusals look like."""
    red: dict[str, list[str]] = {}
    for one in look.findings.values():
        if one.outcome is Outcome.FAIL:
            red.setdefault(one.gate, []).append(one.check)
    lines = [f"- {gate}: {', '.join(rows)}" for gate, rows in red.items()] or ["- nothing"]
    refused = [one for one in look.operations if one.row == "H01" and one.status is not None and one.status >= 400]
    said = (
        f"refusals are {refused[0].media_type.partition(';')[0] or 'without a media type'}"
        if refused
        else "unknown hosts are never refused"
    )
    return [f"**{column.name}** ({said})", "", *lines, ""]


def table(seen: dict[Column, Seen]) -> list[str]:
    """The whole table, as Markdown."""
    lines = ["| row | what | must be | " + " | ".join(one.name for one in seen) + " |", "|---" * (3 + len(seen)) + "|"]
    for row in hosts.rows():
        cells = [cell(look, row.id) for look in seen.values()]
        if row.skip or not any(cells):
            continue
        must = {"refuse": "refused", "serve": "served", "ignore": "ignored", "policy": "policy"}[row.must]
        lines.append(f"| {row.id} | {row.title} | {must} | " + " | ".join(cells) + " |")
    return lines


def cell(look: Seen, row: str) -> str:
    """The answers of one row, each kind once."""
    found: dict[str, None] = {}
    for one in (one for one in look.operations if one.row == row):
        where = " (s)" if one.layer is Layer.SERVER else ""
        back = " -> e" if one.error.startswith("reflected") else ""
        found[f"{one.status if one.status is not None else 'none'}{where}{back}"] = None
    text = ", ".join(found)
    finding = look.findings.get(row)
    return f"**{text}**" if text and finding is not None and finding.outcome is Outcome.FAIL else text


if __name__ == "__main__":
    sys.exit(main())
