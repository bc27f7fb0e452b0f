"""The write-ahead ledger of faults: what is broken is on the disk, with how it is undone, before it is broken.

`faults.jsonl` in the evidence directory, appended to by every worker, one JSON object a line, each forced to the disk:

    {"entry": "worker", "id": "ab12.gw0", "pid": 7, "start": "8812", "at": 1790000000.0}
    {"entry": "inject", "id": "ab12.gw0.3", "fault": "refused.pooled", "title": "...", "where": "...", "at": ..., "undo": [...]}
    {"entry": "healed", "id": "ab12.gw0.3", "at": ..., "by": "runner"}      by the runner, the watchdog, or hand
    {"entry": "failed", "id": "ab12.gw0.3", "at": ..., "by": "runner", "why": "..."}

`undo` is how the fault is undone by somebody who knows nothing else: `Restore` puts a proxy back to what it was; without one
the fault ends with the run, because a session or a process of the run is what makes it. `chaos.watchdog` heals what is left when a
worker dies; `chaos-gate heal` does the same by hand.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from chaos import healing, watchdog
from chaos.errors import CleanupFailed, EvidenceUnwritable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAME = "faults.jsonl"
SETTLE = 5.0  # s in which the watchdog of a worker that died heals what that one left


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """How a proxy of the Toxiproxy at `url` was, and which toxics (by name) the fault puts on it. `ours`: it ends with the run."""

    url: str
    proxy: str
    toxics: tuple[str, ...]
    enabled: bool = True
    ours: bool = True

    def heal(self, *, cut: bool = True, seconds: float = healing.HEALING) -> str:
        """Do it; '' or why it could not be done. See `healing.restore`."""
        return healing.restore(
            self.url, self.proxy, toxics=set(self.toxics), enabled=self.enabled, ours=self.ours, cut=cut, seconds=seconds
        )


class Broken(Protocol):
    """What is about to be broken, for people."""

    @property
    def id(self) -> str:
        """The fault's."""

    @property
    def title(self) -> str:
        """What is broken."""


@runtime_checkable
class Undoable(Protocol):
    """The ability to be undone by another process. A fault without it ends with the run's own sessions and processes."""

    def undo(self) -> tuple[Restore, ...]:
        """What undoes it, before it is injected: the state of now is what is restored."""


class Ledger:
    """One worker's hand on the ledger. Raises EvidenceUnwritable: what cannot be written down must not be broken."""

    def __init__(self, path: Path, *, of: str) -> None:
        self.path, self.of = path, of
        self._count = 0
        with _written(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._write(
            {"entry": "worker", "id": of, "pid": os.getpid(), "start": watchdog.start_time(os.getpid()), "at": time.time()}
        )

    def begin(self, fault: Broken, where: str = "") -> str:
        """Write a fault down, before it is injected; returns the entry's id."""
        self._count += 1
        name = f"{self.of}.{self._count}"
        undo = fault.undo() if isinstance(fault, Undoable) else ()
        actions: list[dict[str, object]] = [
            {"do": "restore", "url": one.url, "proxy": one.proxy, "toxics": list(one.toxics), "enabled": one.enabled}
            | {"ours": one.ours}
            for one in undo
        ]
        where = where or ", ".join(f"{one.proxy} at {one.url}" for one in undo)
        told = {"fault": fault.id, "title": fault.title, "where": where, "at": time.time()}
        self._write({"entry": "inject", "id": name, **told, "undo": actions or [{"do": "end"}]})
        return name

    def healed(self, name: str) -> None:
        """The fault has gone."""
        self._write(healing.outcome({"id": name}, "", "runner"))

    def failed(self, name: str, why: str) -> None:
        """It could not be healed."""
        self._write(healing.outcome({"id": name}, why or "interrupted", "runner"))

    @contextlib.contextmanager
    def during(self, fault: Broken) -> Iterator[None]:
        """`begin`, and `healed` at the end of the block, which heals by itself; `failed` when that is what went wrong."""
        name = self.begin(fault)
        try:
            yield
        except CleanupFailed as error:
            self.failed(name, error.what)
            raise
        except BaseException:
            self.healed(name)
            raise
        self.healed(name)

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, entry: dict[str, object]) -> None:
        with _written(self.path):
            healing.note(self._file, entry)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EvidenceUnwritable(
            f"the ledger of faults could not be written ({error.strerror}): nothing may be broken that is not written down",
            remedy="make room, or name another place with --evidence DIR",
            where=str(path),
        ) from error


# -- reading ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a ledger says in sum: faults injected, those healed (and by whom), those that are still open, with their entries."""

    injected: int
    by: Mapping[str, int]
    open: Mapping[str, Mapping[str, object]]

    @property
    def sentence(self) -> str:
        """'31 of 31 faults healed' and, where it was not the runner, by whom."""
        if not self.injected:
            return "nothing was broken"
        who = {"watchdog": "the watchdog", "hand": "hand"}
        others = ", ".join(f"{self.by[name]} by {text}" for name, text in who.items() if name in self.by)
        left = f"; {len(self.open)} NOT HEALED: {', '.join(str(one['fault']) for one in self.open.values())}" if self.open else ""
        return f"{self.injected - len(self.open)} of {self.injected} faults healed{f' ({others})' if others else ''}{left}"


def account(path: Path) -> Account:
    """Of the ledger at `path`; nothing was broken when there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    entries = list(healing.entries(data))
    by: dict[str, int] = {}
    for one in entries:
        if one.get("entry") == "healed":
            by[str(one["by"])] = by.get(str(one["by"]), 0) + 1
    injected = sum(one.get("entry") == "inject" for one in entries)
    return Account(injected=injected, by=by, open=healing.unhealed(data))


def living(path: Path) -> list[int]:
    """The pids of the workers that write this ledger and still live: they heal by themselves."""
    try:
        entries = list(healing.entries(path.read_bytes()))
    except OSError:
        return []
    workers = [(int(str(one["pid"])), str(one["start"])) for one in entries if one.get("entry") == "worker"]
    return [pid for pid, start in workers if start and watchdog.start_time(pid) == start]


def settle(path: Path, *, by: str, wait: float = SETTLE) -> Account:
    """Waits for the watchdogs to have healed what dead workers left, then heals the rest; what is still open is in the answer."""
    deadline = time.monotonic() + wait
    while (now := account(path)).open and time.monotonic() < deadline:
        time.sleep(0.05)
    if not now.open:
        return now
    with _written(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        for entry in reversed(list(now.open.values())):
            with _written(path):
                healing.note(descriptor, healing.outcome(dict(entry), healing.undo(dict(entry)), by))
    finally:
        os.close(descriptor)
    return account(path)


def reason(path: Path, name: str) -> str:
    """Why the fault with this id could not be healed, as it was last told."""
    told = [one for one in healing.entries(path.read_bytes()) if one.get("entry") == "failed" and one.get("id") == name]
    return str(told[-1]["why"]) if told else "nobody has tried"


def dirty(path: Path, left: Account) -> CleanupFailed:
    """The error about what is still broken."""
    tail = tuple(f"{one['fault']} ({one['where'] or 'in the run itself'}): {reason(path, key)}" for key, one in left.open.items())
    return CleanupFailed(
        f"{len(left.open)} of {left.injected} faults could not be healed",
        remedy=f"make that reachable, then: chaos-gate heal --ledger {path}",
        where="clean-up",
        tail=tail,
    )
