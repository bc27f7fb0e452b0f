"""One request of chaos.toml, sent and recorded.

Every request opens a connection of its own (`Connection: close`): a server may close an idle keep-alive connection at any moment
(RFC 9112, 9.5), and the race with our next request would be counted against a healthy service.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import h11

from chaos.config import expand
from chaos.errors import TargetFailed
from chaos.model import Kind, Layer, Operation, now
from chaos.traffic.exchange import Outgoing, classify, exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from chaos.config import Prepare, Request, Target, Write

T = TypeVar("T")

BODY_KEPT = 4096  # characters of an error answer that are kept as evidence
LONG_KEPT = 32_768  # of the first LONG ones that are longer: enough to be read as a whole, and no evidence of gigabytes
LONG = 32
EDGE_MARK = "x-chaos-edge"
URL_CHARACTERS = "/?#[]@!$&'()*+,;=:%~"  # RFC 3986: what is encoded stays, what is not becomes so


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A request that can be sent again and again: `key` is its place in chaos.toml, such as 'read[0]'."""

    kind: Kind
    key: str
    request: Request


@dataclass(slots=True)
class Session:
    """What all requests to one address share: the target's headers and the values that `prepare` saved."""

    target: Target
    base_url: str
    values: dict[str, str] = field(default_factory=dict)
    extra_headers: dict[str, str] = field(default_factory=dict)
    long: int = LONG

    def kept(self, text: str) -> str:
        """As much of an error answer as goes into the evidence."""
        if len(text) <= BODY_KEPT or not self.long:
            return text[:BODY_KEPT]
        self.long -= 1
        return text[:LONG_KEPT]

    def headers(self, unique: str) -> dict[str, str]:
        """Host (the first allowed one) and [target].headers, placeholders filled in."""
        hosts = self.target.hosts
        named = {"Host": hosts.allowed[0]} if hosts and hosts.allowed else {}
        values = {**self.values, "unique": unique}
        return {**named, **expand(dict(self.target.headers), values), **self.extra_headers, "Connection": "close"}

    def build(self, request: Request, unique: str, more: Mapping[str, str] | None = None) -> Outgoing:
        """The HTTP request: {unique} and saved values filled in, JSON or form encoded. A path may be a whole URL."""
        values = {**self.values, "unique": unique}
        own = expand(dict(request.headers), values)
        body, media = b"", ""
        if request.json is not None:
            body, media = json.dumps(expand(request.json, values)).encode(), "application/json"
        elif request.form is not None:
            body, media = urlencode(expand(dict(request.form), values)).encode(), "application/x-www-form-urlencoded"
        elif request.body is not None:
            body = expand(request.body, values).encode()
        merged: dict[str, str] = {}
        typed = {"Content-Type": media} if media else {}
        for headers in (self.headers(unique), typed, own, more or {}):
            lowered = {name.lower() for name in headers}
            merged = {name: value for name, value in merged.items() if name.lower() not in lowered} | dict(headers)
        path = expand(request.path, values)
        url = quote(path if "://" in path else self.base_url + path, safe=URL_CHARACTERS)
        if not any(name.lower() == "host" for name in merged):
            merged = {"Host": urlsplit(url).netloc, **merged}  # RFC 9112 3.2: every request has one
        return Outgoing(
            method=request.method,
            url=url,
            headers=merged,
            body=body,
        )


async def send(
    session: Session,
    sample: Sample,
    *,
    deadline: float,
    unique: str = "",
    planned: float = 0.0,
    stall: Callable[[float, float], float] = lambda _a, _b: 0.0,
    headers: Mapping[str, str] | None = None,
    name: str = "",
    keep_body: bool = False,
) -> Operation:
    """Send one request and say what came of it; never raises for what the target did.

    `deadline` is in seconds for the whole exchange, not counting those in which this process itself was not running, as
    `stall(started, finished)` tells: on a busy machine, what never answers is waited for long enough to be told from what is slow.
    """
    unique = unique or uuid.uuid4().hex
    request = session.build(sample.request, unique, headers)
    status, error, media, body, retry, request_id, layer = None, "", "", "", "", "", Layer.APPLICATION
    text = ""
    started = now()
    try:
        answer = await within(deadline, exchange(request), lambda: stall(started, now()))
    except (TimeoutError, h11.RemoteProtocolError, OSError) as exception:
        error, layer = classify(exception), Layer.NOBODY
    else:
        status = answer.status
        text = answer.text
        retry = answer.headers.get("retry-after", "")
        request_id = answer.headers.get("x-request-id", "")
        media = answer.headers.get("content-type", "")
        if EDGE_MARK in answer.headers:
            layer = Layer.EDGE
        if status >= 400 or keep_body:
            body = session.kept(text)
    finished = now()
    expected = sample.request.accepts
    found, form = _found(sample.kind, text, unique) if status is not None and 200 <= status < 300 else (-1, "")
    return Operation(
        kind=sample.kind,
        method=request.method,
        path=sample.request.path,
        sample=sample.key,
        planned=planned or started,
        started=started,
        finished=finished,
        status=status,
        error=error,
        expected=str(sample.request.expect),
        ok=status is not None and expected(status),
        unique=unique,
        occurrences=found,
        row=form,
        retry_after=retry,
        media_type=media,
        body=body,
        request_id=request_id,
        layer=layer,
        lag=stall(started, finished),
        client=name,
    )


async def within(deadline: float, work: Coroutine[object, object, T], stalled: Callable[[], float]) -> T:
    """What `work` returns, or TimeoutError after `deadline` seconds plus those `stalled()` meanwhile (at most twice as many)."""
    started = now()
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            left = started + deadline + min(deadline, stalled()) - now()
            if left <= 0:
                raise TimeoutError
            await asyncio.wait({task}, timeout=left)
        return task.result()
    finally:
        task.cancel()


def _found(kind: Kind, text: str, unique: str) -> tuple[int, str]:
    """What a good answer holds: how often a write (to its read_back), how many records (to a read), else (-1, '')."""
    if kind is Kind.READ_BACK:
        return multiplicity(text, unique)
    return (records(text), "records") if kind is Kind.READ else (-1, "")


def records(text: str) -> int:
    """How many records an answer lists: the elements of a JSON array, or of the only one in an object; -1 when it is no list."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return -1
    lists = [value] if isinstance(value, list) else []
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list)]
    return len(lists[0]) if len(lists) == 1 else -1


def multiplicity(text: str, unique: str) -> tuple[int, str]:
    """How often a write is in the answer to its read_back, and how that was counted.

    'list': the answer is a JSON array, or an object with one array of objects, and the elements that hold `unique` are counted:
    more than one is a write that was applied twice. 'text': anything else, where the text is counted, which one write may fill
    more than once (a name and a link): only the comparison with a write in the steady state says something.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.count(unique), "text"
    members = value.values() if isinstance(value, dict) else ()
    lists = [value] if isinstance(value, list) else [one for one in members if isinstance(one, list)]
    records = [one for one in lists if one and all(isinstance(element, dict) for element in one)]
    if len(records) != 1:
        return text.count(unique), "text"
    return sum(unique in json.dumps(element) for element in records[0]), "list"


def read_back_sample(write: Write, key: str) -> Sample | None:
    """The request whose answer shows an acknowledged write of `key`."""
    from chaos.config import Request  # noqa: PLC0415  (the model is only needed where a target has writes)

    if not write.read_back:
        return None
    return Sample(kind=Kind.READ_BACK, key=f"{key}.read_back", request=Request(method="GET", path=write.read_back))


async def prepare(session: Session, requests: tuple[Prepare, ...], *, deadline: float) -> None:
    """Send [[target.prepare]] in order and save what it asks for; TargetFailed when one is not answered as expected."""
    for number, request in enumerate(requests):
        sample = Sample(kind=Kind.PREPARE, key=f"prepare[{number}]", request=request)
        done = await send(session, sample, deadline=deadline, keep_body=True)
        where = f"{request.method} {request.path} ({sample.key})"
        if not done.ok:
            raise TargetFailed(
                f"the target answered {done.status or done.error} where {done.expected} was expected",
                remedy="run the request by hand against a healthy target; mend it or its `expect` in chaos.toml",
                where=where,
                tail=tuple(done.body.splitlines()[:4]),
            )
        for name, pointer in request.save.items():
            session.values[name] = _pointed(done.body, pointer, where)


def _pointed(body: str, pointer: str, where: str) -> str:
    """The value that a JSON pointer (RFC 6901) names, as text."""
    try:
        value = json.loads(body)
        for token in pointer.split("/")[1:]:
            step = token.replace("~1", "/").replace("~0", "~")
            value = value[int(step)] if isinstance(value, list) else value[step]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise TargetFailed(
            f"the answer holds nothing at {pointer!r}",
            remedy="mend the JSON pointer in `save`, or the endpoint",
            where=where,
            tail=tuple(body.splitlines()[:4]),
        ) from error
    return value if isinstance(value, str) else json.dumps(value)
