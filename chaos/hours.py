"""48 consecutive hours: each hour GREEN, GREY or RED, the streak of them, and what a month's error budget has left.

'Every hour proves PASS' would fail good services: a true 99.95 % at 10 requests a second is green for 48 hours with a probability of
0.11. So an hour is RED only when it *violates*, at a level that is shared between all hours and gates (Bonferroni), GREY when too
little is known of it, and else GREEN. RED resets the streak, GREY pauses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from chaos.statistics import ALPHA, lower

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

WANTED = 48
COVERED = 0.99  # share of an hour's seconds that must have been looked at
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
    """An hour's colour, and why it is not green."""

    number: int
    colour: Colour
    why: str = ""


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
        return Judged(hour.number, Colour.GREY, f"only {hour.covered:.1%} of its seconds were looked at")
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
    """Of hours in order. A number that is missing was not looked at at all: GREY."""
    now = longest = green = grey = red = 0
    last: int | None = None
    for one in judged:
        if last is not None and one.number > last + 1:
            grey += one.number - last - 1
        last = one.number
        if one.colour is Colour.RED:
            red, now = red + 1, 0
        elif one.colour is Colour.GREEN:
            green, now = green + 1, now + 1
            longest = max(longest, now)
        else:
            grey += 1
    return Streak(now, longest, green, grey, red)
