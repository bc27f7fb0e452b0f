"""What shows a wrong answer again: the bytes and a shell line for each row, and the smallest host of each kind that is let by.

Kept as facts of the History, which the findings quote: 'wire.ROW' is a request of that row that was answered wrongly,
'smallest.ROW' the smallest one (H01, H02, H03 and H10b, whose hosts are drawn and can be shrunk).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chaos.model import now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.model import Operation
    from chaos.traffic.host_names import Words
    from chaos.traffic.host_requests import Asked

SHRUNK = ("H01", "H02", "H03", "H10b")
SECONDS = 5.0  # for each row: asking is quick, and an unanswered request must not hold up the run
SHOWN = 600  # characters of a request that are kept
OURS = frozenset(
    {"host", "user-agent", "accept", "connection", "content-length", "upgrade", "origin", "transfer-encoding", "trailer"}
)


def facts(
    asked: Sequence[tuple[Asked, Operation]],
    words: Words,
    again: Callable[[str, str], tuple[Asked, Operation]],
    address: tuple[str, int],
    *,
    tls: bool = False,
) -> dict[str, str]:
    """The facts about what was answered wrongly. `again(row, host)` asks a host of a row once more."""
    found: dict[str, str] = {}
    for one, done in asked:
        if wrong(done) and f"wire.{one.row}" not in found:
            found[f"wire.{one.row}"] = reproduce(one.request, address, tls=tls)
    for row in SHRUNK:
        bad = [pair for pair in asked if pair[0].row == row and wrong(pair[1])]
        if bad:
            shrunk = _shrunk(row, bad, words, again)
            found[f"smallest.{row}"] = f"{_host(shrunk.request)!r}: {reproduce(shrunk.request, address, tls=tls)}"
    return found


def wrong(done: Operation) -> bool:
    """Whether an answer may be some row's failure: what the verdict is, the checks say."""
    if done.error.startswith("reflected"):
        return True
    return done.status not in {429, 503} and bool(done.expected) and not done.ok


def let_in(done: Operation) -> bool:
    """Whether the host was served, rather than refused in another way than it should be."""
    if done.status is None:
        return False
    return done.status // 100 == 2 or done.status == 101 or done.error.startswith("reflected in location")


def _shrunk(
    row: str, bad: Sequence[tuple[Asked, Operation]], words: Words, again: Callable[[str, str], tuple[Asked, Operation]]
) -> Asked:
    """The smallest request of a row that is answered as wrongly as the worst of `bad`; one of `bad` when none is found."""
    from chaos.traffic import host_strategies  # noqa: PLC0415  (see there)

    served = [pair for pair in bad if let_in(pair[1])] or list(bad)
    serving = let_in(served[0][1])
    shortest = min((pair[0] for pair in served), key=lambda one: len(one.request))
    strategy = host_strategies.malformed(words.g) if row == "H10b" else host_strategies.unknown(words.hosts).get(row)
    if strategy is None:
        return shortest
    until = now() + SECONDS
    hits: dict[str, Asked] = {}

    def fails(host: str) -> bool:
        if now() > until:
            return False
        asked, done = again(row, host)
        same = wrong(done) and let_in(done) is serving
        if same:
            hits[host] = asked
        return same

    simplest = host_strategies.smallest(strategy, fails, seed=words.seed)
    return hits[simplest] if simplest is not None else shortest


def reproduce(request: bytes, address: tuple[str, int], *, tls: bool = False) -> str:
    """A shell line that sends exactly these bytes, but for the target's own headers, which may hold secrets: their values are '***'.

    On loopback the port is the run's own, which is gone: $PORT.
    """
    host, port = address
    to = f"{host} $PORT" if host in {"127.0.0.1", "::1", "localhost"} else f"{host} {port}"
    send = f"openssl s_client -quiet -connect {to.replace(' ', ':')}" if tls else f"nc {to}"
    return f"printf '{escaped(_masked(request)[:SHOWN])}' | {send}"


def escaped(request: bytes) -> str:
    """Bytes as POSIX printf takes them within single quotes."""
    named = {0x0D: "\\r", 0x0A: "\\n", 0x5C: "\\\\", 0x25: "%%", 0x27: "\\047"}
    return "".join(named.get(one, chr(one) if 0x20 <= one < 0x7F else f"\\{one:03o}") for one in request)


def _masked(request: bytes) -> bytes:
    """Without the values of headers that are the target's own."""
    head, end, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    return b"\r\n".join([lines[0], *map(_mask, lines[1:])]) + end + body


def _mask(line: bytes) -> bytes:
    name, colon, _ = line.partition(b":")
    plain = name.strip().lower().decode("latin-1")
    known = plain in OURS or plain.startswith(("x-forwarded-", "sec-websocket", "access-control-request", "content-type"))
    hosts = plain in {"forwarded", "x-host", "x-http-host-override", "x-original-host"}
    return line if known or hosts or not colon or line[:1] in b" \t" else name + b": ***"


def _host(request: bytes) -> bytes:
    found = re.search(rb"\r\nHost:[ \t]*([^\r\n]*)", request)
    return found[1] if found else b""
