"""Recorded requests out of an access log, with nothing in them that is anybody's: `read(path)`.

Known are Caddy's JSON lines, the combined format of nginx and Apache, the logs of an AWS Application Load Balancer, and HAR. Only GET
and HEAD are taken (a recorded write is never sent again), streams and upgrades are not, and whatever cannot be read is counted. Kept
are method, path, query and status, and of these only what is no secret and nobody's name: everything else of a line is dropped where
it is read, before anything is written anywhere.
"""

from __future__ import annotations

import itertools
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from chaos.errors import UsageError
from chaos.traffic.log_formats import Entry, entries

if TYPE_CHECKING:
    from pathlib import Path

MOST_LINES = 2_000_000
KEPT = 5_000  # distinct requests, a seeded choice
LONGEST_TARGET = 2_000

_STREAM = re.compile(r"/(?:events?|stream|sse|ws|websocket|socket\.io|poll|live|subscribe)(?:/|$)", re.IGNORECASE)
# A parameter with such a name holds a credential or a person, whatever its value looks like.
_PRIVATE = re.compile(
    r"token|secret|passw|pwd|auth|api[-_]?key|^key$|^sig|signature|session|jwt|otp|pin$|^code$|state$|nonce|cookie|credential|"
    r"mail|phone|mobile|tel$|name|user|account|customer|address|street|city|zip|postal|birth|dob|ssn|iban|card|"
    r"lat$|lon$|lng$|location|^ip$|^q$|query|search|text|message|comment|title|utm_|gclid|fbclid",
    re.IGNORECASE,
)
# And such a value is one, whatever its parameter is called.
_PERSONAL = re.compile(
    r"[^\s/@]+(?:@|%40)[^\s/@]+\.\w+|eyJ[\w-]{6,}|[0-9a-f]{24,}|[0-9a-f]{8}-[0-9a-f-]{27}|\+?\d[\d ().-]{8,}\d|[A-Za-z0-9+/_=-]{24,}|"
    r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])",
    re.IGNORECASE,
)


SHADOW = "CHAOS_SHADOW"  # the log's name, for the workers of a run


def hand_over(path: Path) -> None:
    """To the workers that this process will start. UsageError, at once, for what cannot be read, or is no log."""
    empty = True
    for entry in entries(path):
        empty = False
        if entry is not None:  # one line is enough to know it by: all of it is read where it is used
            os.environ[SHADOW] = str(path.resolve())
            return
    if empty:
        raise UsageError("it is empty", remedy="name an access log with requests in it", where=str(path))
    raise no_log(path)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as it is sent again: `target` without anything personal."""

    method: str
    target: str
    status: int


@dataclass(slots=True)
class Reading:
    """What became of a log: `requests` are distinct; `skipped` says what was left out, and how often."""

    requests: tuple[Recorded, ...] = ()
    lines: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def told(self) -> str:
        """One line about it."""
        left = ", ".join(f"{count} {why}" for why, count in self.skipped.most_common())
        return f"{self.lines} recorded requests, {len(self.requests)} different ones kept" + (
            f"; left out: {left}" if left else ""
        )


def read(path: Path, *, seed: int, status: range = range(400, 500)) -> Reading:
    """The requests of a log that were answered with one of `status`. UsageError for a file that is no log of a known kind."""
    found = Reading()
    kept: dict[Recorded, None] = {}
    rng = random.Random(seed)  # noqa: S311  (a sample, not a secret)
    seen = 0
    for line in entries(path):
        if found.lines >= MOST_LINES:
            found.skipped["beyond the first two million lines"] += 1
            break
        found.lines += 1
        one = request(line, found.skipped)
        if one is None or one in kept:
            continue
        if one.status not in status:
            found.skipped["answered otherwise"] += 1
            continue
        seen += 1
        if len(kept) < KEPT:
            kept[one] = None
        elif rng.random() < KEPT / seen:  # every distinct one is as likely as any other
            kept.pop(next(itertools.islice(kept, rng.randrange(KEPT), None)))
            kept[one] = None
    if found.lines and found.skipped["unreadable"] == found.lines:
        raise no_log(path)
    found.requests = tuple(sorted(kept, key=lambda one: (one.target, one.method, one.status)))
    return found


def no_log(path: Path) -> UsageError:
    """What is said of a file without a single line that is one of an access log."""
    return UsageError(
        "none of its lines is an access log's",
        remedy="give Caddy's JSON, nginx's combined format, AWS ALB's or a HAR file",
        where=str(path),
    )


def request(entry: Entry | None, skipped: Counter[str]) -> Recorded | None:
    """What of a line may be sent again, scrubbed; None, and why in `skipped`, for what may not."""
    if entry is None:
        skipped["unreadable"] += 1
        return None
    method, target, status = entry.method, entry.target, entry.status
    if method not in {"GET", "HEAD"}:
        skipped["neither GET nor HEAD"] += 1
    elif entry.stream or status in {101, 499} or _STREAM.search(target.partition("?")[0]):
        skipped["streams and upgrades"] += 1
    elif not target.startswith("/") or len(target) > LONGEST_TARGET or not target.isascii() or not target.isprintable():
        skipped["no plain path"] += 1
    else:
        return Recorded(method, scrubbed(target), status)
    return None


def scrubbed(target: str) -> str:
    """A path and query without credentials and persons: what is taken out leaves a value of the same shape behind."""
    path, mark, query = target.partition("#")[0].partition("?")
    segments = [_stand_in(one) if _PERSONAL.search(unquote(one)) else one for one in path.split("/")]
    pairs = []
    for pair in query.split("&") if query else ():
        name, eq, value = pair.partition("=")
        if _PERSONAL.search(unquote(name)):
            continue
        hide = _PRIVATE.search(unquote(name)) or _PERSONAL.search(unquote(value))
        pairs.append(f"{name}{eq}{_stand_in(value) if hide else value}")
    return "/".join(segments) + (mark + "&".join(pairs) if pairs else "")


def _stand_in(value: str) -> str:
    """Digits become ones, letters x: what is valid stays so where it goes by shape, and what is not stays that."""
    plain = unquote(value)
    return quote("".join("1" if one.isdigit() else "x" if one.isalpha() else one for one in plain), safe="")
