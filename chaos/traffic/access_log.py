"""Recorded requests out of an access log, with nothing in them that is anybody's: `read(path)`.

Known are Caddy's JSON lines, the combined format of nginx and Apache, the logs of an AWS Application Load Balancer, and HAR. Only GET
and HEAD are taken (a recorded write is never sent again), streams and upgrades are not, and whatever cannot be read is counted. Kept
are method, path, query and status, and of these only what is no secret and nobody's name: everything else of a line is dropped where
it is read, before anything is written anywhere.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from chaos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

LONGEST_LINE = 65_536  # bytes; a longer one is garbage
LARGEST_HAR = 64 << 20  # bytes: HAR is one document, and has to be read at once
MOST_LINES = 2_000_000
KEPT = 5_000  # distinct requests, a seeded choice
LONGEST_TARGET = 2_000

_COMBINED = re.compile(
    r'\S+ \S+ .{1,200}? \[[^\]]{1,60}\] "([A-Z]{1,20}) (\S{1,4000})(?: HTTP/[\d.]+)?" (\d{3}) (?:\d+|-)(?: |$)'
)
_ALB = re.compile(
    r"(https?|h2|grpcs?|wss?) \d{4}-\d\d-\d\dT\S+ \S+ \S+ \S+ -?[\d.]+ -?[\d.]+ -?[\d.]+ (\d{3}|-) (\d{3}|-) \d+ \d+ "
    r'"([A-Z]{1,20}) (\S{1,4000}) (?:HTTP/[\d.]+|-)?'
)
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
    reading = read(path, seed=0)
    if not reading.lines:
        raise UsageError("it is empty", remedy="name an access log with requests in it", where=str(path))
    os.environ[SHADOW] = str(path.resolve())


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
    for line in _entries(path, found):
        found.lines += 1
        one = _request(line, found.skipped)
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
        raise UsageError(
            "none of its lines is an access log's",
            remedy="give Caddy's JSON, nginx's combined format, AWS ALB's or a HAR file",
            where=str(path),
        )
    found.requests = tuple(sorted(kept, key=lambda one: (one.target, one.method, one.status)))
    return found


Entry = tuple[str, str, int, bool]  # method, target, status, whether it is a stream


def _entries(path: Path, found: Reading) -> Iterator[Entry | None]:
    """Line by line; None for what cannot be read."""
    try:
        with _opened(path) as file:
            beginning = file.peek(4096)[:4096].lstrip()
            if re.match(rb"\{\s*\"log\"\s*:\s*\{", beginning):
                yield from _har(file.read(LARGEST_HAR + 1), path)
                return
            for number, line in enumerate(_lines(file)):
                if number >= MOST_LINES:
                    found.skipped["beyond the first two million lines"] += 1
                    return
                if line.strip():
                    yield _entry(line)
    except (OSError, EOFError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot be read: {what}", remedy="name an access log that can", where=str(path)) from None


def _opened(path: Path) -> BufferedReader | gzip.GzipFile:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _lines(file: BufferedReader | gzip.GzipFile) -> Iterator[bytes]:
    """Lines of at most `LONGEST_LINE`; the rest of a longer one is passed over, and it comes as an unreadable one."""
    while line := file.readline(LONGEST_LINE):
        if not line.endswith(b"\n") and len(line) == LONGEST_LINE:
            while (more := file.readline(LONGEST_LINE)) and not more.endswith(b"\n"):
                pass
            line = b"too long"
        yield line


def _har(data: bytes, path: Path) -> Iterator[Entry | None]:
    try:
        entries = json.loads(data)["log"]["entries"] if len(data) <= LARGEST_HAR else "more than 64 MiB"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        entries = f"{type(error).__name__}: {error}"
    if not isinstance(entries, list):
        what = entries if isinstance(entries, str) else "`entries` is no list"
        raise UsageError(f"no HAR that can be read: {what}", remedy="export it again, smaller", where=str(path))
    for one in entries:
        yield _har_entry(one)


def _har_entry(one: Any) -> Entry | None:
    try:
        parts = urlsplit(one["request"]["url"])
        media = str(one["response"].get("content", {}).get("mimeType", ""))
        stream = "event-stream" in media or one.get("_resourceType") in {"websocket", "eventsource"}
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return str(one["request"]["method"]), target, int(one["response"]["status"]), stream
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _entry(line: bytes) -> Entry | None:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if text.startswith("{"):
        return _caddy(text)
    if alb := _ALB.match(text):
        kind, by_target, by_itself, method, url = alb[1], alb[3], alb[2], alb[4], alb[5]
        status = by_itself if by_itself != "-" else by_target
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return (method, target, int(status), kind in {"ws", "wss", "grpc", "grpcs"}) if status != "-" else None
    if combined := _COMBINED.match(text):
        return combined[1], combined[2], int(combined[3]), False
    return None


def _caddy(text: str) -> Entry | None:
    try:
        value = json.loads(text)
        request, headers = value["request"], value.get("resp_headers") or {}
        media = " ".join(str(one) for one in headers.get("Content-Type") or ())
        upgrade = any(name.lower() == "upgrade" for name in request.get("headers") or {})
        return str(request["method"]), str(request["uri"]), int(value["status"]), upgrade or "event-stream" in media
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _request(entry: Entry | None, skipped: Counter[str]) -> Recorded | None:
    if entry is None:
        skipped["unreadable"] += 1
        return None
    method, target, status, stream = entry
    if method not in {"GET", "HEAD"}:
        skipped["neither GET nor HEAD"] += 1
    elif stream or status in {101, 499} or _STREAM.search(target.partition("?")[0]):
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
