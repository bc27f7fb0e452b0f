"""The suite's traffic: closed-loop clients around a fault, open-loop load for rates and latency, all recorded.

It runs on an event loop in a thread of its own, so that the thread that injects faults never delays a request. Around a fault the
clients are few and closed-loop (each waits for its answer before it asks again): what is measured is whether *a* request is
answered in time, not whether the target survives a load that the outage itself piles up. Rates and latencies come from an open
loop: arrival times are planned, and latency counts from the plan (Tene, 'How NOT to measure latency', 2013).
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
import uuid
from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from chaos.model import Kind, Operation, now
from chaos.traffic.requests import Sample, Session, prepare, read_back_sample, send

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from concurrent.futures import Future

    from chaos.config import Target, Write

T = TypeVar("T")

TICK = 0.02  # s between two looks at how late this process itself is
STALL = 0.03  # s: a tick later than this counts as the machine's fault, not the target's
WITNESS_EVERY = 2  # of a reader's requests, one looks up a write that was acknowledged before: each fault sees at least one
PAUSES = {Kind.READ: 0.04, Kind.WRITE: 0.08, Kind.INVALID: 0.05, Kind.LIVE: 0.25}  # s between answer and next request


def samples(target: Target) -> dict[Kind, tuple[Sample, ...]]:
    """The target's requests by kind, each with its key in chaos.toml."""
    listed: dict[Kind, Sequence[object]] = {Kind.READ: target.read, Kind.WRITE: target.write, Kind.INVALID: target.invalid}
    return {
        kind: tuple(Sample(kind=kind, key=f"{kind}[{i}]", request=request) for i, request in enumerate(requests))  # type: ignore[arg-type]
        for kind, requests in listed.items()
    }


class Recorder:
    """Operations in the order in which they finished; readable from any thread."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self.taken = 0.0  # until when they are in a history
        self._aside: list[Operation] = []

    def add(self, operation: Operation) -> None:
        """Append one (list.append is atomic)."""
        self._operations.append(operation)

    def aside(self, operation: Operation) -> Operation:
        """Keep the answer to a request that no experiment counts (to an instance that is drained, or only started)."""
        self._aside.append(operation)
        return operation

    def take_aside(self) -> tuple[Operation, ...]:
        """What was kept aside, once."""
        kept, self._aside = self._aside, []
        return tuple(kept)

    def forget(self, before: float) -> None:
        """Drop what had finished by then and is in a history: a run of days must not fill the memory."""
        del self._operations[: bisect_left(self._operations, before, key=lambda one: one.finished)]

    def since(self, start: float) -> tuple[Operation, ...]:
        """All operations that finished at or after `start`."""
        operations = self._operations[:]
        return tuple(operations[bisect_left(operations, start, key=lambda one: one.finished) :])


class StallMeter:
    """How long this process was kept from running, by 20 ms ticks on the traffic loop."""

    def __init__(self) -> None:
        self._stalls: list[tuple[float, float]] = []

    async def run(self) -> None:
        """Tick for ever."""
        while True:
            due = now() + TICK
            await asyncio.sleep(TICK)
            late = now() - due
            if late > STALL:
                self._stalls.append((due, late))

    def between(self, start: float, end: float) -> float:
        """Seconds stalled inside [start, end]."""
        first = bisect_left(self._stalls, start - 60.0, key=lambda one: one[0])
        return sum(
            max(0.0, min(end, due + late) - max(start, due))
            for due, late in self._stalls[first:]
            if due < end and due + late > start
        )


class Driver:
    """Sends the target's requests; one a worker. `start()` before use, `stop()` ends the thread."""

    def __init__(self, target: Target, *, seed: int) -> None:
        self.target = target
        self.session = Session(target, "")
        self.recorder = Recorder()
        self.stalls = StallMeter()
        self.samples = samples(target)
        self._read_backs = {one.key: read_back_sample(one.request, one.key) for one in self.samples[Kind.WRITE]}  # type: ignore[arg-type]
        self.seed = seed
        self.begun = 0.0  # when a read or a write was last sent
        self.deadline = target.database.fail_fast + max(2.0, target.database.fail_fast * 0.5)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="traffic", daemon=True)
        self._clients: list[Future[None]] = []
        self._running = False
        self._witnessed: tuple[tuple[Sample, str], ...] = ()
        self._ticks: Future[None] | None = None

    # -- life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()
        self._ticks = self.begin(self.stalls.run())

    def stop(self) -> None:
        """End clients and thread."""
        self.end_clients()
        if self._ticks is not None:
            self._ticks.cancel()
        with suppress(TimeoutError):
            self.call(asyncio.sleep(0), 5.0)  # let the cancelled task end
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()

    def attach(self, base_url: str, values: Mapping[str, str]) -> None:
        """Point the driver at a (re)started target, whose placeholders are `values`, and carry out [[target.prepare]]."""
        self.session = Session(self.target, base_url, dict(values), self.session.extra_headers)
        self.call(prepare(self.session, self.target.prepare, deadline=self.deadline))

    def call(self, work: Coroutine[object, object, T], timeout: float | None = None) -> T:
        """Run a coroutine on the traffic loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    # -- closed loop ----------------------------------------------------------------------------------------------------------

    def begin_clients(self, live: Sample | None = None, *, readers: int = 1) -> None:
        """Start the closed-loop clients: readers, one writer, one for invalid requests, one for the liveness path."""
        self._running = True
        plan = [(f"reader {i}", self.samples[Kind.READ]) for i in range(readers)]
        plan += [("writer", self.samples[Kind.WRITE]), ("invalid", self.samples[Kind.INVALID])]
        if live is not None:
            plan.append(("live", (live,)))
        self._clients += [self.begin(self._closed_loop(name, these)) for name, these in plan if these]

    @property
    def clients(self) -> int:
        """How many closed-loop clients are running."""
        return len(self._clients)

    def begin(self, work: Coroutine[object, object, None]) -> Future[None]:
        """Start a coroutine on the traffic loop and go on."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def add_reader(self) -> None:
        """One more closed-loop reader, while the others run."""
        self._clients.append(self.begin(self._closed_loop(f"reader {len(self._clients)}", self.samples[Kind.READ])))

    def end_clients(self) -> None:
        """Let each client finish the request it is waiting for (bounded by the deadline), then stop."""
        self._running = False
        self._witnessed = ()
        for client in self._clients:
            client.result(self.deadline + 5.0)
        self._clients.clear()

    def witness(self, writes: Sequence[Operation], *, most: int = 3) -> None:
        """From now on the first reader looks up `most` of these writes in turn, between its own requests: no client more.

        What was acknowledged must not be missing from a good answer, whatever is broken meanwhile.
        """
        known = [(sample, one.unique) for one in writes if (sample := self._read_backs.get(one.sample)) is not None]
        self._witnessed = tuple(known[-most:])

    def _next(self, name: str, turn: int, sample: Sample) -> tuple[Sample, str]:
        """What a client sends in its `turn`: its own next request, or a write to be looked up."""
        seen = self._witnessed
        if seen and name == "reader 0" and turn % WITNESS_EVERY == WITNESS_EVERY - 1:
            return seen[turn // WITNESS_EVERY % len(seen)]
        return sample, ""

    async def _closed_loop(self, name: str, these: tuple[Sample, ...]) -> None:
        for turn, own in enumerate(itertools.cycle(these)):
            if not self._running:
                return
            sample, unique = self._next(name, turn, own)
            done = await self._send(sample, name=name, unique=unique)
            pause = PAUSES.get(sample.kind, 0.05)
            # A connection that is refused at once must not become a hot loop of ours.
            await asyncio.sleep(pause if done.status is not None else max(pause, 0.1))

    async def _send(self, sample: Sample, *, name: str = "", planned: float = 0.0, unique: str = "") -> Operation:
        headers = {}
        if sample.kind in {Kind.READ, Kind.WRITE}:
            self.begun = now()
        if sample.kind is Kind.WRITE:
            unique = unique or uuid.uuid4().hex
            write: Write = sample.request  # type: ignore[assignment]
            if write.idempotency_header:
                headers[write.idempotency_header] = unique
        done = await send(
            self.session,
            sample,
            deadline=self.deadline,
            unique=unique,
            planned=planned,
            stall=self.stalls.between,
            headers=headers,
            name=name,
        )
        self.recorder.add(done)
        return done

    # -- one at a time --------------------------------------------------------------------------------------------------------

    def once(self, sample: Sample, *, unique: str = "") -> Operation:
        """One request, recorded."""
        return self.call(self._send(sample, unique=unique))

    def ask(self, sample: Sample, *, name: str) -> Future[Operation]:
        """One request, recorded, without waiting for its answer."""
        return asyncio.run_coroutine_threadsafe(self._send(sample, name=name), self._loop)

    def at_once(self, sample: Sample, *, times: int = 2) -> None:
        """The same write, under the same {unique} and idempotency key, on so many connections at once."""
        unique = uuid.uuid4().hex

        async def go() -> None:
            await asyncio.gather(*(self._send(sample, unique=unique, name="twin") for _ in range(times)))

        self.call(go())

    def read_back(self, writes: Sequence[Operation]) -> dict[str, Operation]:
        """Ask for each write's `read_back`, four at a time; key: the write's {unique}. Writes without one are left out."""

        async def go() -> dict[str, Operation]:
            gate = asyncio.Semaphore(4)

            async def one(write: Operation, sample: Sample) -> tuple[str, Operation]:
                async with gate:
                    return write.unique, await self._send(sample, unique=write.unique)

            wanted = [(write, sample) for write in writes if (sample := self._read_backs.get(write.sample)) is not None]
            return dict(await asyncio.gather(*(one(write, sample) for write, sample in wanted)))

        return self.call(go())

    # -- open loop ------------------------------------------------------------------------------------------------------------

    def load(self, *, rate: float, seconds: float, writes: float = 0.1) -> tuple[float, float]:
        """Open-loop load: `rate` requests a second on planned times, a share of them writes. Returns (start, end).

        Arrivals are Poisson (seeded), as independent users' are; a late send is recorded (started - planned), never skipped.
        """
        rng = random.Random(self.seed)  # noqa: S311  (a reproducible schedule, not a secret)
        reads, written = self.samples[Kind.READ], self.samples[Kind.WRITE]
        plan: list[tuple[float, Sample]] = []
        at = 0.0
        while at < seconds:
            pool = written if written and rng.random() < writes else reads
            if pool:
                plan.append((at, rng.choice(pool)))
            at += rng.expovariate(rate)

        async def go() -> tuple[float, float]:
            start = now() + 0.05
            async with asyncio.TaskGroup() as group:
                for offset, sample in plan:
                    await asyncio.sleep(max(0.0, start + offset - now()))
                    group.create_task(self._send(sample, planned=start + offset, name="load"))
            return start, now()

        return self.call(go())


def wait_for(condition: Callable[[], bool], timeout: float, *, every: float = 0.02) -> bool:
    """Poll until `condition()` holds; False when it did not within `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        if condition():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(every)
