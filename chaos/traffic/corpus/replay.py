"""The corpus on its way: each request on a connection of its own, a few at a time, and never for longer than there is time for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11

from chaos.model import Kind, Layer, Operation, now
from chaos.traffic.exchange import classify, exchange
from chaos.traffic.requests import BODY_KEPT, EDGE_MARK, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chaos.traffic.corpus.ask import Ask
    from chaos.traffic.requests import Session

SILENT = 25  # requests in a row without an answer after which nothing more is asked
LIMITED = 8  # answers 429 in a row after which nothing more is asked
PER_ROUTE = 2  # hangs of one route after which it is left alone
HANGS = 5  # hangs in a look at the steady state after which nothing more is asked


@dataclass
class Sender:
    """Sends asks to one address and remembers what came of each. `stall` as in `chaos.traffic.requests.send`.

    `stopped` says why it sent no more, '' while it does.
    """

    session: Session
    deadline: float
    stall: Callable[[float, float], float] = field(default=lambda _a, _b: 0.0)
    stopped: str = ""
    _silent: int = 0
    _limited: int = 0
    _hung: dict[str, int] = field(default_factory=dict)

    async def send(self, ask: Ask, *, phase: str, row: str = "") -> Operation:
        """One request. A status that came with an answer that does not end is a status: `error` is then 'unfinished'."""
        status: list[int] = []
        error, media, body, retry, request_id, layer = "", "", "", "", "", Layer.APPLICATION
        started = now()
        try:
            out = ask.outgoing(self.session, f"chaos-gate-{ask.key}")
            answer = await within(self.deadline, exchange(out, head=status.append), lambda: self.stall(started, now()))
        except (TimeoutError, h11.RemoteProtocolError, OSError) as exception:
            error = "unfinished" if status else classify(exception)
            layer = layer if status else Layer.NOBODY
        else:
            retry, request_id = answer.headers.get("retry-after", ""), answer.headers.get("x-request-id", "")
            media = answer.headers.get("content-type", "")
            layer = Layer.EDGE if EDGE_MARK in answer.headers else layer
            body = answer.text[:BODY_KEPT] if answer.status >= 400 else ""  # rel.error_schema looks at each
        finished = now()
        done = Operation(
            kind=Kind.INVALID,
            method=ask.method,
            path=ask.shown,
            sample=ask.key,
            started=started,
            finished=finished,
            planned=started,
            status=status[0] if status else None,
            error=error,
            expected="4xx",
            ok=bool(status) and 400 <= status[0] < 500,
            retry_after=retry,
            media_type=media,
            body=body,
            request_id=request_id,
            layer=layer,
            lag=self.stall(started, finished),
            row=row,
            client=phase,
        )
        self._note(ask, done)
        return done

    def _note(self, ask: Ask, done: Operation) -> None:
        self._silent = self._silent + 1 if done.status is None else 0
        self._limited = self._limited + 1 if done.status == 429 else 0
        if done.status is None:
            self._hung[ask.route] = self._hung.get(ask.route, 0) + 1
        if self._silent >= SILENT:
            self.stopped = f"{SILENT} requests in a row got no answer"
        elif self._limited >= LIMITED:
            self.stopped = f"{LIMITED} requests in a row were answered 429: the target limits their rate"

    def leaves(self, ask: Ask) -> bool:
        """Whether a request is not worth its deadline: its route has hung often enough."""
        return self._hung.get(ask.route, 0) >= PER_ROUTE

    async def observed(
        self, asks: Iterable[Ask], *, phase: str, moved: Callable[[], int], budget: float
    ) -> list[tuple[Operation, bool]]:
        """One after the other, each with whether the database's connections moved a byte meanwhile. Hangs cost none of the budget."""
        found = []
        until = now() + budget
        hangs = 0
        for ask in asks:
            if self.stopped or now() > until:
                self.stopped = self.stopped or f"there was no more time ({budget:.0f} s)"
                break
            if self.leaves(ask):
                continue
            before = moved()
            done = await self.send(ask, phase=phase)
            touched = moved() != before
            found.append((done, touched))
            if done.error == "timeout":
                until += done.finished - done.started
                hangs += 1
                if hangs >= HANGS:
                    self.stopped = f"{hangs} requests got no answer with nothing broken"
            if touched:
                await asyncio.sleep(0.005)  # what comes after its answer (a session given back) is still this request's
        return found

    async def replay(self, asks: Sequence[tuple[Ask, str]], *, phase: str, at_once: int, budget: float) -> list[Operation]:
        """All (with their `row`), at most `at_once` at the same time; no new ones after `budget` seconds, or when nobody answers."""
        left = iter(asks)
        done: list[Operation] = []
        until = now() + budget

        async def worker() -> None:
            for ask, row in left:
                if self.stopped or now() > until:
                    self.stopped = self.stopped or f"there was no more time ({budget:.0f} s)"
                    return
                if not self.leaves(ask):
                    done.append(await self.send(ask, phase=phase, row=row))

        await asyncio.gather(*(worker() for _ in range(at_once)))
        return done
