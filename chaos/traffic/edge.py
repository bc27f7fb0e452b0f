"""Host validation through an edge: the catalogue over TLS, HTTP/1.1 as raw bytes and HTTP/2 as raw header lists.

Every request carries a header (`relay.ASK`) by which the relay behind the edge knows it again: so what the edge made of it, and whether
it asked the origin at all, is known from the wire and not from what answers look like.

Two operations of kind HOST a request. The client's own: as `chaos.traffic.hosts` records it, with `client` 'h1.17' (HTTP version,
number). The origin's, where the request got there: `client` 'wire.h1.17', `sample` the Host lines as they came (' | ' between two),
`unique` the host that was sent ('' for none, several, or one that is no name), and `error` the forwarding headers that an unknown
name came on in. It has no status: the answer is the client's, and counted there.
"""

from __future__ import annotations

import itertools
import re
import ssl
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from chaos.model import Kind, Layer, Operation, now
from chaos.traffic import host_requests, http2, layers
from chaos.traffic.host_names import Words, is_address
from chaos.traffic.host_requests import Asked
from chaos.traffic.hosts import AT_ONCE, recorded
from chaos.traffic.http2 import Http2Request
from chaos.traffic.raw import RawAnswer, exchange, exchange_many
from chaos.traffic.relay import ASK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from chaos.traffic.host_names import HostNames
    from chaos.traffic.relay import Exchange, Relay

VERSIONS = ("h1", "h2")
FORWARDING = (
    "x-forwarded-host",
    "forwarded",
    "x-host",
    "x-forwarded-server",
    "x-http-host-override",
    "x-original-host",
)
BUDGET = 60.0  # s for all that is asked over one HTTP version
_TOKEN = "@chaos-ask@"  # noqa: S105  (stands in a request for what its ASK header will say)
_DNS = re.compile(r"(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9.-]*[A-Za-z0-9-](?::\d{1,5})?")
_FIELD = re.compile(r"([!#-'*+.^_`|~0-9A-Za-z-]+):(.*)", re.DOTALL)
_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "upgrade", "trailer", "te"})  # RFC 9113, 8.2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Through:
    """One request through the edge: what it is (`asked`), over which HTTP version, and with which name in the handshake."""

    asked: Asked
    version: str
    sni: str
    mark: str
    sent: str = ""
    over_h2: tuple[Http2Request, ...] = ()


@dataclass(slots=True)
class Edge:
    """An edge with TLS at `address`, the relay behind it, and what is known of the origin's own answers."""

    address: tuple[str, int]
    relay: Relay
    learned: layers.Learned
    timeout: float = 5.0
    h1: ssl.SSLContext = field(default_factory=lambda: _context("http/1.1"))
    h2: ssl.SSLContext = field(default_factory=http2.context)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, one: Through, sni: str | None = None) -> RawAnswer:
        """The answer to it, to its last request where others go before it on the connection."""
        limit = min(self.timeout, one.asked.wait)
        name = one.sni if sni is None else sni
        if one.version == "h2":
            return http2.exchange_many(self.address, one.over_h2, timeout=limit, context=self.h2, server_name=name)[-1]
        requests = (*one.asked.before, one.asked.request)
        return exchange_many(self.address, requests, timeout=limit, context=self.h1, server_name=name)[-1]

    def ask_raw(self, request: bytes, name: str) -> tuple[RawAnswer, Layer]:
        """The answer to one HTTP/1.1 request with the words' headers, with `name` in the handshake; and who gave it."""
        mark = f"raw.{next(self._numbers)}"
        marked = request.replace(_TOKEN.encode(), mark.encode())
        sni = "" if is_address(name) else name
        answer = exchange(self.address, marked, timeout=self.timeout, context=self.h1, server_name=sni)
        return answer, _layer(answer, self.relay.exchange(mark), self.learned)


def _context(protocol: str) -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE  # what is judged here is Host, not the edge's certificate
    made.set_alpn_protocols([protocol])
    return made


def speaks_h2(edge: Edge, name: str) -> bool:
    """Whether the edge takes HTTP/2 when it is offered (ALPN)."""
    request = Http2Request(headers=((":method", "GET"), (":scheme", "https"), (":authority", name), (":path", "/")))
    answer = http2.exchange_many(edge.address, (request,), timeout=edge.timeout, context=edge.h2, server_name=name)[0]
    return answer.error != "no h2"


# -- what is asked ----------------------------------------------------------------------------------------------------------------


def words_for(
    hosts: HostNames,
    *,
    seed: int,
    path: str,
    headers: Sequence[tuple[str, str]],
    others: Sequence[str] = (),
    health: Sequence[str] = (),
) -> Words:
    """The catalogue's placeholders, with the header by which the relay knows each request among the target's own."""
    marked = ((ASK, _TOKEN), *headers)
    return Words(hosts, seed=seed, path=path, headers=marked, others=tuple(others), health=tuple(health))


def plan(words: Words, version: str, per_class: int) -> list[Through]:
    """All that is asked over one HTTP version: listed hosts, the catalogue, what only an edge can be asked, generated names."""
    numbers = itertools.count()

    def said(asked: Iterable[Asked]) -> list[Through]:
        return [one for each in asked if (one := _through(each, version, next(numbers), words)) is not None]

    found = said([*host_requests.listed(words), *host_requests.rows(words)])
    # HTTP/2 has no word for some of a class: enough of them are made for the others to fill it.
    kinds: Counter[str] = Counter()
    for one in said(host_requests.generated(words, per_class if version == "h1" else 2 * per_class)):
        kinds[kind := host_requests.catalogue()[one.asked.row]["class"]] += 1
        found += [one] if kinds[kind] <= per_class else []
    found += _own(words, version, numbers, per_class)
    return [*found, replace(found[0], mark=f"{version}.{next(numbers)}")]  # the control, again


def _through(asked: Asked, version: str, number: int, words: Words) -> Through | None:
    """A request of the catalogue as it goes to the edge; None for one that HTTP/2 cannot express."""
    sent = _single_host(asked.request)
    name = sent.partition(":")[0].lower()
    one = Through(
        asked=asked,
        version=version,
        sni=name if _DNS.fullmatch(name) and not is_address(name) and not asked.before else _sni(words),
        mark=f"{version}.{number}",
        sent=sent if _NAME.fullmatch(sent) else "",
    )
    if version == "h1":
        return one
    pairs = [as_http2(request) for request in (*asked.before, asked.request)]
    return None if None in pairs else replace(one, over_h2=tuple(pair for pair in pairs if pair is not None))


def _sni(words: Words) -> str:
    return words.g if _DNS.fullmatch(words.g) and not is_address(words.g) else ""


def _single_host(request: bytes) -> str:
    """The value of the only Host line of a request in origin form; '' when there is none, or several, or it is spelt in an odd way."""
    start, *lines = request.partition(b"\r\n\r\n")[0].decode("utf-8", "replace").split("\r\n")
    found = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("host:")]
    odd = any(line[:1] in {" ", "\t"} or line.lower().startswith("host ") for line in lines) or " /" not in start
    return found[0] if len(found) == 1 and not odd else ""


def as_http2(request: bytes) -> Http2Request | None:
    """An HTTP/1.1 request as HTTP/2 says it; None where the two have no word for the same (two Host lines, absolute form, ...).

    Host becomes :authority; what belongs to an HTTP/1.1 connection is left out (RFC 9113, 8.2.2 and 8.3.1); a body and a trailer stay.
    """
    head, ended, body = request.partition(b"\r\n\r\n")
    start, *lines = head.decode("utf-8", "replace").split("\r\n")
    method, _, rest = start.partition(" ")
    target, _, protocol = rest.rpartition(" ")
    fields = [_FIELD.fullmatch(line) for line in lines]
    if not ended or protocol != "HTTP/1.1" or not target.startswith("/") or " " in target or None in fields:
        return None
    pairs = [(found[1].lower(), found[2].removeprefix(" ")) for found in fields if found is not None]
    hosts = [value for name, value in pairs if name == "host"]
    if len(hosts) > 1 or "upgrade" in dict(pairs) or any(value != value.strip(" \t") for value in hosts):
        return None
    pseudo = [(":method", method), (":scheme", "https"), *((":authority", value) for value in hosts), (":path", target)]
    kept = [(name, value) for name, value in pairs if name not in _HOP | {"host"}]
    if "transfer-encoding" not in dict(pairs):
        return Http2Request(headers=(*pseudo, *kept), body=body)
    size, *ending = body.decode("utf-8", "replace").split("\r\n")
    trailers = [_FIELD.fullmatch(line) for line in ending if line]
    if size != "0":
        return None  # no row has a chunked body that holds anything
    named = tuple((found[1].lower(), found[2].strip()) for found in trailers if found is not None)
    return Http2Request(headers=(*pseudo, *kept), trailers=named)


@cache
def _catalogue() -> Mapping[str, Mapping[str, Any]]:
    """edge.toml: row id -> its table. Any stands for the values of TOML."""
    return tomllib.loads(files("chaos").joinpath("checks", "edge.toml").read_text(encoding="utf-8"))


def _own(words: Words, version: str, numbers: Iterator[int], per_class: int) -> Iterator[Through]:
    """The rows of edge.toml, and as many more of SNI1 as the class is to have."""
    rows = [(key, row) for key, row in _catalogue().items() if version in row["over"]]
    again = [("SNI1", _catalogue()["SNI1"])] * max(0, per_class - 1)
    others = [name for _, name in words.hosts.served() if "*" not in name and name.lower() != words.hosts.allowed[0].lower()]
    for key, row in [*rows, *again]:
        values = {"g": words.g, "g2": (others or [""])[0], "e": words.evil()}
        lines = {name: [_filled(one, values) for one in row.get(name, ())] for name in ("authority", "host", "more")}
        if "" in (*lines["authority"], *lines["host"]):
            continue
        if version == "h1" and not lines["authority"]:
            continue
        sni = _filled(row.get("sni", ""), values) or _sni(words)
        asked, over_h2 = _edge_row(key, row, lines, words, (values["e"], sni))
        single = [*lines["authority"], *lines["host"]]
        yield Through(
            asked=asked,
            version=version,
            sni=sni,
            mark=f"{version}.{next(numbers)}",
            sent=single[0] if len(single) == 1 else "",
            over_h2=over_h2,
        )


def _edge_row(
    key: str, row: Mapping[str, Any], lines: Mapping[str, Sequence[str]], words: Words, names: tuple[str, str]
) -> tuple[Asked, tuple[Http2Request, ...]]:
    """A row of edge.toml as bytes, and as header lists; `names` are the unknown host and the one in the handshake."""
    e, sni = names
    evil = e if e in " ".join((*lines["authority"], *lines["host"], *lines["more"])).split() else ""
    path = f"/chaos-{words.label()}" if row.get("fresh") else words.path
    more = [(name.lower(), value) for name, _, value in (one.partition(": ") for one in lines["more"])]
    own = [(ASK, _TOKEN), *((n, v) for n, v in words.headers if n != ASK), ("user-agent", host_requests.USER_AGENT)]
    own = [*more, *((name.lower(), value) for name, value in own)]
    told = [f":authority {one}" for one in lines["authority"]] + [f"Host: {one}" for one in lines["host"]]
    pseudo = [(":method", "GET"), (":scheme", "https"), *((":authority", one) for one in lines["authority"])]
    over_h2 = Http2Request(headers=(*pseudo, (":path", path), *(("host", one) for one in lines["host"]), *own))
    good = Http2Request(headers=(*pseudo[:2], (":authority", words.g), (":path", path), *own))
    plain = "".join(f"{name}: {value}\r\n" for name, value in own)
    request, first = (
        f"GET {path} HTTP/1.1\r\n{hosts}{plain}{ending}\r\n".encode()
        for hosts, ending in (
            ("".join(f"Host: {one}\r\n" for one in lines["authority"]), "Connection: close\r\n"),
            (f"Host: {words.g}\r\n", ""),
        )
    )
    before = bool(row.get("before"))
    asked = Asked(
        row=key,
        request=request,
        sample="; ".join([f"SNI {sni or 'none'}", *told, *lines["more"], *(["second request"] if before else [])]),
        method="GET",
        path=path,
        target=path,
        expected={"refuse": "400", "serve": "2xx"}.get(row["must"], ""),
        evil=evil,
        before=(first,) if before else (),
    )
    return asked, (good, over_h2) if before else (over_h2,)


def _filled(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], template)


def _marked(one: Through) -> Through:
    """The request with its own mark in place of the token; those before it on the connection carry none that anybody looks for."""
    mark, other = one.mark.encode(), f"{one.mark}.before".encode()
    token = _TOKEN.encode()
    asked = replace(
        one.asked,
        request=one.asked.request.replace(token, mark),
        before=tuple(request.replace(token, other) for request in one.asked.before),
    )
    last = len(one.over_h2) - 1
    over_h2 = tuple(
        replace(
            request,
            headers=tuple((n, v.replace(_TOKEN, one.mark if at == last else f"{one.mark}.before")) for n, v in request.headers),
        )
        for at, request in enumerate(one.over_h2)
    )
    return replace(one, asked=asked, over_h2=over_h2)


# -- asking -----------------------------------------------------------------------------------------------------------------------


def observe(edge: Edge, words: Words, version: str, *, per_class: int) -> tuple[Operation, ...]:
    """Ask everything over one HTTP version, the good request first and last. When the first gets no answer, nothing else is asked.

    Where the edge makes no handshake for an unknown name, the request is sent with the listed one in it: what is judged is Host.
    """
    requests = [_marked(one) for one in plan(words, version, per_class)]
    until = now() + BUDGET

    def ask(one: Through) -> tuple[Through, RawAnswer]:
        if now() > until:
            return one, RawAnswer(error="unsent")
        answer = edge.ask(one)
        if answer.error in {"tls", "reset"} and answer.status is None and one.sni != _sni(words) and one.asked.row != "SNI2":
            told = replace(one.asked, sample=f"{one.asked.sample}; SNI {words.g}, for there is no handshake with its own")
            return replace(one, asked=told), edge.ask(one, sni=_sni(words))
        return one, answer

    first = ask(requests[0])
    if first[1].status is None:
        return _operations(edge, [first])
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="edge") as pool:
        rest = list(pool.map(ask, requests[1:-1]))
    asked = (first, *rest, (requests[-1], edge.ask(requests[-1])))
    return _operations(edge, [(one, answer) for one, answer in asked if answer.error != "unsent"])


def _operations(edge: Edge, answers: Sequence[tuple[Through, RawAnswer]]) -> tuple[Operation, ...]:
    seen = edge.relay.asked()
    found: list[Operation] = []
    for one, answer in answers:
        there = seen.get(one.mark)
        done = recorded(one.asked, answer, edge.learned)
        found.append(replace(done, client=one.mark, layer=_layer(answer, there, edge.learned)))
        if there is not None:
            found.append(_wire(one, there))
    return tuple(found)


def _layer(answer: RawAnswer, seen: Exchange | None, learned: layers.Learned) -> Layer:
    """Who gave the answer: the edge, where the origin was not asked or had said something else."""
    if answer.status is None:
        return Layer.NOBODY
    if seen is None:
        return Layer.EDGE
    origin = seen.answered()
    if origin.status != answer.status or origin.media_type != answer.media_type:
        return Layer.EDGE
    start = min(len(origin.body), len(answer.body), 512)
    if answer.status >= 400 and origin.body[:start] != answer.body[:start]:
        return Layer.EDGE
    return learned.layer(origin)


def _wire(one: Through, there: Exchange) -> Operation:
    """What the origin saw of a request."""
    evil = one.asked.evil.lower()
    carried = [name for name in FORWARDING if evil and any(evil in _last(value) for value in there.values(name)[-1:])]
    return Operation(
        kind=Kind.HOST,
        method=one.asked.method,
        path=one.asked.path,
        sample=" | ".join(there.values("host"))[:300],
        started=there.started,
        finished=there.finished,
        error=", ".join(carried),
        unique=one.sent,
        layer=Layer.NOBODY,
        row=one.asked.row,
        client=f"wire.{one.mark}",
    )


def _last(value: str) -> str:
    """The last element of a list: what the nearest hop said (RFC 7239, 4)."""
    return value.rpartition(",")[2].lower()


def own_forwarding(operations: Sequence[Operation], relay: Relay) -> str:
    """The forwarding headers that the edge itself puts on a request that came without any, ', ' between them."""
    seen = relay.asked()
    first = next((one.client for one in operations if one.row == "H61" and one.client in seen), "")
    return ", ".join(name for name in FORWARDING if first and name in seen[first].names)


__all__ = ["Edge", "Through", "as_http2", "observe", "own_forwarding", "plan", "speaks_h2", "words_for"]
