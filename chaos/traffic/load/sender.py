"""The open loop itself: what is due is sent, and what came of it recorded. It runs in a process of its own, and never waits for anybody.

Arrivals are planned; the loop wakes for each, sends what is due, and looks every 20 ms whether it was there at all. Where it was away for
more than `AWAY` (a frozen process, a suspended machine), what was due meanwhile is left out, and those seconds are not covered.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.model import Kind, Layer, Operation
from chaos.traffic.load.arrivals import Arrivals
from chaos.traffic.load.client import Answer, Client, Exhausted
from chaos.traffic.load.crawl import LARGEST, PAGE, Crawl, Step
from chaos.traffic.load.plan import HOST, SEO, UNIQUE
from chaos.traffic.load.recording import Recorder, Stretch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chaos.model import Interval

TICK = 0.02  # s between two looks at how late this process itself is
STALL = 0.03  # s: a tick later than this counts as the machine's fault, not the target's
AWAY = 1.0  # s of absence after which what was due is left out: sent all at once it would be a load that nobody planned
AT_ONCE = 64  # requests that are begun before answers are looked at again
BODY_KEPT = 4096  # bytes of an error answer
EDGE_MARK = "x-chaos-edge"
FLUSH = 0.2  # s between two looks for stretches that are over


@dataclass(frozen=True, slots=True)
class Order:
    """One request of the mix, ready to be sent. `to` is (scheme, host, port)."""

    key: str
    kind: Kind
    method: str
    path: str
    expected: str
    accepts: tuple[tuple[int, int], ...]
    wire: bytes
    to: tuple[str, str, int]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Order:
        """From the orders' JSON (chaos.traffic.load.plan)."""
        scheme, host, port = told["to"]
        return cls(
            told["key"],
            Kind(told["kind"]),
            told["method"],
            told["path"],
            told["expected"],
            tuple((low, high) for low, high in told["accepts"]),
            told["wire"].encode("latin-1"),
            (scheme, host, int(port)),
        )

    def good(self, status: int | None) -> bool:
        """Whether an answer with it is healthy."""
        return status is not None and any(low <= status <= high for low, high in self.accepts)


class Sender:
    """Carries out `orders` on the running event loop; `clock` gives the run's time, from CLOCK_MONOTONIC and `epoch`.

    `keep` is handed what is over, in order: intervals, and a few of the operations in them.
    """

    def __init__(
        self, orders: Mapping[str, Any], *, epoch: float, keep: Callable[[Sequence[Interval], Sequence[Operation]], None]
    ) -> None:
        self._epoch = epoch
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._clients: dict[tuple[str, str, int], Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._helpers: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ending = False
        self._paused = 0.0  # since when, where the rate is 0
        self._seen = self.clock()
        self._absences: list[tuple[float, float]] = []
        self.counts = {"absent": 0, "late": 0}
        start = self._seen + 0.05
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
            weights=[one["weight"] for one in orders["requests"]],
            rate=orders["rate"],
            start=start,
            paced=orders["paced"],
            turn=tuple(orders["turn"]),
        )
        if orders["rate"] <= 0:
            self._paused = start

    def _take_orders(self, orders: Mapping[str, Any]) -> None:
        self._orders = tuple(Order.of(one) for one in orders["requests"])
        self._deadline = orders["deadline"]
        self._kept = orders["kept"]
        self._most = orders["most"]
        self._private = orders["private"]
        self._release_header, self._releases = orders["release_header"], orders["releases"]
        self._unknown = orders["unknown"]
        self._stranger = 0
        seo = orders["seo"]
        self._crawl = Crawl(hosts=seo["hosts"], patterns=seo["patterns"], agent=seo["agent"]) if seo["hosts"] else None
        self._dice = random.Random(orders["seed"] + 1)  # noqa: S311
        for client in self._clients.values():
            client.close()
        self._clients = {}

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
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        while self._arrivals.due <= now:  # more than fits into one look: it was due, and is not sent any more
            at, which = self._arrivals.take()
            self._recorder.drop(at, self._orders[which].key, self._orders[which].kind, "unsent")
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self._deadline + 5.0)
        for helper in self._helpers:
            helper.cancel()
        await asyncio.gather(*self._helpers, return_exceptions=True)
        self._pause_until(now)
        for stretch, ends in (*self._recorder.over(now), *self._recorder.last(now)):
            await self._hand_over(stretch, ends)
        for client in self._clients.values():
            client.close()

    def mark(self, stratum: str) -> None:
        """What is sent from now on, and what is under way, belongs to `stratum`."""
        now = self.clock()
        self._notice(now)
        self._send_due(now)
        self._recorder.mark(stratum, now)

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
        self._take_orders(orders)
        self._arrivals = Arrivals(
            seed=orders["seed"] + round(now),
            weights=[one["weight"] for one in orders["requests"]],
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
        for _ in range(AT_ONCE):
            if self._arrivals.due > now or self._ending:
                return
            at, which = self._arrivals.take()
            order = self._orders[which]
            if len(self._tasks) >= self._most:
                self._recorder.drop(at, order.key, order.kind, "too many under way")
                continue
            stretch = self._recorder.due(at)
            task = self._loop.create_task(self._send(order, at, stretch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._notice(self.clock())

    def _notice(self, now: float) -> None:
        """See whether this process was away just now."""
        gone = now - self._seen - TICK
        if gone > STALL:
            start = self._seen + TICK
            if not self._paused:
                self._recorder.away(start, now)
            if gone > AWAY:
                self._absences.append((start, now))
                self._absences = [one for one in self._absences[-20:] if one[1] > now - 10 * self._deadline]
                self.counts["absent"] += self._arrivals.skip(now)
        self._seen = now

    # -- a request -----------------------------------------------------------------------------------------------------------------

    async def _send(self, order: Order, planned: float, stretch: Stretch) -> None:
        unique, step, wire, kept = "", None, order.wire, BODY_KEPT
        if order.key == SEO and self._crawl is not None:
            step = self._crawl.next(self.clock())
            wire = wire.replace(f"/{UNIQUE}".encode(), step.path.encode("ascii", "replace"), 1).replace(
                HOST.encode(), step.site.host.encode()
            )
            kept = BODY_KEPT if step.what == PAGE else LARGEST
        elif order.kind is Kind.HOST:
            self._stranger = (self._stranger + 1) % len(self._unknown)
            wire = wire.replace(HOST.encode(), self._unknown[self._stranger].encode("latin-1", "replace"))
        else:
            unique = uuid.UUID(int=self._dice.getrandbits(128)).hex if order.kind is not Kind.WRITE else uuid.uuid4().hex
            wire = wire.replace(UNIQUE.encode(), unique.encode())
        client = self._clients.get(order.to)
        if client is None:
            scheme, host, port = order.to
            client = Client(scheme=scheme, host=host, port=port, deadline=self._deadline, kept=self._kept)
            self._clients[order.to] = client
        started = self.clock()
        try:
            answer = await client.ask(wire, method=order.method, kept=kept)
        except Exhausted as error:
            stretch.under_way -= 1
            self._recorder.drop(
                planned, order.key, order.kind, f"not sent: {error.args[0].partition(']')[2].strip() or 'exhausted'}"
            )
            return
        self._record(order, step, unique, answer, planned, started, stretch)

    def _record(
        self, order: Order, step: Step | None, unique: str, answer: Answer, planned: float, started: float, stretch: Stretch
    ) -> None:
        finished = self.clock()
        self._notice(finished)
        good = order.good(answer.status)
        if step is not None and self._crawl is not None:
            good = self._crawl.done(step, answer.status, answer.headers, answer.body, finished)
        home = self._recorder.settled(stretch)
        if any(start < finished and end > planned for start, end in self._absences):
            self.counts["absent"] += 1  # nobody can say how long it took
            return
        release = answer.headers.get(self._release_header, "") if self._release_header else ""
        release = self._releases.get(release, "" if self._releases else release)
        cell = self._recorder.cell(home, order.key, order.kind, release)
        status = str(answer.status) if answer.status is not None else answer.error
        self._recorder.count(cell, status=status, good=good, latency=finished - planned, lag=max(0.0, started - planned))
        if good and order.kind is not Kind.WRITE:
            return

        def kept() -> Operation:
            return self._operation(order, step, unique, answer, good=good, times=(planned, started, finished))

        (home.written if good else home.failed).offer(kept)

    def _operation(
        self, order: Order, step: Step | None, unique: str, answer: Answer, *, good: bool, times: tuple[float, float, float]
    ) -> Operation:
        body = ""
        if answer.status is not None and answer.status >= 400:
            body = self._without_secrets(answer.body[:BODY_KEPT].decode("utf-8", "replace"))
        return Operation(
            kind=order.kind,
            method=order.method,
            path=step.path if step else order.path,
            sample=order.key,
            planned=times[0],
            started=times[1],
            finished=times[2],
            status=answer.status,
            error=answer.error,
            expected=order.expected,
            ok=good,
            unique=unique if order.kind is Kind.WRITE else "",
            retry_after=answer.headers.get("retry-after", ""),
            media_type=answer.headers.get("content-type", ""),
            body=body,
            request_id=answer.headers.get("x-request-id", ""),
            layer=Layer.NOBODY if answer.status is None else Layer.EDGE if EDGE_MARK in answer.headers else Layer.APPLICATION,
            client="load",
        )

    def _without_secrets(self, text: str) -> str:
        for secret, instead in self._private.items():
            text = text.replace(secret, instead)
        return text

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
        self._keep(intervals, (*stretch.failed.kept, *stretch.written.kept))


def lines(intervals: Iterable[Interval], operations: Iterable[Operation]) -> dict[str, Any]:
    """As they are sent to who asked for them."""
    from dataclasses import asdict  # noqa: PLC0415

    return {"intervals": [asdict(one) for one in intervals], "operations": [asdict(one) for one in operations]}
