"""`chaos-gate doctor`: this machine, looked at; each thing that is wrong with the line that mends it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from chaos.errors import ChaosError
from chaos.model import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOM = 2 << 30  # bytes of disk that a run and its evidence may want


@dataclass(frozen=True, slots=True)
class Look:
    """One thing looked at: 'ok', 'note' (a run works without it) or 'wrong', and the line that mends it."""

    what: str
    state: str
    seen: str
    mend: str = ""


def examine(given: str | None, *, sweep: bool = False) -> int:
    """Print what was looked at; 0 when a run can start, 4 when not. `sweep` first removes what dead runs left in the engine."""
    console = Console(highlight=False, markup=False)
    if sweep and not _sweep(console):
        return ENVIRONMENT
    looks = []
    for look in _looks(given):
        looks.append(look)
        console.print(f"{_mark(look.state)}  {look.what:<12} {look.seen}")
        if look.mend and look.state != "ok":
            console.print(f"      -> {look.mend}")
    wrong = sum(look.state == "wrong" for look in looks)
    console.print("\na run can start" if not wrong else f"\n{wrong} things have to be mended before a run can start")
    return ENVIRONMENT if wrong else 0


def _mark(state: str) -> str:
    return {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}[state]


def _looks(given: str | None) -> Iterator[Look]:
    yield Look("python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    yield _try("PostgreSQL", _postgres)
    yield _try("Toxiproxy", _toxiproxy)
    yield _try("Caddy", _caddy)
    yield _prometheus()
    yield _oasdiff()
    yield _disk("disk", Path(tempfile.gettempdir()))
    yield _ram()
    yield _try("ports", _ports)
    yield _root()
    yield _clock()
    yield _docker()
    if given:
        yield _try("chaos.toml", lambda: _config(given))


def _try(what: str, look: Callable[[], str]) -> Look:
    try:
        return Look(what, "ok", look())
    except ChaosError as error:
        return Look(what, "wrong", error.what, error.remedy)


def _postgres() -> str:
    from chaos.environments.local import installation  # noqa: PLC0415

    found = installation.find(None)
    return f"{found.version} with OpenSSL"


def _toxiproxy() -> str:
    from chaos.environments.local import toxiproxy  # noqa: PLC0415

    return str(toxiproxy.ensure())


def _caddy() -> str:
    from chaos.environments.local.edge import find_caddy  # noqa: PLC0415

    return str(find_caddy())


def _prometheus() -> Look:
    from chaos.environments.local import prometheus  # noqa: PLC0415

    found = prometheus.find()
    if found is not None:
        return Look("Prometheus", "ok", f"{found.version}, {found.promtool}")
    return Look(
        "Prometheus",
        "note",
        "not there: the first nightly run builds it (3 minutes), for the alert on certificates that end",
        "apt-get install prometheus, or python -m chaos.environments.local.prometheus",
    )


def _oasdiff() -> Look:
    from chaos.environments.local import oasdiff  # noqa: PLC0415

    if (found := oasdiff.find()) is not None:
        return Look("oasdiff", "ok", str(found))
    return Look(
        "oasdiff",
        "note",
        "not there: the first nightly run with [target.candidate] builds it (1 minute), to compare OpenAPI descriptions",
        "python -m chaos.environments.local.oasdiff",
    )


def _disk(what: str, place: Path) -> Look:
    free = shutil.disk_usage(place).free
    state = "ok" if free >= ROOM else "wrong"
    return Look(what, state, f"{free / 2**30:.1f} GiB free in {place}", "make room, or set TMPDIR to a larger file system")


def _ram() -> Look:
    memory = Path("/dev/shm")  # noqa: S108  (a file system)
    if not memory.is_dir():
        return Look("RAM disk", "note", "none: data directories go to the temporary directory", "nothing has to be done")
    free = shutil.disk_usage(memory).free
    if free >= 1 << 30:
        return Look("RAM disk", "ok", f"{free / 2**30:.1f} GiB free in {memory}")
    return Look(
        "RAM disk", "note", f"only {free >> 20} MiB free in {memory}: slower", "docker run --shm-size=2g, if this is a container"
    )


def _ports() -> str:
    from chaos.processes import free_port  # noqa: PLC0415

    return f"free ports can be had (such as {free_port()}), on 127.0.0.1"


def _root() -> Look:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return Look("user", "ok", "not root")
    return Look("user", "ok", "root: PostgreSQL is run as an unprivileged user")


def _clock() -> Look:
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.1)
    drift = abs((time.time() - wall) - (time.monotonic() - steady))
    if drift > 0.02:
        return Look(
            "clock", "note", f"the wall clock jumped by {drift * 1000:.0f} ms", "certificates near their limits may surprise"
        )
    return Look("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _docker() -> Look:
    """A run works without an engine, so what is wrong with it is a note."""
    from chaos.environments.docker import engine  # noqa: PLC0415

    try:
        found = engine.find()
    except ChaosError as error:
        return Look("Docker", "note", f"not usable: {error.what}", f"for --backend docker: {error.remedy}")
    shows = "all faults" if found.host_network else "no refused or reset connections, for want of the host's network"
    return Look("Docker", "ok", f"{found.version} on {found.system}, shows {shows}")


def _sweep(console: Console) -> bool:
    """Whether nothing of dead runs is left in the engine."""
    from chaos.environments.docker import engine, sweep  # noqa: PLC0415

    swept = sweep(engine.connect())
    for what, names in (("removed", swept.removed), ("COULD NOT BE REMOVED", swept.stuck), ("in use, left alone", swept.left)):
        for name in names:
            console.print(f"swept  {what}: {name}")
    if not any((swept.removed, swept.stuck, swept.left)):
        console.print("swept  nothing was left of any run")
    return not swept.stuck


def _config(given: str) -> str:
    from chaos.config import load  # noqa: PLC0415

    target = load(Path(given)).target
    return f"{given}: {target.name}, {len(target.read)} reads, {len(target.write)} writes, {len(target.invalid)} invalid"
