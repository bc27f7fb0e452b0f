"""The corpus: requests that deserve a 4xx, from chaos.toml, from the target's description, and from an access log.

`build` puts it together, without sending anything. Which of them really deserve a 4xx is learnt from `Ask.why` and from the answers.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.traffic.corpus.ask import Ask, curl, settled
from chaos.traffic.corpus.deserving import Rules
from chaos.traffic.corpus.generating import Maker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.traffic.access_log import Recorded
    from chaos.traffic.openapi import Description
    from chaos.traffic.requests import Session

__all__ = ["Ask", "Corpus", "build", "curl", "settled", "thawed"]

SPARE = 1.3  # as many are generated as are wanted, times this: some turn out to be served


@dataclass(frozen=True, slots=True)
class Corpus:
    """`asks` are distinct, in the order in which they are sent; `notes` what people should know about how they came to be."""

    asks: tuple[Ask, ...]
    notes: tuple[str, ...] = ()

    def told(self) -> str:
        """'12 listed, 380 boundary, ...'."""
        return ", ".join(f"{count} {source}" for source, count in Counter(one.source for one in self.asks).items())

    def frozen(self) -> str:
        """As text, for the other workers of a run; without what is listed, which each has itself."""
        rows = [
            [one.key, one.source, one.method, one.target, one.headers, base64.b64encode(one.body).decode(), one.why, one.route]
            for one in self.asks
            if one.source != "listed"
        ]
        return json.dumps({"asks": rows, "notes": self.notes})


def build(
    session: Session,
    *,
    description: Description | None,
    recorded: Iterable[Recorded] = (),
    wanted: int,
    seed: int,
    thesis: bool,
) -> Corpus:
    """About `wanted` requests: all that are listed, and of the others a seeded choice, every route and every mistake in its turn.

    `thesis` is whether schemathesis is asked as well. A target that runs elsewhere is sent nothing made up that could change it.
    """
    notes: list[str] = []
    found = {one.identity: one for one in listed(session)}
    others = [
        Ask(key="", source="recorded", method=one.method, target=one.target, route=f"{one.method} {one.target.partition('?')[0]}")
        for one in recorded
    ]
    if description is not None:
        notes += [f"{description.where}: {note}" for note in description.notes]
        maker = Maker(
            Rules(description, frozenset(name.lower() for name in session.headers(""))),
            good(session),
            seed,
            safe_only=session.target.url is not None,
        )
        made = list(maker.boundary())
        if thesis:
            try:
                made += maker.negative(int(max(0, wanted * SPARE - len(made))))
            except ImportError:
                notes.append("schemathesis is not installed (pip install 'chaos-gate[openapi]'): boundary cases only")
        operations = {f"{one.method} {one.path}": one for one in description.operations()}
        others += [
            replace(one, why=maker.rules.why(one, operations[one.route]) if one.route in operations else "") for one in made
        ]
    limit = int(wanted * (SPARE if thesis else 1))
    for ask in in_turn([one for one in others if one.known()], seed):
        if len(found) >= limit:
            break
        found.setdefault(ask.identity, ask)
    counts: Counter[str] = Counter()
    asks = []
    for ask in found.values():
        asks.append(ask if ask.key else replace(ask, key=f"{ask.source}[{counts[ask.source]}]"))
        counts[ask.source] += 1
    return Corpus(tuple(asks), tuple(notes))


def listed(session: Session) -> list[Ask]:
    """[[target.invalid]]: looked at as it goes out, and built anew each time it is sent."""
    found = []
    for number, request in enumerate(session.target.invalid):
        if "://" not in request.path:
            raw = _raw(request, f"invalid[{number}]", why="listed")
            found.append(replace(settled(raw, session), request=request))
    return found


def good(session: Session) -> tuple[Ask, ...]:
    """Requests that ought to be served: [[target.read]] and [[target.write]], as they go out."""
    requests = (*session.target.read, *session.target.write)
    return tuple(settled(_raw(request, "", source="good"), session) for request in requests if "://" not in request.path)


def _raw(request: object, key: str, *, source: str = "listed", why: str = "") -> Ask:
    method, path = str(request.method), str(request.path)  # type: ignore[attr-defined]  # Request, which is not imported for this
    return Ask(key=key, source=source, method=method, target=path, why=why, route=f"{method} {path}", request=request)  # type: ignore[arg-type]


def in_turn(asks: list[Ask], seed: int) -> list[Ask]:
    """Seeded, and so that each route and each kind of mistake comes in its turn."""
    random.Random(f"{seed} order").shuffle(asks)  # noqa: S311  (a sample, not a secret)
    groups: dict[tuple[str, ...], list[Ask]] = defaultdict(list)
    for ask in asks:
        groups[ask.route, ask.key, " ".join(ask.why.split()[:3]), _flavour(ask)].append(ask)
    turns: dict[int, list[Ask]] = defaultdict(list)
    for group in groups.values():
        for turn, ask in enumerate(group):
            turns[turn].append(ask)
    return [ask for turn in sorted(turns) for ask in turns[turn]]


FLAVOURS = (
    ("wide", re.compile(rb"\d{19}")),
    ("nul", re.compile(rb"%00|\\u0000")),
    ("ill-formed", re.compile(rb"%FF|%ED%A0|%C0|\\ud8|[\x80-\xff]", re.IGNORECASE)),
    ("long", re.compile(rb".{600}", re.DOTALL)),
)


def _flavour(ask: Ask) -> str:
    """What kind of value is in it: each is another mistake of services."""
    text = ask.target.encode() + b" " + ask.body
    return next((name for name, pattern in FLAVOURS if pattern.search(text)), "plain")


def thawed(text: str, session: Session) -> Corpus:
    """What `frozen` gave, with this session's own listed requests in front."""
    value = json.loads(text)
    asks = [
        Ask(
            key=key,
            source=source,
            method=method,
            target=target,
            headers=tuple((name, each) for name, each in headers),
            body=base64.b64decode(body),
            why=why,
            route=route,
        )
        for key, source, method, target, headers, body, why, route in value["asks"]
    ]
    return Corpus((*listed(session), *asks), tuple(value["notes"]))
