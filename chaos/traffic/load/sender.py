"""The open loop itself: what is due is sent, and what came of it recorded. It runs in a process of its own and waits for nobody.

Arrivals are planned; the loop wakes for each, sends what is due, and looks every 20 ms whether it was there at all. Where it was away
for more than `AWAY` (a frozen process, a machine that has no time for it), what was due is left out, and those seconds are not covered.
"""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from chaos.model import Kind
from chaos.traffic.load.arrivals import Arrivals
from chaos.traffic.load.client import Client, Exhausted
from chaos.traffic.load.recording import Recorder, Stretch
from chaos.traffic.load.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chaos.model import Interval, Operation
    from chaos.traffic.load.requests import To

TICK = 0.02  # s between two looks at how late this process itself is
STALL = 0.03  # s: a tick later than this counts as the machine's fault, not the target's
AWAY = 1.0  # s of absence after which what was due is left out: sent all at once it would be a load that nobody planned
AT_ONCE = 64  # requests that are begun before answers are looked at again
FLUSH = 0.2  # s between two looks for stretches that are over


class Sender:
    """Carries out `orders` on the running event loop; `clock` gives the run's time, from CLOCK_MONOTONIC and `epoch`.

    `keep` is handed what is over, in order: intervals, a few of the operations in them, and until when that is all there is.
    """

    def __init__(
        self, orders: Mapping[str, Any], *, epoch: float, keep: Callable[[Sequence[Interval], Sequence[Operation], float], None]
    ) -> None:
        self._epoch = epoch
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._clients: dict[To, Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._helpers: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False
        self._paused = 0.0  # since when, where the rate is 0
        self._seen = self.clock()
        self._changes = 0
        self._away_until = 0.0
        self._absences: list[tuple[float, float]] = []
        self.counts = {"absent": 0}  # requests that were left out because this process was away
        start = orders.get("start") or self._seen + 0.05
        self._take_orders(orders)
        self._recorder = Recorder(
            started=start,
            every=orders["every"],
            origin=orders["origin"],
            limits=tuple(orders["limits"]),
            machine=orders["machine"],
            seed=orders["seed"],
        )
        self._arrivals = Arrivals(
            seed=orders["seed"],
            weights=self._requests.weights,
            rate=orders["rate"],
            start=start,
            paced=orders["paced"],
            turn=tuple(orders["turn"]),
        )
        if orders["rate"] <= 0:
            self._paused = start

    def _take_orders(self, orders: Mapping[str, Any]) -> None:
        self._requests = Requests(orders)
        self._deadline = orders["deadline"]
        self._kept = orders["kept"]
        self._most = orders["most"]
        self._close_clients()

    def clock(self) -> float:
        """Seconds of the run's clock."""
        return self._epoch + time.monotonic()

    # -- life -------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        gc.collect()
        gc.freeze()  # what is there now stays: it is not to be looked at again and again
        self._helpers = [self._loop.create_task(self._tick()), self._loop.create_task(self._flush())]
        self._arm()

    async def stop(self) -> None:
        """Send nothing more, wait for what is under way, and keep all of it."""
        now = self.clock()
        self._notice(now)
        self._send_due(now)
        self._leave_out(now)
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self._deadline + 5.0)
        for helper in self._helpers:
            helper.cancel()
        await asyncio.gather(*self._helpers, return_exceptions=True)
        self._pause_until(now)
        for stretch, ends in (*self._recorder.over(now), *self._recorder.last(now)):
            await self._hand_over(stretch, ends)
        self._close_clients()

    def mark(self, stratum: str, at: float = 0.0) -> None:
        """What is sent from now on, and what is under way, belongs to `stratum`; `at` is the same moment for several senders."""
        now = self.clock()
        self._notice(now)
        self._send_due(now)
        self._recorder.mark(stratum, at or now)

    def rate(self, per_second: float, at: float = 0.0) -> None:
        """Another rate, from now (or from `at`) on; 0 sends nothing."""
        now = self.clock()
        self._send_due(now)
        if self._paused and per_second > 0:
            self._pause_until(now)
            self._paused = 0.0
        elif per_second <= 0 and not self._paused:
            self._paused = now
        self._arrivals.change(per_second, max(at, now))
        self._arm()

    def change(self, orders: Mapping[str, Any]) -> None:
        """Another address, other values, another mix: what is under way ends as it began."""
        now = self.clock()
        self._send_due(now)
        self._changes += 1
        self._take_orders(orders)
        self._arrivals = Arrivals(
            seed=orders["seed"] + self._changes,
            weights=self._requests.weights,
            rate=self._arrivals.rate,
            start=now,
            paced=orders["paced"],
            turn=tuple(orders["turn"]),
        )
        self._arm()

    def _pause_until(self, now: float) -> None:
        if self._paused:
            self._recorder.away(self._paused, now)
            self._paused = now

    # -- the loop -----------------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._arrivals.due < float("inf") and not self._ending:
            self._timer = self._loop.call_at(self._arrivals.due - self._epoch, self._wake)

    def _wake(self) -> None:
        now = self.clock()
        self._notice(now)
        self._send_due(now)
        if self._arrivals.due <= now:
            self._timer = self._loop.call_soon(self._wake)  # type: ignore[assignment]  # answers first
        else:
            self._arm()

    def _send_due(self, now: float) -> None:
        self._leave_out(now - AWAY)  # it cannot keep up: what is that late is no measurement of the target any more
        for _ in range(AT_ONCE):
            if self._arrivals.due > now or self._ending:
                return
            at, which = self._arrivals.take()
            if len(self._tasks) >= self._most:
                self._drop(at, which, "too many under way")
                continue
            stretch = self._recorder.due(at)
            task = self._loop.create_task(self._send(which, at, stretch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _leave_out(self, before: float) -> None:
        """What was due `before`, and this process had no time for."""
        if self._arrivals.due < before:
            self._away(self._arrivals.due, before)
            self.counts["absent"] += self._arrivals.skip(before)

    def _drop(self, at: float, which: int, why: str) -> None:
        order = self._requests.orders[which]
        self._recorder.drop(at, order.key, order.kind, why)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._notice(self.clock())

    def _away(self, start: float, end: float) -> None:
        """Nobody was there from `start` to `end`; no second counts twice."""
        if end > max(start, self._away_until):
            self._recorder.away(max(start, self._away_until), end)
            self._away_until = end

    def _notice(self, now: float) -> None:
        """See whether this process was away just now."""
        gone = now - self._seen - TICK
        if gone > STALL:
            start = self._seen + TICK
            if not self._paused:
                self._away(start, now)
            if gone > AWAY:
                self._absences.append((start, now))
                self._absences = [one for one in self._absences[-20:] if one[1] > now - 10 * self._deadline]
                self.counts["absent"] += self._arrivals.skip(now)
        self._seen = now

    # -- a request ----------------------------------------------------------------------------------------------------------------

    async def _send(self, which: int, planned: float, stretch: Stretch) -> None:
        asked = self._requests.make(which, planned, self.clock())
        requests, order = (
            self._requests,
            asked.order,
        )  # what is asked while the orders change is judged by those that it began with
        asked.started = self.clock()
        try:
            answer = await self._client(order.to).ask(asked.wire, method=order.method, kept=asked.kept)
        except Exhausted:
            stretch.under_way -= 1
            self._recorder.drop(planned, order.key, order.kind, "not sent: this machine has no room for it")
            return
        asked.finished = self._epoch + answer.at
        self._notice(self.clock())
        requests.judge(asked, answer)
        home = self._recorder.settled(stretch)
        if any(start < asked.finished and end > planned for start, end in self._absences):
            self.counts["absent"] += 1  # nobody can say how long it took
            return
        cell = self._recorder.cell(home, order.key, order.kind, requests.release(answer))
        status = str(answer.status) if answer.status is not None else answer.error
        latency, lag = asked.finished - planned, max(0.0, asked.started - planned)
        self._recorder.count(cell, status=status, good=asked.good, latency=latency, lag=lag)
        if not asked.good:
            home.failed.offer(lambda: requests.operation(asked, answer))
        elif order.kind is Kind.WRITE:
            home.written.offer(lambda: requests.operation(asked, answer))

    def _client(self, to: To) -> Client:
        client = self._clients.get(to)
        if client is None:
            scheme, host, port = to
            client = Client(scheme=scheme, host=host, port=port, deadline=self._deadline, kept=self._kept)
            self._clients[to] = client
        return client

    def _close_clients(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients = {}

    # -- what is over ----------------------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH)
            now = self.clock()
            self._recorder.roll(now)
            self._pause_until(now)
            for stretch, ends in self._recorder.over(now):
                await self._hand_over(stretch, ends)

    async def _hand_over(self, stretch: Stretch, ends: float) -> None:
        """Histograms are written in another thread, so that no request is late for them."""
        intervals = await asyncio.to_thread(lambda: tuple(self._recorder.intervals(stretch, ends)))
        self._keep(intervals, (*stretch.failed.kept, *stretch.written.kept), ends)


def lines(intervals: Iterable[Interval], operations: Iterable[Operation], until: float) -> dict[str, Any]:
    """As they are sent to who asked for them."""
    rows = {"intervals": [asdict(one) for one in intervals], "operations": [asdict(one) for one in operations]}
    return {**rows, "until": until}
