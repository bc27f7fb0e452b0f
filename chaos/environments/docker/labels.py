"""Whose a container, network or volume is, written on it; and the sweep that removes those of the dead.

A pid counts only together with its start time, on the machine and in the pid namespace it was seen in: a sweep never takes away
what belongs to a run that lives, nor what it cannot know about (another machine's, or another container's, on a shared engine).
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.environments.docker.engine import told
from chaos.watchdog import start_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import DockerClient

RUN = "chaos-gate.run"
OWNER = "chaos-gate.owner"
_PATIENCE = 10.0  # s in which what is being removed has to be gone


def labels(run_id: str, pid: int | None = None) -> dict[str, str]:
    """For everything that the process `pid` (this one) makes in the engine."""
    pid = pid or os.getpid()
    return {RUN: run_id, OWNER: f"{pid} {start_time(pid)} {place()}"}


def place() -> str:
    """This boot of this machine, and the pid namespace we are in."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  # it is no path
    return platform.node()


def is_dead(found: Mapping[str, str]) -> bool:
    """Whether the owner that these labels name is gone for certain."""
    words = found.get(OWNER, "").rsplit(" ", 1)
    if len(words) != 2 or words[1] != place():
        return False
    pid, _, started = words[0].partition(" ")
    return pid.isdigit() and start_time(int(pid)) != started


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed, what could not be, and what is left alone because its owner lives or cannot be known; names of each."""

    removed: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def sweep(client: DockerClient) -> Swept:
    """Remove the containers (with their volumes), networks and volumes of runs that are dead."""
    kinds: dict[str, list[str]] = {"removed": [], "stuck": [], "left": []}
    with told("the engine could not be swept"):
        found = [
            (one, f"container {one.name}")
            for one in client.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True)
        ]
        found += [(one, f"network {one.name}") for one in client.networks.list(filters={"label": OWNER})]
        found += [(one, f"volume {one.name}") for one in client.volumes.list(filters={"label": OWNER})]
        for one, name in found:
            known = one.attrs.get("Config", one.attrs).get("Labels") or {}
            if not is_dead(known):
                kinds["left"].append(name)
            else:
                kinds["removed" if remove(client, one.id, kind=name.split()[0]) else "stuck"].append(name)
    return Swept(tuple(kinds["removed"]), tuple(kinds["stuck"]), tuple(kinds["left"]))


def finish(client: DockerClient, run_id: str) -> list[str]:
    """Remove all of a run that has ended, whoever of it made it; the names of what could not be removed."""
    mine = {"label": f"{RUN}={run_id}"}
    with told("the engine could not be swept"):
        found = [(one.id, "container", one.name) for one in client.containers.list(all=True, filters=mine, ignore_removed=True)]
        found += [(one.id, "network", one.name) for one in client.networks.list(filters=mine)]
        found += [(one.id, "volume", one.name) for one in client.volumes.list(filters=mine)]
        return [f"{kind} {name}" for ref, kind, name in found if not remove(client, ref, kind=kind)]


def remove(client: DockerClient, name: str, *, kind: str = "container") -> bool:
    """Remove by name or id, running or not; True when it is gone, also when it was already."""
    from docker.errors import APIError, NotFound  # noqa: PLC0415

    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            if kind == "container":
                client.api.remove_container(name, force=True, v=True)
            elif kind == "network":
                client.api.remove_network(name)
            else:
                client.api.remove_volume(name, force=True)
        except NotFound:
            return True
        except APIError:  # somebody removes it at this moment, or a container is still on its way out of the network
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            return True
