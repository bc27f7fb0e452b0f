"""One request of the corpus: bytes that are ready to be sent, why they deserve a 4xx, and how a person sends them again."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from chaos.traffic.exchange import Outgoing
from chaos.traffic.requests import URL_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.config import Request
    from chaos.traffic.requests import Session

SECRET = re.compile(
    r"authori[sz]ation|cookie|token|secret|passw|api[-_]?key|credential|signature|session|csrf|otp", re.IGNORECASE
)
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
FIELD = re.compile(r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?|")  # RFC 9110, 5.5
FRAMING = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "te", "trailer", "keep-alive"}
LONGEST = 200  # characters of a path that is shown
HIDDEN = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """`target` is path and query as they go out; `headers` only its own, the target's own ones come on top of nothing of them.

    `source` is 'listed' (chaos.toml), 'generated' (schemathesis), 'boundary' or 'recorded' (an access log); `key` such as
    'generated[17]'. `why` says from what it follows that it deserves a 4xx: 'listed', 'schema: ...' (the target's own description),
    'unstorable: ...' (no PostgreSQL can hold it), or '' when only the answers can tell. `route` is the operation. `request` is the
    entry of chaos.toml where it is one, which is built anew each time it is sent.
    """

    key: str
    source: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    why: str = ""
    route: str = ""
    request: Request | None = None

    @property
    def identity(self) -> tuple[object, ...]:
        """What two requests that are the same have in common."""
        return self.method, self.target, tuple(sorted((name.lower(), value) for name, value in self.headers)), self.body

    @property
    def shown(self) -> str:
        """The path, as people see it: no secrets, not too long."""
        path = hide_query(self.target)
        return path if len(path) <= LONGEST else f"{path[:LONGEST]}... ({len(self.target)} characters)"

    @property
    def size(self) -> int:
        """Bytes that are this request's own."""
        return len(self.target) + sum(len(name) + len(value) for name, value in self.headers) + len(self.body)

    def known(self) -> bool:
        """Whether HTTP/1.1 can carry it as it is: anything else is about the server's parser, which has checks of its own."""
        return bool(
            TOKEN.fullmatch(self.method)
            and self.target.startswith("/")
            and not self.target.startswith("//")
            and self.target.isascii()
            and all(
                TOKEN.fullmatch(name) and FIELD.fullmatch(value) and name.lower() not in FRAMING for name, value in self.headers
            )
        )

    def outgoing(self, session: Session, unique: str) -> Outgoing:
        """As it goes to the target of `session`: the suite's own headers, then its own."""
        if self.request is not None:
            return session.build(self.request, unique)
        own = {name.lower() for name, _ in self.headers}
        headers = {name: value for name, value in session.headers(unique).items() if name.lower() not in own}
        if not any(name.lower() == "host" for name in headers):
            headers = {"Host": urlsplit(session.base_url).netloc, **headers}
        return Outgoing(
            method=self.method,
            url=session.base_url.rstrip("/") + quote(self.target, safe=URL_CHARACTERS),
            headers={**headers, **dict(self.headers)},
            body=self.body,
        )


def settled(ask: Ask, session: Session) -> Ask:
    """An entry of chaos.toml as it goes out now: with its values filled in, so that it can be shown and made smaller."""
    if ask.request is None:
        return ask
    out = session.build(ask.request, "chaos-gate")
    common = {name.lower() for name in session.headers("")} | {"host"}
    own = tuple((name, value) for name, value in out.headers.items() if name.lower() not in common)
    parts = urlsplit(out.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    return replace(ask, request=None, target=target or "/", headers=own, body=out.body)


def curl(ask: Ask, session: Session, base_url: str = "") -> str:
    """The line that sends it again, secrets starred out; what is not text is written as printf has it."""
    out = ask.outgoing(session, "chaos-gate")
    words = ["curl", "-i", "-X", out.method]
    for name, value in out.headers.items():
        if name.lower() == "connection":
            continue
        words += ["-H", f"{name}: {HIDDEN if SECRET.search(name) else value}"]
    line = " ".join(shlex.quote(word) for word in words)
    url = shlex.quote(hide_query((base_url or session.base_url) + out.url.removeprefix(session.base_url)))
    if not out.body:
        return f"{line} {url}"
    if out.body.isascii() and b"\0" not in out.body:
        return f"{line} --data-binary {shlex.quote(out.body.decode())} {url}"
    escaped = "".join(chr(one) if 32 < one < 127 and chr(one) not in "\\%'" else f"\\{one:03o}" for one in out.body)
    return f"printf '{escaped}' | {line} --data-binary @- {url}"


def hide_query(url: str) -> str:
    """A URL without the values of parameters that are secrets by their names."""
    head, mark, query = url.partition("?")
    if not mark or not SECRET.search(query):
        return url
    pairs = (pair.partition("=") for pair in query.split("&"))
    return f"{head}?" + "&".join(f"{name}={HIDDEN}" if SECRET.search(name) else name + eq + value for name, eq, value in pairs)


def query_of(target: str) -> list[tuple[str, str]]:
    """The query's parameters as a server reads them."""
    return parse_qsl(urlsplit(target).query, keep_blank_values=True, errors="surrogateescape")


def with_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """In the form of `Ask.headers`, without what frames a message."""
    return tuple((name, value) for name, value in headers.items() if name.lower() not in FRAMING)
