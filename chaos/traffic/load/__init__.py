"""Open-loop load from a process of its own: `Load` starts it, steers it and takes what it recorded.

Arrival times are planned, latency counts from the plan, and nothing that was due is left out in silence. The sender has an interpreter
of its own: the one that relays the database's packets would distort what is measured here, and the other way round.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from chaos.model import now
from chaos.traffic.load.link import Link, intervals, operations
from chaos.traffic.load.plan import LoadPlan, Mix, orders, provider_keys

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.model import Interval, Operation
    from chaos.processes import Reaper

__all__ = ["Load", "LoadPlan", "Mix", "provider_keys"]


class Load:
    """One sender. Every method may be called from any thread; `start` first, `stop` in the end. PartFailed when the sender has died.

    `directory` takes the sender's log. `counts` says how many requests were left out because the sender itself was away ('absent').
    """

    def __init__(self, plan: LoadPlan, *, reaper: Reaper, directory: Path) -> None:
        self.plan = plan
        self.counts: dict[str, int] = {}
        self._link = Link(name="load", reaper=reaper, directory=directory, heard=self._heard)
        self._lock = threading.Lock()
        self._intervals: list[Interval] = []
        self._operations: list[Operation] = []

    @property
    def pid(self) -> int:
        """Of the sender's process."""
        return self._link.pid

    def start(self) -> None:
        """Start to send. UsageError when the plan holds nothing to be sent."""
        self._link.start(["-m", "chaos.traffic.load"], {"orders": orders(self.plan), "epoch": now() - time.monotonic()})

    def stop(self) -> None:
        """Wait for what is under way (bounded by the plan's deadline) and end; the rest can be taken then."""
        try:
            self._link.ask({"stop": True}, within=self.plan.patience + 15.0)
        finally:
            self._link.close()

    def mark(self, stratum: str) -> None:
        """'steady' or 'fault', from now on. What is under way when something is about to be broken belongs to 'fault'."""
        self._link.ask({"mark": stratum})

    def rate(self, per_second: float) -> None:
        """Another rate from now on; 0 pauses, and what is paused is not covered."""
        self._link.ask({"rate": per_second})

    def change(self, plan: LoadPlan) -> None:
        """Other requests from now on: the target moved, or a log-in was renewed. Rate, intervals and seed stay as they are."""
        self.plan = plan
        self._link.ask({"orders": orders(plan)})

    def take(self) -> tuple[tuple[Interval, ...], tuple[Operation, ...]]:
        """What has been completed since the last take: intervals that are over, in order, and a few of their operations.

        Operations are at most 20 failed ones and 20 acknowledged writes (`ok`, with {unique}, to be read back) an interval.
        """
        with self._lock:
            taken = tuple(self._intervals), tuple(self._operations)
            self._intervals, self._operations = [], []
        return taken

    def check(self) -> None:
        """PartFailed when the sender has died, or is not heard of any more."""
        self._link.check()

    def _heard(self, message: dict[str, Any]) -> None:
        with self._lock:
            self.counts = message.get("counts", self.counts)
            self._intervals += intervals(message.get("intervals", ()))
            self._operations += operations(message.get("operations", ()))
