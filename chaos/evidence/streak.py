"""The hours of a long run as a strip: each one's colour as a word, the streak of green ones, and why an hour is not green."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.evidence.words import plural
from chaos.hours import WANTED, Colour, Judged, streak

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_HOURS = 96  # cells: four days; what came before is said in a sentence
MOST_REASONS = 24
TONES = {Colour.GREEN: "pass", Colour.GREY: "open", Colour.RED: "fail"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One hour."""

    number: int
    word: str
    tone: str
    why: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The last hours, a sentence about all of them, and the hours that are not green (at most `MOST_REASONS`, `more` are left)."""

    said: str
    short: str
    cells: tuple[Cell, ...]
    reasons: tuple[Cell, ...]
    more: int


def strip(judged: Sequence[Judged]) -> Strip | None:
    """Of hours in order; None without any. An hour that is missing between two was not looked at: GREY."""
    if not judged:
        return None
    known = {one.number: one for one in judged}
    first, last = min(known), max(known)
    every = [known.get(number, Judged(number, Colour.GREY, "was not looked at")) for number in range(first, last + 1)]
    found = streak(judged)
    counts = f"{found.green} green, {found.grey} grey, {found.red} red"
    now = "" if found.now == found.longest else f"; {plural(found.now, 'green hour')} since the last red one"
    short = f"{plural(found.longest, 'green hour')} in a row ({WANTED} are wanted)"
    said = f"{short}{now}. Of {plural(len(every), 'hour')}: {counts}. A red hour resets the streak, a grey one pauses it, "
    said += "and at most 0.1 % of its time may have gone unseen."
    if len(every) > MOST_HOURS:
        said += f" Shown are the last {MOST_HOURS}."
    cells = [_cell(one) for one in every]
    reasons = [one for one in cells if one.tone != TONES[Colour.GREEN]]
    reasons.sort(key=lambda one: (one.tone != TONES[Colour.RED], one.number))
    return Strip(said, short, tuple(cells[-MOST_HOURS:]), tuple(reasons[:MOST_REASONS]), max(0, len(reasons) - MOST_REASONS))


def _cell(one: Judged) -> Cell:
    return Cell(one.number, one.colour.value.upper(), TONES[one.colour], one.why)
