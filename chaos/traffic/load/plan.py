"""What a load is made of: `LoadPlan` as its user writes it, and `orders`, the same as the sender's process is told it.

The orders hold every request as bytes, ready to be sent: {unique} and the Host of requests that choose one are marks in them, which the
sender replaces. So the sender needs no configuration, no templates and no time to build a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from chaos.model import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.config import Request, Target
    from chaos.traffic.requests import Sample, Session

SYNTHETIC = {"X-Synthetic": "chaos-gate"}  # on every write: so that a team can tell them from its users'
UNIQUE = "7d3f0c5be2914a86b05fca1e9d2740b3"  # where a request holds {unique}: as long as what takes its place, and nobody's text
HOST = "host.of.the.request.invalid"  # where a request chooses its Host
AGENT = (
    "Mozilla/5.0 (compatible; ChaosGateBot/1.0)"  # of its own: a search engine's name is checked by reverse DNS in some places
)
UNKNOWN_HOST, SEO = "unknown-host", "seo"  # Interval.sample of what has no key in chaos.toml
NAMES = 200  # unknown hosts, asked in turn
PAGES = 3  # hosts that a pattern of [target.hosts] seo stands for
CREDENTIAL = re.compile(r"authorization|cookie|token|secret|api-?key|session|credential", re.IGNORECASE)
SHORTEST = 8  # characters: a shorter value also stands in ordinary text


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Shares of the requests by what they are for. What a target has none of is left out, and the others keep their proportions."""

    reads: float = 0.66
    writes: float = 0.10
    invalid: float = 0.06
    unknown: float = 0.06
    seo: float = 0.06
    provider: float = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """`rate` requests a second on planned times: a Poisson process, or evenly spaced where it is `paced`; the same for the same `seed`.

    `values` are the placeholders that the target's requests hold ({token}), `headers` go on every request. `every` is how many seconds
    an `Interval` lasts, counted from `origin` (0: from the start). `release_header` names who answered, and `releases` says what its
    values are called; without `releases` they are called what they say. `limits` are seconds for `Interval.over`. `deadline` bounds a
    request, in seconds; 0 derives it from fail_fast as the suite's other traffic does. `kept` uses connections again, under the rule of
    `chaos.traffic.load.client`. `private` maps a secret to what takes its place in what is kept. `turn` is (i, n): of all arrivals this
    sender sends each n-th, from the i-th on. `most` requests may be under way at once: one more is dropped, and counts as bad.
    """

    target: Target
    base_url: str
    rate: float
    values: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    mix: Mix = Mix()
    seed: int = 0
    paced: bool = False
    every: float = 60.0
    origin: float = 0.0
    machine: str = ""
    release_header: str = ""
    releases: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[float, ...] = (0.12, 0.3)
    deadline: float = 0.0
    kept: bool = False
    agent: str = AGENT
    private: Mapping[str, str] = field(default_factory=dict)
    turn: tuple[int, int] = (0, 1)
    most: int = 8_000

    @property
    def patience(self) -> float:
        """Seconds that a request may take."""
        fail_fast = self.target.database.fail_fast
        return self.deadline or fail_fast + max(2.0, fail_fast * 0.5)


def provider_keys(target: Target) -> frozenset[str]:
    """Which of the target's reads and writes are a partner's calls, by their keys ('read[3]').

    Those whose path [target] `provider` names; without that key, those that carry a credential of their own. Where every request
    carries the target's, there is no telling, and nothing is lost: each of them is one.
    """
    listed = [
        (f"{kind}[{i}]", one)
        for kind, many in ((Kind.READ, target.read), (Kind.WRITE, target.write))
        for i, one in enumerate(many)
    ]
    if target.provider:
        return frozenset(key for key, one in listed if any(fnmatchcase(one.path.partition("?")[0], of) for of in target.provider))
    own = frozenset(key for key, one in listed if any(CREDENTIAL.search(name) for name in one.headers))
    shared = any(CREDENTIAL.search(name) for name in target.headers)
    return own or (frozenset(key for key, _ in listed) if shared else frozenset())


def orders(plan: LoadPlan) -> dict[str, Any]:
    """What the sender is told, as JSON. UsageError when nothing is left to be sent, or an address that is none."""
    from chaos.errors import UsageError  # noqa: PLC0415
    from chaos.traffic.requests import Session  # noqa: PLC0415  (the sender's process comes through this module, and needs none of it)

    if not re.match(r"https?://[^/]", plan.base_url):
        raise UsageError(f"{plan.base_url!r} is no address of a service", remedy="give it as http://host:port", where="load")
    session = Session(plan.target, plan.base_url, dict(plan.values), dict(plan.headers))
    classes = [*_classes(plan, session)]
    whole = sum(weight for weight, requests in classes if requests)
    if whole <= 0 or plan.rate < 0:
        raise UsageError(
            "the mix leaves nothing to be sent", remedy="give at least one share that the target has requests of", where="load"
        )
    listed = [dict(one, weight=weight / whole / len(requests)) for weight, requests in classes for one in requests]
    return {
        "requests": listed,
        "unknown": _unknown(plan),
        "seo": _seo(plan),
        "rate": float(plan.rate),
        "deadline": plan.patience,
        "private": dict(sorted({**_private(plan), **plan.private}.items(), key=lambda pair: -len(pair[0]))),  # the longest first
        "seed": plan.seed,
        "paced": plan.paced,
        "every": plan.every,
        "origin": plan.origin,
        "machine": plan.machine,
        "release_header": plan.release_header.lower(),
        "releases": dict(plan.releases),
        "limits": list(plan.limits),
        "kept": plan.kept,
        "turn": list(plan.turn),
        "most": plan.most,
    }


def _classes(plan: LoadPlan, session: Session) -> Iterator[tuple[float, list[dict[str, Any]]]]:
    """(share, its requests) of each part of the mix; a share without requests is not sent."""
    from chaos.traffic.driver import samples  # noqa: PLC0415

    known, partners, mix = samples(plan.target), provider_keys(plan.target), plan.mix
    reads, writes = known[Kind.READ], known[Kind.WRITE]
    yield mix.reads, [_ordered(plan, session, one) for one in _other(reads, partners)] if mix.reads else []
    yield mix.writes, [_ordered(plan, session, one) for one in _other(writes, partners)] if mix.writes else []
    yield mix.invalid, [_ordered(plan, session, one) for one in known[Kind.INVALID]] if mix.invalid else []
    yield mix.provider, [_ordered(plan, session, one) for one in (*reads, *writes) if one.key in partners] if mix.provider else []
    if plan.target.hosts:
        yield mix.unknown, [_stranger(plan, session, reads[0])] if mix.unknown else []
        yield mix.seo, [_page(plan, session)] if mix.seo and plan.target.hosts.seo else []


def _other(these: Sequence[Sample], partners: frozenset[str]) -> Sequence[Sample]:
    """Those that are no partner's; all of them where each is one."""
    return [one for one in these if one.key not in partners] or these


def _ordered(plan: LoadPlan, session: Session, sample: Sample) -> dict[str, Any]:
    more: dict[str, str] = {}
    if sample.kind is Kind.WRITE:
        more |= SYNTHETIC
        if header := getattr(sample.request, "idempotency_header", None):
            more[header] = UNIQUE
    return _order(plan, session, sample, _ranges(sample.request), more)


def _stranger(plan: LoadPlan, session: Session, sample: Sample) -> dict[str, Any]:
    """A good request under a host that nobody has listed: 400 is the healthy answer to it, and nothing else is."""
    return _order(plan, session, replace(sample, key=UNKNOWN_HOST, kind=Kind.HOST), [[400, 400]], {"Host": HOST})


def _page(plan: LoadPlan, session: Session) -> dict[str, Any]:
    """What a crawler asks: path and host are put in when it is sent. It has no credentials."""
    from chaos.config import Request  # noqa: PLC0415
    from chaos.traffic.requests import Sample  # noqa: PLC0415

    anonymous = type(session)(plan.target.model_copy(update={"headers": {}}), session.base_url, {}, dict(plan.headers))
    more = {
        "Host": HOST,
        "User-Agent": plan.agent,
        "Accept": "text/html,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Encoding": "gzip",
    }
    page = Sample(kind=Kind.READ, key=SEO, request=Request(method="GET", path=f"/{UNIQUE}"))
    return _order(plan, anonymous, page, [[200, 399]], more)


def _order(plan: LoadPlan, session: Session, sample: Sample, accepts: list[list[int]], more: Mapping[str, str]) -> dict[str, Any]:
    from chaos.traffic.exchange import serialised  # noqa: PLC0415

    request, key = sample.request, sample.key
    keep = {"Connection": "keep-alive"} if plan.kept and request.method in {"GET", "HEAD"} else {}
    outgoing = session.build(request, UNIQUE, {**more, **keep})
    parts = urlsplit(outgoing.url)
    return {
        "to": [parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)],
        "key": key,
        "kind": str(sample.kind),
        "method": request.method,
        "path": request.path,
        "expected": "400" if key == UNKNOWN_HOST else request.expected,
        "accepts": accepts,
        "wire": serialised(outgoing).decode("latin-1"),
    }


def _ranges(request: Request) -> list[list[int]]:
    """The statuses that are healthy, as [first, last]."""
    if isinstance(request.expect, str):
        hundreds = int(request.expect[0]) * 100
        return [[hundreds, hundreds + 99]]
    return [[one, one] for one in (request.expect if isinstance(request.expect, tuple) else (request.expect,))]


def _words(plan: LoadPlan) -> Any:
    from chaos.traffic.host_names import HostNames, Words  # noqa: PLC0415

    hosts = plan.target.hosts
    return Words(hosts=HostNames(**hosts.model_dump()), seed=plan.seed, path="/") if hosts else None


def _unknown(plan: LoadPlan) -> list[str]:
    """Hosts that are not listed, near misses of those that are among them."""
    words = _words(plan)
    if words is None:
        return []
    near = words.misses("allowed", "seo", "crawler")
    return [*near, *(words.evil() for _ in range(NAMES - len(near)))]


def _seo(plan: LoadPlan) -> dict[str, Any]:
    words = _words(plan)
    if words is None:
        return {"hosts": [], "patterns": [], "agent": plan.agent}
    patterns = list(plan.target.hosts.seo) if plan.target.hosts else []
    hosts = [one.replace("*", words.label()) for one in patterns for _ in range(PAGES if "*" in one else 1)]
    return {"hosts": hosts, "patterns": patterns, "agent": plan.agent}


def _private(plan: LoadPlan) -> dict[str, str]:
    """The credentials that the requests themselves carry."""
    from chaos.config import expand  # noqa: PLC0415

    target = plan.target
    sent = (target.headers, plan.headers, *(one.headers for one in (*target.read, *target.write, *target.invalid)))
    found = {
        part
        for headers in sent
        for name, text in headers.items()
        if CREDENTIAL.search(name) and "{unique}" not in text
        for value in [expand(text, dict(plan.values))]
        for part in (value, value.rpartition(" ")[2])
    }
    found |= {value for name, value in plan.values.items() if CREDENTIAL.search(name)}
    return {value: "***" for value in found if len(value) >= SHORTEST}
