"""Requests that can be found again in a log: each with ids of its own, some with private values in every place that a request has.

What a target logs of them is read elsewhere. These requests are no operations: many of them are wrong on purpose.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import h11

from chaos.config import Request, expand
from chaos.traffic.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.config import Target
    from chaos.traffic.requests import Session

AT_ONCE = 4
REFUSED = 8  # hosts that nobody serves
ID_HEADERS = ("x-request-id", "request-id", "x-correlation-id", "correlation-id", "x-trace-id", "trace-id", "x-amzn-requestid")
ID_MEMBERS = {"requestid", "correlationid", "traceid"}
FORGED = '","forged":"yes","x":"'  # what breaks out of a JSON string that was put together by hand
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_FRAMING = frozenset({"host", "connection", "content-length", "content-type", "transfer-encoding"})
CRAWLER = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A request to be sent once. `private` are (name, where, core) of what it holds.

    `kind`: 'good', 'hosted' (good under another host that is listed), 'invalid', 'refused', 'planted', 'forged', 'crawled'.
    """

    kind: str
    request: Request
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    private: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What came of it. `ours` are the ids that we sent, `told` those that the answer gave; `status` None without an answer."""

    marked: Marked
    host: str
    path: str
    ours: tuple[str, ...]
    told: tuple[str, ...] = ()
    status: int | None = None


def core() -> str:
    """24 hexadecimal digits that nobody else has."""
    return secrets.token_hex(12)


def value_for(name: str, digits: str) -> str:
    """A value that looks as one of this name does."""
    low = name.lower()
    if "mail" in low:
        return f"{digits}@private.example"
    return f"Bearer {digits}" if low.endswith("authorization") else f"session={digits}" if low == "cookie" else digits


def ordinary(target: Target) -> list[Marked]:
    """Reads and writes as they are, reads under every other host that is listed, and requests that deserve a 4xx."""
    made = [Marked(kind="good", request=one) for one in (*target.read, *target.read, *target.write)]
    for pattern in _other_hosts(target):
        name = pattern.replace("*", f"logs-{secrets.token_hex(4)}", 1)
        made.append(Marked(kind="hosted", request=target.read[0], host=name))
    return made + [Marked(kind="invalid", request=one) for one in target.invalid]


def _other_hosts(target: Target) -> list[str]:
    hosts = target.hosts
    if hosts is None:
        return []
    return [*hosts.allowed[1:3], *hosts.seo[:1], *hosts.preview[:1], *hosts.staging[:1], *hosts.crawler[:1]]


def refused(target: Target, count: int = REFUSED) -> list[Marked]:
    """The first read under hosts that nobody serves; nothing without [target.hosts]."""
    if target.hosts is None:
        return []
    return [
        Marked(kind="refused", request=target.read[0], host=f"x{secrets.token_hex(6)}.chaos-gate.example") for _ in range(count)
    ]


def forged(target: Target) -> Marked:
    """A read whose headers try to write members of their own into the line."""
    return Marked(
        kind="forged", request=target.read[0], headers={"User-Agent": FORGED, "Referer": FORGED, "X-Request-ID": FORGED}
    )


def planted(target: Target, names: Iterable[str]) -> list[Marked]:
    """For each private name a value in a header, in the query, in JSON (also broken JSON) and in a form.

    What is a header by its nature (Authorization, Cookie) is sent as one only.
    """
    read = target.read[0]
    written = next((one for one in target.write if isinstance(one.json, dict)), None)
    posted = next((one for one in target.write if one.form is not None), None)
    place = next((one.path for one in target.write), read.path.partition("?")[0])
    made = []
    for name in dict.fromkeys(one.rpartition(".")[2] for one in names):
        header, query, inside, form, broken = (core() for _ in range(5))
        told = {where: (name, where, digits) for where, digits in (("header", header), ("query", query), ("form", form))}
        if _TOKEN.fullmatch(name) and name.lower() not in _FRAMING:
            made.append(Marked(kind="planted", request=read, headers={name: value_for(name, header)}, private=(told["header"],)))
        if name.lower() in SECRET_NAMES:
            continue
        mark = "&" if "?" in read.path else "?"
        asked = read.model_copy(update={"path": f"{read.path}{mark}{name}={value_for(name, query)}"})
        made.append(Marked(kind="planted", request=asked, private=(told["query"],)))
        document = _with(written.json if written else {}, name, value_for(name, inside))
        made.append(_posting(written, place, {"json_body": document}, (name, "JSON body", inside)))
        filled = {**dict(posted.form or {}), name: value_for(name, form)} if posted else {name: value_for(name, form)}
        made.append(_posting(posted, place, {"form": filled}, told["form"]))
        text = '{"' + name + '": "' + value_for(name, broken) + '", '
        made.append(_posting(None, place, {"body": text}, (name, "body that is no JSON", broken), "application/json"))
    return made


def _posting(
    write: Request | None, place: str, body: Mapping[str, Any], private: tuple[str, str, str], media: str = ""
) -> Marked:
    empty = {"json_body": None, "form": None, "body": None}
    base = write or Request(method="POST", path=place)
    key = getattr(write, "idempotency_header", None)
    headers = ({key: uuid.uuid4().hex} if key else {}) | ({"Content-Type": media} if media else {})
    return Marked(kind="planted", request=base.model_copy(update={**empty, **body}), headers=headers, private=(private,))


def _with(document: Any, name: str, value: str) -> Any:
    """The document with `value` wherever a member has that name, else as one more member."""

    def replaced(one: Any) -> tuple[Any, bool]:
        if isinstance(one, dict):
            parts = {key: (value, True) if key.lower() == name.lower() else replaced(item) for key, item in one.items()}
            return {key: part[0] for key, part in parts.items()}, any(part[1] for part in parts.values())
        return one, False

    made, found = replaced(document)
    return made if found else {**made, name: value}


async def _ask(session: Session, marked: Marked, deadline: float) -> Sent:
    """Send it, and say which ids it went and came back with; never raises for what the target did."""
    request_id, trace = str(uuid.uuid4()), uuid.uuid4().hex
    unique = uuid.uuid4().hex
    own = {"X-Request-ID": request_id, "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}  # W3C Trace Context, 3.2
    key = getattr(marked.request, "idempotency_header", None)
    more = own | ({key: unique} if key else {}) | dict(marked.headers) | ({"Host": marked.host} if marked.host else {})
    going = session.build(marked.request, unique, more)
    sent = Sent(
        marked=marked,
        host=next(value for name, value in going.headers.items() if name.lower() == "host"),
        path=urlsplit(going.url).path,
        ours=(request_id, trace) if "X-Request-ID" not in marked.headers else (trace,),
    )
    try:
        answer = await asyncio.wait_for(exchange(going), deadline)
    except (TimeoutError, h11.ProtocolError, OSError):
        return sent
    told = [answer.headers[name] for name in ID_HEADERS if answer.headers.get(name)]
    return replace(sent, status=answer.status, told=tuple(dict.fromkeys((*told, *_told(answer.text)))))


def _told(text: str) -> list[str]:
    """The ids that an error's body gives."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return []
    parts = [body, *(one for one in body.values() if isinstance(one, dict))] if isinstance(body, dict) else []
    return [
        value
        for part in parts
        for name, value in part.items()
        if name.lower().replace("_", "").replace("-", "") in ID_MEMBERS and isinstance(value, str) and value
    ]


async def send_all(session: Session, requests: Sequence[Marked], *, deadline: float) -> list[Sent]:
    """All of them, a few at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(marked: Marked) -> Sent:
        async with gate:
            return await _ask(session, marked, deadline)

    return list(await asyncio.gather(*(one(marked) for marked in requests)))


SECRET_NAMES = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token", "x-access-token"}
)
SECRET_MEMBERS = frozenset({"password", "passwd", "secret", "client_secret", "token", "refresh_token"})


def given_secrets(session: Session) -> list[tuple[str, str]]:
    """(name, text) of what the configured requests carry and nobody should log: tokens, keys, passwords."""
    target = session.target
    found: list[tuple[str, str]] = []
    for request in (None, *target.prepare, *target.read, *target.write):
        headers = dict(target.headers) if request is None else dict(request.headers)
        for name, value in expand(headers, session.values).items():
            if name.lower() in SECRET_NAMES:
                found.append((name, value.rpartition(" ")[2]))
    for request in target.prepare:
        members = request.json if isinstance(request.json, dict) else request.form or {}
        found += [
            (name, text)
            for name, value in members.items()
            if name.lower() in SECRET_MEMBERS and isinstance(value, str) and "{" not in (text := expand(value, session.values))
        ]
    return list(dict.fromkeys((name, text) for name, text in found if "{" not in text))
