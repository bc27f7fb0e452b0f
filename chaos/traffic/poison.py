"""Cache poisoning (row H47): an answer to a request with an evil name, kept, and given to somebody who asked cleanly.

A clean request, one with an evil name in it, two clean ones for the same resource. What the last two show of the name (it is fresh, and
nobody else ever said it) they have from a cache. And where the clean answer was good before and both are refusals after, a refusal
was kept (a cache that stores a 400 for everybody). Each way is tried on a path of its own, so that no older copy hides it: the
first read with a fresh query, a path that does not exist, and the first read as it is.

Of the operations, all of kind HOST: `row` 'H47' is a clean request after an evil one, with `error` 'poisoned in location: ...' where
the name came back; 'H47.before' the clean one before; 'H47.evil' the one with the name. `sample` is the way, the same for all of a
try, `unique` the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from chaos.model import Kind, Operation
from chaos.traffic.hosts import KEPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.model import Layer
    from chaos.traffic.host_names import Words
    from chaos.traffic.raw import RawAnswer

Ask = Callable[[bytes], "tuple[RawAnswer, Layer]"]  # a request's answer, and who gave it
# What a name can come in, beside Host: the first by itself, for it is the one that is obeyed most; then the rest at once.
WAYS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Host: {e}", ("Host: {e}",)),
    ("Host: {g}:3{n}", ("Host: {g}:3{n}",)),
    ("X-Forwarded-Host: {e}", ("Host: {g}", "X-Forwarded-Host: {e}")),
    (
        "Forwarded, X-Host, ... {e}",
        (
            "Host: {g}",
            "Forwarded: host={e}",
            "X-Host: {e}",
            "X-Forwarded-Server: {e}",
            "X-HTTP-Host-Override: {e}",
            "X-Original-Host: {e}",
            "X-Rewrite-Url: //{e}/",
        ),
    ),
)


def attempts(ask: Ask, words: Words, client: str) -> tuple[Operation, ...]:
    """Every way on every path; `client` says where it was asked ('origin', 'h1'). Eleven tries of four requests each."""
    found: list[Operation] = []
    for path in _paths(words):
        for number, (said, lines) in enumerate(WAYS):
            if ":3{n}" in said and path(0) == path(1):
                continue  # a port in somebody's links is no lasting harm, but nothing to leave in a cache either
            found += _attempt(ask, words, client, path, (number, said, lines))
    return tuple(found)


def _paths(words: Words) -> Iterator[Callable[[int], str]]:
    """Paths to try: each a function that makes another one of the same kind for another number."""
    fresh, other = words.label(), words.label()
    separator = "&" if "?" in words.path else "?"
    yield lambda number: f"{words.path}{separator}{fresh}{number}=1"
    yield lambda number: f"/chaos-{other}{number}"
    yield lambda _number: words.path


def _attempt(
    ask: Ask, words: Words, client: str, path: Callable[[int], str], way: tuple[int, str, Sequence[str]]
) -> Iterator[Operation]:
    number, said, lines = way
    values = {"g": words.g, "e": words.evil(), "n": f"{7000 + int(words.seed) % 1000 + number}"}
    evil = f"{words.g}:3{values['n']}" if ":3{n}" in said else values["e"]
    told = said.format(**values)
    clean = [f"Host: {words.g}"]

    def record(row: str, at: str, head: Sequence[str]) -> Operation:
        answer, layer = ask(_request(words, at, head))
        return Operation(
            kind=Kind.HOST,
            method="GET",
            path=at,
            sample=told,
            started=answer.started,
            finished=answer.finished,
            planned=answer.started,
            status=answer.status,
            error=answer.error if row == "H47.evil" else _shown(answer, evil) or answer.error,
            expected="",
            ok=answer.status is not None,
            unique=evil,
            media_type=answer.header("content-type"),
            body=answer.body.decode("utf-8", "replace")[:KEPT] if (answer.status or 0) >= 400 else "",
            layer=layer,
            row=row,
            client=client,
        )

    yield record("H47.before", path(number + 100), clean)
    yield record("H47.evil", path(number), [one.format(**values) for one in lines])
    yield record("H47", path(number), clean)
    yield record("H47", path(number), clean)


def _request(words: Words, path: str, lines: Sequence[str]) -> bytes:
    own = "".join(f"{name}: {value}\r\n" for name, value in words.headers)
    head = "".join(f"{one}\r\n" for one in lines)
    return f"GET {path} HTTP/1.1\r\n{head}{own}User-Agent: chaos-gate\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode()


def _shown(answer: RawAnswer, evil: str) -> str:
    """Where a clean answer shows the name: 'poisoned in HEADER: VALUE', '' when nowhere."""
    low = evil.lower()
    for name, value in answer.headers:
        if low in value.lower():
            return f"poisoned in {name}: {value[:200]}"
    body = answer.body.decode("utf-8", "replace")
    at = body.lower().find(low)
    return f"poisoned in the body: {' '.join(body[max(0, at - 60) : at + len(low) + 40].split())}" if at >= 0 else ""


__all__ = ["attempts"]
