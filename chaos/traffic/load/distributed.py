"""`Distributed`: the same load from several machines, on Locust's own master and workers, merged without loss.

Every worker has a sender of its own beside it (`nodes`), which sends each n-th of the planned arrivals. Locust runs in processes of its
own: it patches the standard library where it is imported, and it is imported nowhere here.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from chaos.errors import CleanupFailed, PartFailed, PartMissing
from chaos.model import now
from chaos.processes import Reaper, free_port
from chaos.traffic.load.link import Link, intervals, operations
from chaos.traffic.load.locustfile import locustfile
from chaos.traffic.load.merging import Merging
from chaos.traffic.load.nodes import DIRECTORY, EXPECTED, machine
from chaos.traffic.load.plan import LoadPlan, orders

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.config import Config
    from chaos.model import Interval, Operation
    from chaos.processes import Process

LOST = 15.0  # s without a word (one comes every second) after which a worker is lost
COME = 60.0  # s in which workers that are started here have come
LATER = 900.0  # s in which those come that others start
STAGGER = 0.05  # s from a command to the moment from which it holds everywhere


class Distributed:
    """As `Load`, with `workers` of Locust. PartMissing without the extra `chaos-gate[locust]`.

    With `started_here=False` the workers are started by others, from the generated files, and come to `host` and `port`; `start` waits
    for them. What is handed on is merged: `Interval.machine` is '', and `covered` is the mean over all workers, so that a lost one's
    seconds are not covered. `lost` names those, and `counts['missing']` says how many messages did not arrive.
    """

    def __init__(
        self,
        plan: LoadPlan,
        *,
        workers: int,
        reaper: Reaper,
        directory: Path,
        config: Config,
        started_here: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
        patience: float = LOST,
    ) -> None:
        self.plan = plan
        self.workers: list[Process] = []
        self.counts: dict[str, int] = {}
        self._count = workers
        self._reaper = reaper
        self._directory = directory
        self._config = config
        self._started_here = started_here
        self._host, self._port = host, port or free_port()
        self._patience = patience
        self._link = Link(name="locust-master", reaper=reaper, directory=directory, heard=self._heard)
        self._lock = threading.Lock()
        self._merging = Merging((machine(turn) for turn in range(workers)), patience=patience)
        self._absent: dict[str, dict[str, int]] = {}
        self._operations: list[Operation] = []
        self._ended = False

    @property
    def lost(self) -> tuple[str, ...]:
        """The workers that are not heard of any more."""
        with self._lock:
            return self._merging.lost(now())

    def start(self) -> None:
        """Start master and workers, wait until all have come, and begin to send."""
        if find_spec("locust") is None:
            raise PartMissing("Locust is not installed", remedy="pip install 'chaos-gate[locust]'", where="--workers")
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "locustfile.py"
        file.write_text(locustfile(self._config), encoding="utf-8")
        told = orders(self.plan)
        here = ["-m", "locust", "-f", str(file.absolute()), "--loglevel", "WARNING"]
        for turn in range(self._count if self._started_here else 0):
            self.workers.append(
                self._reaper.spawn(
                    [sys.executable, *here, "--worker", "--master-host", "127.0.0.1", "--master-port", str(self._port)],
                    name=f"locust-worker-{turn}",
                    cwd=self._directory,
                    env=self._environment(),
                    log=self._directory / f"locust-worker-{turn}.log",
                )
            )
        master = [*here, "--master", "--headless", "--expect-workers", str(self._count), "-u", str(self._count), "-r", "100"]
        address = ["--master-bind-host", self._host, "--master-bind-port", str(self._port), "--only-summary"]
        waits = COME if self._started_here else LATER
        self._link.start([*master, *address], {"orders": told}, env=self._environment(), within=waits)
        with self._lock:
            for name in self._merging.machines:
                self._merging.heard(name, now())

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
        return {**ours, EXPECTED: str(self._count), DIRECTORY: str(self._directory.absolute())}

    def stop(self) -> None:
        """Wait for what is under way and end; the rest can be taken then."""
        within = self.plan.patience + 15.0
        try:
            self._link.ask({"stop": True, "within": within}, within=within + 5.0)
        finally:
            self._ended = True
            for worker in self.workers:
                with suppress(CleanupFailed):  # the reaper tells it in the end
                    worker.stop()
            self._link.close()

    def mark(self, stratum: str) -> None:
        """As `Load.mark`; it holds on every worker when this returns."""
        self._link.ask({"mark": stratum, "at": now()})

    def rate(self, per_second: float) -> None:
        """As `Load.rate`: of all workers together."""
        self._link.ask({"rate": per_second, "at": now() + STAGGER})

    def change(self, plan: LoadPlan) -> None:
        """As `Load.change`."""
        self.plan = plan
        self._link.ask({"orders": orders(plan)})

    def take(self) -> tuple[tuple[Interval, ...], tuple[Operation, ...]]:
        """As `Load.take`, merged."""
        with self._lock:
            taken = self._merging.complete(now(), end=self._ended)
            kept, self._operations = tuple(self._operations), []
        return taken, kept

    def check(self) -> None:
        """PartFailed when the master has died, or no worker is left. A lost worker is not an error: its seconds are not covered."""
        self._link.check()
        if len(self.lost) == self._count:
            raise PartFailed("no worker is left", remedy="see the workers' logs; then start the run again", where="--workers")

    def _heard(self, message: dict[str, Any]) -> None:
        name = message.get("machine")
        if name not in self._merging.machines:
            return
        with self._lock:
            self._merging.heard(name, now())
            if "part" in message:
                rows = intervals(message.get("intervals", ()))
                self._merging.said(name, rows, until=message["until"], number=message["part"])
                self._operations += operations(message.get("operations", ()))
            self._absent[name] = message.get("counts", self._absent.get(name, {}))
            absent = sum(one.get("absent", 0) for one in self._absent.values())
            self.counts = {"absent": absent, "missing": sum(one.missing for one in self._merging.machines.values())}
