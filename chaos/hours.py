"""48 consecutive hours: each hour GREEN, GREY or RED, the streak of them, and what a month's error budget has left.

'Every hour proves PASS' would fail good services: a true 99.95 % at 10 requests a second is green for 48 hours with a probability of
0.11. So an hour is RED only when it *violates*, at a level that is shared between all hours and gates (Bonferroni), GREY when too
little is known of it, and else GREEN. RED resets the streak, GREY pauses it; unseen time adds up (`streak`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from chaos.statistics import ALPHA, lower

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WANTED = 48
COVERED = 0.99  # share of an hour's seconds that must have been looked at
UNSEEN = 0.001  # share of a streak's time that nobody may have looked at: as much as rel.availability may be bad
SLIPPED = 0.010  # s: P99 of the send lag above which the load was not the one that was planned
FAST_BURN = 14.4  # of a 30 days' budget an hour: 2 % of it in one hour (Google, The Site Reliability Workbook, 2018, chapter 5)
HOUR = 3600.0


class Colour(StrEnum):
    """Of an hour."""

    GREEN = "green"
    GREY = "grey"
    RED = "red"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """What one hour came to. `counts`: gate -> (bad, n, limit). `covered` is a share of its seconds, `lag` seconds (P99).

    `wrong` counts acknowledged writes that were lost or doubled; `burn` is how many times faster than a month's budget allows.
    """

    number: int
    counts: Mapping[str, tuple[int, int, float]]
    covered: float = 1.0
    lag: float = 0.0
    wrong: int = 0
    burn: float = 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """An hour's colour, and why it is not green; `unseen`: how many seconds of a grey one nobody looked at."""

    number: int
    colour: Colour
    why: str = ""
    unseen: float = 0.0


def judge(hour: Hour, *, hours: int = WANTED) -> Judged:
    """RED before GREY: what was seen was seen, however little else was."""
    level = ALPHA / (hours * max(1, len(hour.counts)))
    for gate, (bad, n, limit) in hour.counts.items():
        if n and lower(bad, n, alpha=level) > limit:
            return Judged(hour.number, Colour.RED, f"{gate}: {bad:,} of {n:,} is above {limit:.3%} (level {level:.2g})")
    if hour.wrong:
        return Judged(hour.number, Colour.RED, f"{hour.wrong} acknowledged writes lost or applied twice")
    if hour.burn > FAST_BURN:
        return Judged(hour.number, Colour.RED, f"the error budget burns {hour.burn:.1f} times too fast (limit {FAST_BURN})")
    if hour.covered < COVERED:
        unseen = (1 - hour.covered) * HOUR
        return Judged(hour.number, Colour.GREY, f"only {hour.covered:.1%} of its seconds were looked at", unseen)
    if hour.lag > SLIPPED:
        return Judged(hour.number, Colour.GREY, f"the load slipped: P99 of the send lag {hour.lag * 1000:.0f} ms")
    return Judged(hour.number, Colour.GREEN)


@dataclass(frozen=True, slots=True)
class Streak:
    """Green hours since the last red one, the longest such stretch, and how many of each there were."""

    now: int
    longest: int
    green: int
    grey: int
    red: int

    @property
    def reached(self) -> bool:
        """Whether the 48 hours are complete."""
        return self.longest >= WANTED


def streak(judged: Iterable[Judged]) -> Streak:
    """Of hours in order. A number that is missing was not looked at at all: GREY.

    A stretch counts its green hours. It ends where one is red, and holds no more unseen time than `UNSEEN` of itself: grey hours
    pause it, but what nobody looked at might have been an outage, and more of that than the objective allows proves nothing.
    """
    hours = _without_holes(judged)
    held = max(
        (index for index, one in enumerate(hours) if one.colour is not Colour.GREY), default=-1
    )  # grey ones at the end pause
    best = [_stretch(hours, end) for end in range(len(hours))]
    counted = [sum(one.colour is colour for one in hours) for colour in (Colour.GREEN, Colour.GREY, Colour.RED)]
    return Streak(best[held] if held >= 0 else 0, max(best, default=0), *counted)


def _without_holes(judged: Iterable[Judged]) -> list[Judged]:
    found: list[Judged] = []
    for one in judged:
        first = found[-1].number + 1 if found else one.number
        found += [Judged(number, Colour.GREY, "was not looked at", HOUR) for number in range(first, one.number)]
        found.append(one)
    return found


def _stretch(hours: Sequence[Judged], end: int) -> int:
    """The most green hours of a stretch that ends with this one."""
    green, unseen, best = 0, 0.0, 0
    for start in range(end, -1, -1):
        if hours[start].colour is Colour.RED:
            break
        green += hours[start].colour is Colour.GREEN
        unseen += hours[start].unseen
        if unseen <= UNSEEN * HOUR * (end - start + 1) + 1e-6:
            best = green
    return best
