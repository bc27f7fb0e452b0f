"""Request smuggling: messages whose end can be read in two ways, with a request of ours hidden where the two readings differ.

At the origin by itself, proof is an answer to the hidden request: a good one, so that nothing but a 2xx behind the first answer
counts, twice in a row. (A 4xx behind the first answer is what a server says to bytes that it could make nothing of.) Between edge
and origin, proof is that somebody else, on a connection of their own, is given the answer to the hidden request: it asks for a path
that does not exist, the others for one that does. Silence proves nothing.

The operations are as `chaos.traffic.pentest` has them; `occurrences` is how often it was proven, `error` says what came.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from chaos.traffic.pentest import AT_ONCE, fill, record, rows, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.model import Operation
    from chaos.traffic.pentest import Place, Resource, Row
    from chaos.traffic.raw import RawAnswer

QUIET = 0.25  # s after an answer in which another one would have come: both are in the server's hands already
UNANSWERED = 1.0  # s to wait for an answer where the server may be waiting for the rest of the message
OTHERS = 4  # requests of others after each attempt
_MASKED = re.compile(r"\d+|[0-9a-f]{8,}|chaos\w+", re.IGNORECASE)


# How the body of a shape begins; the hidden request comes behind it, and the shorter reading ends before that.
BEGINNINGS = {
    "after": b"0\r\n\r\n",
    "bare-lf": b"1\r\nx\n0\r\n\r\n",
    "extension": b"1;\nx\r\n0\r\n\r\n",
    "odd-size": b"0x0\r\n\r\n",
}


def body(shape: str, hidden: bytes) -> tuple[bytes, int]:
    """The body of one shape with the hidden request in it, and the length that ends just before that ('short')."""
    size = f"{len(hidden):x}\r\n".encode()
    if shape == "chunk":
        return size + hidden + b"\r\n0\r\n\r\n", len(size)
    beginning = BEGINNINGS.get(shape, b"")
    if shape == "trailer":
        beginning = f"0\r\nContent-Length: {len(hidden)}\r\n\r\n".encode()
    return beginning + hidden, len(beginning)


def shapes(row: Row, resource: Resource, hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """(method, request) of every form of a row. The connection is left open: what follows is the point."""
    content, short = body(row.body, hidden)
    words = {"total": str(len(content)), "short": str(short), "hex": f"{len(content):x}"}
    for method, lines in product(row.methods, row.lines):
        more = [fill(line, words) for line in lines]
        head = resource.request(method, resource.path, good=True, more=more, version=row.version, close=False)
        yield method, head + content


def at_origin(place: Place, resource: Resource) -> list[Operation]:
    """Every shape, straight to the origin; one operation each."""
    hidden = resource.request("GET", resource.path, good=True)
    asked = [
        (row.id, method, request)
        for row in rows()
        if row.kind == "smuggling"
        for method, request in shapes(row, resource, hidden)
    ]

    def one(asking: tuple[str, str, bytes]) -> Operation:
        row, method, request = asking
        answers = _answers(place, request)
        times = int(_answered(answers))
        if times:
            times += int(_answered(_answers(place, request)))
        done = record(row, resource, request, answers[0], place=place.name, method=method)
        told = ", ".join(str(answer.status or answer.error) for answer in answers)
        return replace(done, occurrences=times, error=f"answers: {told}")

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="smuggling") as pool:
        return list(pool.map(one, asked))


def _answers(place: Place, request: bytes) -> tuple[RawAnswer, ...]:
    return place.ask_at_once(request, quiet=QUIET, timeout=UNANSWERED)


def _answered(answers: tuple[RawAnswer, ...]) -> bool:
    """Whether a good answer came behind the first one."""
    return any(one.status is not None and 200 <= one.status < 300 for one in answers[1:])


def through_edge(place: Place, resource: Resource) -> list[Operation]:
    """Every shape, through the edge, and after each what others get. Nothing where these would not be told apart."""
    good = resource.request("GET", resource.path, good=True)
    target = f"/chaos-gate-{resource.mark}"
    hidden = resource.request("GET", target, good=True, close=False)
    mark = place.ask(resource.request("GET", target, good=True))
    before = [place.ask(good) for _ in range(OTHERS)]
    if mark.status is None or mark.status < 400 or any(one.status is None or one.status >= 300 for one in before):
        return []
    found: list[Operation] = []
    for row in rows():
        if row.kind != "smuggling":
            continue
        for method, request in shapes(row, resource, hidden):
            first, stolen = _attempt(place, request, good, mark)
            times = int(stolen is not None)
            while 0 < times < 2:  # once may be a coincidence
                again = any(_attempt(place, request, good, mark)[1] is not None for _ in range(2))
                if not again:
                    break
                times += 1
            done = record(row.id, resource, request, first, place=place.name, method=method)
            told = f"somebody else was given {stolen.status}: {shown(stolen)[:300]}" if stolen else "others got their own answers"
            found.append(replace(done, occurrences=times, error=told))
    return found


def _attempt(place: Place, request: bytes, good: bytes, mark: RawAnswer) -> tuple[RawAnswer, RawAnswer | None]:
    """The first answer to a shape; and the answer to the hidden request, where somebody else got it."""
    first = place.ask_at_once(request, quiet=0.1, timeout=0.5)[0]
    others = [place.ask(good) for _ in range(OTHERS)]
    stolen = next((one for one in others if one.status == mark.status and _text(one) == _text(mark)), None)
    return first, stolen


def _text(answer: RawAnswer) -> str:
    return _MASKED.sub("#", answer.body.decode("utf-8", "replace"))
