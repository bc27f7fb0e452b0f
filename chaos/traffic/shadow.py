"""Recorded production reads, to be sent again: `draw(path, ...)` takes a seeded share of an access log.

Drawn is 10 to 20 % of the lines, by a hash of the seed and the line: the same log and seed give the same requests, wherever the log
was cut into files. GET and HEAD only, nobody's data in them (chaos.traffic.access_log.scrubbed), and nothing that logs out, streams
or exports. A log of any size is read once, line by line; of what was drawn a bounded number is kept, each as likely as any other.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.errors import UsageError
from chaos.traffic.access_log import no_log, request
from chaos.traffic.log_formats import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from chaos.traffic.log_formats import Entry

SHARE = 0.15  # of the lines; 10 to 20 % are asked for (scope.shadow)
FEWEST, MOST = 0.10, 0.20
SMALL = 2_000  # lines: of a log that is shorter every one is taken, for a tenth of it would show nothing
ACTS = re.compile(
    r"log-?out|sign-?out|log-?off|shutdown|restart|subscribe|watch|export|download|delete|remove|approve|confirm|activate|trigger",
    re.IGNORECASE,
)  # a GET that does something, whatever RFC 9110 (9.2.1) says of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One request as it is sent again. `at` is seconds after the log's first; `status` and `seconds` (NaN: unknown) were recorded."""

    at: float
    method: str
    target: str
    status: int
    seconds: float = math.nan
    host: str = ""


@dataclass(slots=True)
class Drawn:
    """What came of a log, `requests` in order of time. `span` is how many seconds they cover."""

    requests: tuple[Replayed, ...] = ()
    lines: int = 0
    drawn: int = 0
    share: float = SHARE
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def span(self) -> float:
        """From the first to the last."""
        return self.requests[-1].at - self.requests[0].at if self.requests else 0.0

    def told(self) -> str:
        """One line about it."""
        left = ", ".join(f"{count:,} {why}" for why, count in self.skipped.most_common())
        text = f"{self.lines:,} recorded requests, {self.drawn:,} drawn ({self.share:.0%}), {len(self.requests):,} kept"
        return text + (f"; left out: {left}" if left else "")


def draw(
    path: Path, *, seed: int, most: int, share: float | None = None, serves: Callable[[str], bool] = lambda _host: False
) -> Drawn:
    """A share of the log's reads, at most `most` of them. `serves` says which hosts are the target's own: others are not kept.

    Without a `share` it is `SHARE`, and everything of a log with fewer than `SMALL` lines. Raises UsageError for what is no log.
    """
    drawn = SHARE if share is None else share
    if not FEWEST <= drawn <= MOST:
        raise UsageError(f"a share of {drawn:.0%} was asked for", remedy=f"take {FEWEST:.0%} to {MOST:.0%}", where="--share")
    lines, readable = 0, False
    some, all_of_it = (_Reservoir(random.Random(seed), most, serves) for _ in range(2))  # noqa: S311  (a sample, not a secret)
    for entry in entries(path):
        lines += 1
        readable = readable or entry is not None
        if _chosen(entry, lines, seed, drawn):
            some.offer(entry)
        if lines <= SMALL and share is None:
            all_of_it.offer(entry)
    if lines and not readable:
        raise no_log(path)
    small = share is None and lines <= SMALL
    kept = all_of_it if small else some
    return Drawn(_timed(kept.kept), lines, kept.offered, 1.0 if small else drawn, kept.skipped)


@dataclass(slots=True)
class _Reservoir:
    """Each request that may be sent again is as likely to stay as any other (Vitter, ACM TOMS 11, 1985)."""

    rng: random.Random
    most: int
    serves: Callable[[str], bool]
    kept: list[Replayed] = field(default_factory=list)
    offered: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def offer(self, entry: Entry | None) -> None:
        """Keep it, or something else instead, or count why it may not be sent."""
        recorded = request(entry, self.skipped)
        if recorded is None or entry is None:
            return
        if not 200 <= recorded.status < 500:
            self.skipped["answered 5xx or not at all"] += 1
            return
        if ACTS.search(recorded.target):
            self.skipped["may do something"] += 1
            return
        self.offered += 1
        place = len(self.kept) if len(self.kept) < self.most else self.rng.randrange(self.offered)
        if place < self.most:
            host = entry.host if self.serves(entry.host) else ""
            one = Replayed(
                at=entry.at,
                method=recorded.method,
                target=recorded.target,
                status=recorded.status,
                seconds=entry.seconds,
                host=host,
            )
            self.kept[place : place + 1] = [one]


def _chosen(entry: Entry | None, line: int, seed: int, share: float) -> bool:
    """By what the line says; one that cannot be read says only where it stands."""
    said = f"{seed}|{line}" if entry is None else f"{seed}|{entry.at!r}|{entry.method}|{entry.target}|{entry.status}"
    number = int.from_bytes(hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return number < share * 2**64


def _timed(kept: Iterable[Replayed]) -> tuple[Replayed, ...]:
    """In order of time, from zero. Requests whose time is not known follow the others, one a second."""
    known = sorted((one for one in kept if math.isfinite(one.at)), key=lambda one: one.at)
    unknown = [one for one in kept if not math.isfinite(one.at)]
    first, last = (known[0].at, known[-1].at) if known else (0.0, -1.0)
    placed = [replace(one, at=round(one.at - first, 6)) for one in known]
    return (*placed, *(replace(one, at=last - first + 1.0 + index) for index, one in enumerate(unknown)))


def pace(requests: Iterable[Replayed], *, seconds: float, speed: float | None = None) -> list[tuple[float, Replayed]]:
    """(when, request) from zero: at their own pace, or `speed` times as fast, or so fast that they fit into `seconds`.

    What would come after `seconds` is left out. Requests that a log puts into one second (nginx knows no less) are spread over it.
    """
    listed = list(requests)
    if not listed:
        return []
    span = listed[-1].at + 1.0
    factor = speed if speed is not None else max(1.0, span / seconds)
    placed: list[tuple[float, Replayed]] = []
    index = 0
    while index < len(listed):
        same = index
        while same < len(listed) and listed[same].at == listed[index].at:
            same += 1
        whole = listed[index].at.is_integer()
        for turn in range(index, same):
            offset = (turn - index) / (same - index) if whole else 0.0
            placed.append(((listed[turn].at + offset) / factor, listed[turn]))
        index = same
    return [one for one in placed if one[0] <= seconds]


def as_lines(drawn: Drawn) -> str:
    """The recording as JSON lines of Caddy's form, scrubbed: what may leave production, and is read again by `draw`."""
    lines = []
    for one in drawn.requests:
        asked = {"method": one.method, "uri": one.target} | ({"host": one.host} if one.host else {})
        took = {"duration": one.seconds} if math.isfinite(one.seconds) else {}
        lines.append(json.dumps({"ts": round(one.at, 6), "request": asked, "status": one.status, **took}))
    return "\n".join(lines) + ("\n" if lines else "")
