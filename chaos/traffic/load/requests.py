"""The requests of the mix as the sender has them: bytes with marks in them, and what became of each."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.model import Kind, Layer, Operation
from chaos.traffic.load.crawl import LARGEST, PAGE, Crawl, Step
from chaos.traffic.load.plan import HOST, SEO, UNIQUE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.traffic.load.client import Answer

BODY_KEPT = 4096  # bytes of an error answer
EDGE_MARK = "x-chaos-edge"
To = tuple[str, str, int]  # scheme, host, port


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request of the mix, ready to be sent."""

    key: str
    kind: Kind
    method: str
    path: str
    expected: str
    accepts: tuple[tuple[int, int], ...]
    wire: bytes
    to: To

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Order:
        """From the orders' JSON (chaos.traffic.load.plan)."""
        scheme, host, port = told["to"]
        return cls(
            key=told["key"],
            kind=Kind(told["kind"]),
            method=told["method"],
            path=told["path"],
            expected=told["expected"],
            accepts=tuple((low, high) for low, high in told["accepts"]),
            wire=told["wire"].encode("latin-1"),
            to=(scheme, host, int(port)),
        )


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request: `wire` is what is sent, `kept` how much of the answer's body is looked at. Times are the run's."""

    order: Order
    planned: float
    wire: bytes
    kept: int = BODY_KEPT
    unique: str = ""
    step: Step | None = None
    started: float = 0.0
    finished: float = 0.0
    good: bool = False


class Requests:
    """Makes the requests of the mix, and says what became of them."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        self.orders = tuple(Order.of(one) for one in orders["requests"])
        self.weights = [float(one["weight"]) for one in orders["requests"]]
        self._private: dict[str, str] = orders["private"]
        self._unknown: list[str] = orders["unknown"]
        self._stranger = 0
        self._dice = random.Random(orders["seed"] + 1)  # noqa: S311
        self._header: str = orders["release_header"]
        self._releases: dict[str, str] = orders["releases"]
        seo = orders["seo"]
        self._crawl = Crawl(hosts=seo["hosts"], patterns=seo["patterns"], agent=seo["agent"]) if seo["hosts"] else None

    def make(self, which: int, planned: float, now: float) -> Asked:
        """The request that is due, with its own host, path and {unique}."""
        order = self.orders[which]
        if order.key == SEO and self._crawl is not None:
            step = self._crawl.next(now)
            wire = order.wire.replace(f"/{UNIQUE}".encode(), step.path.encode("ascii", "replace"), 1)
            wire = wire.replace(HOST.encode(), step.site.host.encode("ascii", "replace"))
            return Asked(order=order, planned=planned, wire=wire, step=step, kept=BODY_KEPT if step.what == PAGE else LARGEST)
        wire = order.wire
        if order.kind is Kind.HOST:
            self._stranger = (self._stranger + 1) % len(self._unknown)
            wire = wire.replace(HOST.encode(), self._unknown[self._stranger].encode("ascii", "replace"))
        # A write's is nobody else's, also when the same seed is used again on the same database.
        unique = uuid.uuid4().hex if order.kind is Kind.WRITE else f"{self._dice.getrandbits(128):032x}"
        return Asked(order=order, planned=planned, wire=wire.replace(UNIQUE.encode(), unique.encode()), unique=unique)

    def judge(self, asked: Asked, answer: Answer) -> None:
        """Whether the answer is a healthy one; a crawler learns from it."""
        status = answer.status
        if asked.step is not None and self._crawl is not None:
            asked.good = self._crawl.done(asked.step, status, answer.headers, answer.body, asked.finished)
        else:
            asked.good = status is not None and any(low <= status <= high for low, high in asked.order.accepts)

    def release(self, answer: Answer) -> str:
        """Who gave it; '' where that is not known."""
        said = answer.headers.get(self._header, "") if self._header else ""
        return self._releases.get(said, "" if self._releases else said)

    def operation(self, asked: Asked, answer: Answer) -> Operation:
        """As it is kept, without secrets."""
        order, body = asked.order, ""
        if answer.status is not None and answer.status >= 400:
            body = answer.body[:BODY_KEPT].decode("utf-8", "replace")
            for secret, instead in self._private.items():
                body = body.replace(secret, instead)
        return Operation(
            kind=order.kind,
            method=order.method,
            path=asked.step.path if asked.step else order.path,
            sample=order.key,
            planned=asked.planned,
            started=asked.started,
            finished=asked.finished,
            status=answer.status,
            error=answer.error,
            expected=order.expected,
            ok=asked.good,
            unique=asked.unique if order.kind is Kind.WRITE else "",
            retry_after=answer.headers.get("retry-after", ""),
            media_type=answer.headers.get("content-type", ""),
            body=body,
            request_id=answer.headers.get("x-request-id", ""),
            layer=Layer.NOBODY if answer.status is None else Layer.EDGE if EDGE_MARK in answer.headers else Layer.APPLICATION,
            client="load",
        )
