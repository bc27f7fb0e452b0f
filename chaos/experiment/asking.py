"""One request, and its answer with headers and JSON: what a comparison of releases needs beyond an Operation."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11

from chaos.experiment.claims import NOTHING
from chaos.model import Kind, Layer, Operation, now
from chaos.traffic.exchange import Answer, classify, exchange
from chaos.traffic.requests import EDGE_MARK, within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.traffic.driver import Driver
    from chaos.traffic.requests import Sample, Session

AGAIN, PAUSE = 3, 0.3  # how often, and how many seconds apart, one that cannot answer now is asked
PASSING = frozenset({425, 429, 502, 503, 504})  # of the moment, not of the contract (RFC 9110, 15.6; RFC 6585, 4)
LARGEST = 1 << 18  # bytes of JSON that are looked into


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`path` as it was sent, `media` the media type without parameters, `value` the JSON or NOTHING."""

    operation: Operation
    path: str = ""
    media: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    value: object = NOTHING

    @property
    def lasting(self) -> bool:
        """Whether it is an answer that the same request would get again."""
        return self.operation.status is not None and self.operation.status not in PASSING


def ask(driver: Driver, session: Session, sample: Sample, *, client: str, host: str = "") -> Asked:
    """Ask, and again for a while when the answer is of the moment; never raises for what the target does.

    `host` takes the place of the first allowed one.
    """
    for turn in range(AGAIN):
        found = _once(driver, session, sample, client, host)
        if found.operation.status is None or found.lasting:
            break
        time.sleep(PAUSE * (turn + 1))
    return found


def _once(driver: Driver, session: Session, sample: Sample, client: str, host: str) -> Asked:
    unique = uuid.uuid4().hex
    key = getattr(sample.request, "idempotency_header", None)
    request = session.build(sample.request, unique, ({key: unique} if key else {}) | ({"Host": host} if host else {}))
    answer, error = None, ""
    started = now()
    try:
        answer = driver.call(within(driver.deadline, exchange(request), lambda: driver.stalls.between(started, now())))
    except (TimeoutError, h11.ProtocolError, OSError) as exception:
        error = classify(exception)
    operation = _operation(sample, session, started, answer, error, client=client, unique=unique)
    if answer is None:
        return Asked(operation=operation)
    media = operation.media_type.partition(";")[0].strip().lower()
    path = request.url.removeprefix(session.base_url)
    return Asked(operation=operation, path=path, media=media, headers=answer.headers, value=_json(media, answer))


def _operation(
    sample: Sample, session: Session, started: float, answer: Answer | None, error: str, *, client: str, unique: str
) -> Operation:
    """As any other request is recorded. The kind is one that no check of an outage counts."""
    status = answer.status if answer else None
    edge = answer is not None and EDGE_MARK in answer.headers
    return Operation(
        kind=Kind.PREPARE,
        method=sample.request.method,
        path=sample.request.path,
        sample=sample.key,
        started=started,
        finished=now(),
        planned=started,
        status=status,
        error=error,
        expected=str(sample.request.expect),
        ok=status is not None and sample.request.accepts(status),
        unique=unique,
        media_type=answer.headers.get("content-type", "") if answer else "",
        body=session.kept(answer.text) if answer and answer.status >= 400 else "",
        request_id=answer.headers.get("x-request-id", "") if answer else "",
        layer=Layer.NOBODY if answer is None else Layer.EDGE if edge else Layer.APPLICATION,
        client=client,
    )


def _json(media: str, answer: Answer) -> object:
    if not (media == "application/json" or media.endswith("+json")) or len(answer.body) > LARGEST:
        return NOTHING
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        return NOTHING
