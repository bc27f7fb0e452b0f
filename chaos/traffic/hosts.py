"""Host validation, asked as raw bytes: every row of the catalogue, and as many generated hosts as a rate needs.

What is asked is data (chaos/checks/hosts.toml, whose head explains the keys); what the answers come to is judged elsewhere, from
the operations recorded here. Of an operation of kind HOST: `row` is the catalogue's, `sample` says what was sent, `unique` is the
evil name in it, and `error` beside a status tells where that name came back ('reflected in location: https://...').

A row asks what it asks on the first read's path, with the target's own headers, on a connection of its own. Hosts for health
checks are asked on the health paths only. At most four requests are under way at once.
"""

from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from chaos.model import Kind, Layer, Operation, now
from chaos.traffic import host_smallest, layers
from chaos.traffic.host_names import HostNames, Sent, Words
from chaos.traffic.host_reflection import reflected
from chaos.traffic.host_requests import Asked, generated, listed, rows, simple
from chaos.traffic.raw import RawAnswer, exchange_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chaos.config import Target
    from chaos.traffic.requests import Session

AT_ONCE = 4
KEPT = 4096  # characters of an error's body that are kept
MOST = 6  # writes, and invalid requests, that are tried with an unknown host
_FRAMING = frozenset({"host", "connection", "content-length", "transfer-encoding"})
PATIENCE = 8  # unanswered requests after which no more are generated: the rest would take `timeout` each and say the same
BUDGET = 30.0  # seconds for the generated requests together


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where raw requests go. `context` for TLS, with `server_name` as SNI."""

    address: tuple[str, int]
    timeout: float = 5.0
    context: ssl.SSLContext | None = None
    server_name: str = ""

    def ask(self, asked: Asked) -> RawAnswer:
        """The answer to `asked`; to its last request when others go before it on the same connection."""
        requests = (*asked.before, asked.request)
        answers = exchange_many(
            self.address, requests, timeout=min(self.timeout, asked.wait), context=self.context, server_name=self.server_name
        )
        return answers[-1]


def probe(
    address: tuple[str, int],
    hosts: HostNames,
    *,
    path: str,
    headers: Iterable[tuple[str, str]] = (),
    seed: int = 0,
    per_class: int = 320,
    timeout: float = 5.0,
    learned: layers.Learned | None = None,
    others: Sequence[str] = (),
    health: Sequence[str] = (),
    known: Mapping[str, Sequence[str]] | None = None,
    writes: Callable[[str], tuple[Sent, ...]] = lambda _unique: (),
    facts: dict[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> list[Operation]:
    """Ask every row, every listed host, and `per_class` generated hosts of each class that is judged as a rate.

    `path` is one that the first of hosts.allowed gets a 2xx for; `others` are further paths that it may read; `health` the health
    paths, and `known` has more of them: 'invalid' (what no answer but a 4xx is due to), 'ops' (live, ready, metrics) and 'document'
    (the API's description). `writes` makes the writes that are tried, for a text of their own. What shows a wrong answer again goes
    to `facts` (see host_smallest). The first and the last operation are the same good request: the control. When that gets no
    answer, nothing else is asked. `timeout` is in seconds, for each request. Raises nothing for what the target does.
    """
    more_paths = {name: tuple(paths) for name, paths in (known or {}).items()}
    words = Words(
        hosts,
        seed=seed,
        path=path,
        headers=tuple(headers),
        others=tuple(others),
        health=tuple(health),
        writes=writes,
        **more_paths,
    )
    origin = Origin(address=address, timeout=timeout, context=context, server_name=words.g)
    shapes = learned or layers.Learned()
    plan = [*listed(words), *rows(words)]
    control = _record(plan[0], origin.ask(plan[0]), shapes)
    if control.status is None:
        return [control]
    more = _Patience(origin)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hosts") as pool:
        first = list(pool.map(origin.ask, plan[1:]))
        extra = generated(words, per_class)
        then = list(pool.map(more.ask, extra))
    pairs = [
        (asked, _record(asked, answer, shapes))
        for asked, answer in [*zip(plan[1:], first, strict=True), *zip(extra, then, strict=True)]
        if answer is not None and answer.error != "unsent"
    ]
    if facts is not None:

        def again(row: str, host: str) -> tuple[Asked, Operation]:
            asked = simple(row, host, words.path, words, evil="" if row == "H10b" else host)
            return asked, _record(asked, origin.ask(asked), shapes)

        facts |= host_smallest.facts(pairs, words, again, address, tls=context is not None)
    return [control, *(done for _, done in pairs), _record(plan[0], origin.ask(plan[0]), shapes)]


def observe(
    target: Target,
    session: Session,
    *,
    address: tuple[str, int],
    seed: int,
    per_class: int = 320,
    timeout: float = 5.0,
    facts: dict[str, str] | None = None,
) -> tuple[Operation, ...]:
    """`probe` for a target as chaos.toml describes it: its hosts, reads' paths and headers. Nothing without [target.hosts]."""
    if target.hosts is None:
        return ()
    from chaos.config import expand  # noqa: PLC0415  (the model is heavy, and `probe` needs none of it)

    names = HostNames(
        allowed=target.hosts.allowed,
        seo=target.hosts.seo,
        preview=target.hosts.preview,
        staging=target.hosts.staging,
        crawler=target.hosts.crawler,
        health=target.hosts.health,
    )
    reads = [one for one in target.read if one.method == "GET" and one.path.startswith("/")]
    paths = [_path(expand(one.path, {**session.values, "unique": "chaos"})) for one in reads] or ["/"]
    own = session.headers("chaos") | (expand(dict(reads[0].headers), session.values) if reads else {})
    headers = tuple((name, value) for name, value in own.items() if name.lower() not in {"host", "connection"})
    context = None
    if urlsplit(session.base_url).scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what is judged here is Host, not the edge's TLS
    learned = layers.learn(address, host=names.allowed[0], path=paths[0], headers=headers, timeout=timeout, context=context)
    return tuple(
        probe(
            address,
            names,
            path=paths[0],
            headers=headers,
            seed=seed,
            per_class=per_class,
            timeout=timeout,
            learned=learned,
            others=tuple(dict.fromkeys(paths[1:])),
            health=_here(target.live, target.ready),
            known=_known(target, session),
            writes=lambda unique: _writes(target, session, unique),
            facts=facts,
            context=context,
        )
    )


def _here(*paths: str | None) -> tuple[str, ...]:
    """Those that are paths on the target's own address, each once."""
    return tuple(dict.fromkeys(_path(one) for one in paths if one and one.startswith("/")))


def _known(target: Target, session: Session) -> dict[str, tuple[str, ...]]:
    """All other paths that chaos.toml names, by what they are for."""
    from chaos.config import expand  # noqa: PLC0415  (as above)

    invalid = [one.path for one in target.invalid if one.method == "GET"]
    return {
        "invalid": _here(*(expand(one, {**session.values, "unique": "chaos"}) for one in invalid))[:MOST],
        "ops": _here(target.live, target.ready, target.metrics.path if target.metrics else None),
        "document": _here(target.openapi.path if target.openapi else None),
    }


def _writes(target: Target, session: Session, unique: str) -> tuple[Sent, ...]:
    """The writes of chaos.toml, as they would be sent for `unique`."""
    made = []
    for write in [one for one in target.write if one.path.startswith("/")][:MOST]:
        key = {write.idempotency_header: unique} if write.idempotency_header else {}
        built = session.build(write, unique, key)
        url = urlsplit(built.url)
        headers = tuple((name, value) for name, value in built.headers.items() if name.lower() not in _FRAMING)
        path = url.path + (f"?{url.query}" if url.query else "")
        made.append(Sent(method=built.method, path=path, headers=headers, body=built.body.decode("utf-8", "replace")))
    return tuple(made)


def _path(path: str) -> str:
    """A path as it goes over the wire: what is encoded stays, what is not becomes so."""
    return quote(path, safe="/?#[]@!$&'()*+,;=:%~")


class _Patience:
    """Asks until too many requests got no answer, or the budget is spent; then answers None at once."""

    def __init__(self, origin: Origin) -> None:
        self._ask: Callable[[Asked], RawAnswer] = origin.ask
        self._until = now() + BUDGET
        self._late = 0
        self._lock = threading.Lock()

    def ask(self, asked: Asked) -> RawAnswer | None:
        if self._late >= PATIENCE or now() > self._until:
            return None
        answer = self._ask(asked)
        if answer.error == "timeout":
            with self._lock:
                self._late += 1
        return answer


def _record(asked: Asked, answer: RawAnswer, learned: layers.Learned) -> Operation:
    """What one request came to."""
    failed = answer.status is not None and answer.status >= 400
    done = Operation(
        kind=Kind.HOST,
        method=asked.method,
        path=asked.path,
        sample=asked.sample,
        started=answer.started,
        finished=answer.finished,
        planned=answer.started,
        status=answer.status,
        error=answer.error,
        expected=asked.expected,
        unique=asked.evil,
        retry_after=answer.header("retry-after"),
        media_type=answer.header("content-type"),
        body=answer.body.decode("utf-8", "replace")[:KEPT] if failed else "",
        request_id=answer.header("x-request-id"),
        layer=learned.layer(answer) if answer.status is not None else Layer.NOBODY,
        row=asked.row,
    )
    ok = {"400": done.status == 400, "2xx": done.status is not None and done.status // 100 == 2}.get(asked.expected, True)
    return replace(done, ok=ok, error=reflected(asked, answer) or done.error)


recorded = _record  # of what goes through an edge, too

__all__ = ["HostNames", "Origin", "observe", "probe", "recorded", "reflected"]
