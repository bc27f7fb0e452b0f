"""Four formats of access logs, read line by line: `entries(path)`. None is known better than what it says of one request.

Caddy's JSON lines (https://caddyserver.com/docs/logging), the combined format of nginx and Apache, the logs of an AWS Application Load
Balancer, and HAR (one document; W3C draft of 2012). Packed ones (gzip) are unpacked on the way. Memory does not grow with the file.
"""

from __future__ import annotations

import gzip
import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from chaos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

LONGEST_LINE = 65_536  # bytes; a longer one is garbage
LARGEST_HAR = 64 << 20  # bytes: HAR is one document, and has to be read at once

_COMBINED = re.compile(
    r'\S+ \S+ .{1,200}? \[([^\]]{1,60})\] "([A-Z]{1,20}) (\S{1,4000})(?: HTTP/[\d.]+)?" (\d{3}) (?:\d+|-)(?: |$)'
)
_ALB = re.compile(
    r"(https?|h2|grpcs?|wss?) (\d{4}-\d\d-\d\dT\S+) \S+ \S+ \S+ (-?[\d.]+) (-?[\d.]+) (?:-?[\d.]+) (\d{3}|-) (\d{3}|-) \d+ \d+ "
    r'"([A-Z]{1,20}) (\S{1,4000}) (?:HTTP/[\d.]+|-)?'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request of a log. `at` is when (seconds since the epoch), `seconds` how long it took; NaN, and '' for `host`: not said."""

    method: str
    target: str
    status: int
    stream: bool = False
    at: float = math.nan
    seconds: float = math.nan
    host: str = ""


def entries(path: Path) -> Iterator[Entry | None]:
    """Line by line; None for what cannot be read. UsageError when the file cannot be, or is a HAR file that is none."""
    try:
        with _opened(path) as file:
            beginning = file.peek(4096)[:4096].lstrip()
            if re.match(rb"\{\s*\"log\"\s*:\s*\{", beginning):
                yield from _har(file.read(LARGEST_HAR + 1), path)
                return
            for line in _lines(file):
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
        found = json.loads(data)["log"]["entries"] if len(data) <= LARGEST_HAR else "more than 64 MiB"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
    if not isinstance(found, list):
        what = found if isinstance(found, str) else "`entries` is no list"
        raise UsageError(f"no HAR that can be read: {what}", remedy="export it again, smaller", where=str(path))
    for one in found:
        yield _har_entry(one)


def _har_entry(one: Any) -> Entry | None:
    try:
        url = urlsplit(one["request"]["url"])
        media = str(one["response"].get("content", {}).get("mimeType", ""))
        return Entry(
            method=str(one["request"]["method"]),
            target=_target(url),
            status=int(one["response"]["status"]),
            stream="event-stream" in media or one.get("_resourceType") in {"websocket", "eventsource"},
            at=_moment(str(one.get("startedDateTime", ""))),
            seconds=_number(one.get("time"), 1e-3),
            host=url.hostname or "",
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _entry(line: bytes) -> Entry | None:
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    if text.startswith("{"):
        return _caddy(text)
    if alb := _ALB.match(text):
        return _alb(alb)
    if combined := _COMBINED.match(text):
        return Entry(
            method=combined[2], target=combined[3], status=int(combined[4]), at=_moment(combined[1], "%d/%b/%Y:%H:%M:%S %z")
        )
    return None


def _alb(found: re.Match[str]) -> Entry | None:
    kind, at, waited, took, by_itself, by_target, method, address = found.groups()
    status = by_itself if by_itself != "-" else by_target
    try:
        url = urlsplit(address)
        host = url.hostname or ""
    except ValueError:
        return None
    if status == "-":
        return None
    spent = [_number(one) for one in (waited, took)]
    return Entry(
        method=method,
        target=_target(url),
        status=int(status),
        stream=kind in {"ws", "wss", "grpc", "grpcs"},
        at=_moment(at),
        seconds=sum(spent) if min(spent) >= 0 else math.nan,
        host=host,
    )


def _caddy(text: str) -> Entry | None:
    try:
        value = json.loads(text)
        request, headers = value["request"], value.get("resp_headers") or {}
        media = " ".join(str(one) for one in headers.get("Content-Type") or ())
        upgrade = any(name.lower() == "upgrade" for name in request.get("headers") or {})
        return Entry(
            method=str(request["method"]),
            target=str(request["uri"]),
            status=int(value["status"]),
            stream=upgrade or "event-stream" in media,
            at=_number(value.get("ts")),
            seconds=_number(value.get("duration")),
            host=str(request.get("host", "")).partition(":")[0].lower(),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _target(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


def _number(value: Any, unit: float = 1.0) -> float:
    """NaN for what is none: a log without a time is one all the same."""
    try:
        found = float(value) * unit
    except (TypeError, ValueError):
        return math.nan
    return found if math.isfinite(found) else math.nan


def _moment(text: str, form: str = "") -> float:
    try:
        return (datetime.strptime(text, form) if form else datetime.fromisoformat(text)).timestamp()  # noqa: DTZ007  (%z)
    except (ValueError, OverflowError, OSError):
        return math.nan
