"""A bounded sample of acknowledged writes, looked up again and again: is each there, and once?

A list that is cut off at some length denies nothing: it does not show what is beyond its end. So a write that is missing counts as lost
only where a write before it and a write after it are both shown at the same time: whatever the list leaves out at its ends, it has no
hole in the middle.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.model import Kind, Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.traffic.driver import Driver

TAKEN = 4  # of each kind that are remembered a minute
LOOKED_UP = 8  # of each kind a minute
KEPT = 48  # of each kind that are remembered: the newest half, and a thinned choice of all before


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look came to. `examples` are the writes that were lost or doubled."""

    checked: int = 0
    lost: int = 0
    doubled: int = 0
    examples: tuple[Operation, ...] = ()


def judged(writes: Sequence[Operation], shown: Mapping[str, Operation], once: Mapping[str, int]) -> Seen:
    """`writes` in the order in which they were acknowledged, `shown` the good answers to their read_back by {unique}.

    `once` is how often a single write is in its read_back, by sample: without that nothing can be said of one.
    """
    lost: list[Operation] = []
    doubled: list[Operation] = []
    checked = 0
    for sample in dict.fromkeys(one.sample for one in writes):
        usual = once.get(sample, 0)
        if usual < 1:
            continue
        these = [(one, shown[one.unique].occurrences) for one in writes if one.sample == sample and one.unique in shown]
        there = [place for place, (_, times) in enumerate(these) if times > 0]
        for place, (one, times) in enumerate(these):
            missing = times == 0 and bool(there) and there[0] < place < there[-1]
            checked += times > 0 or missing
            lost += [one] if missing else []
            doubled += [one] if times > usual else []
    return Seen(checked, len(lost), len(doubled), (*lost, *doubled))


@dataclass
class Sampled:
    """The writes of one run that are remembered, and the look at some of them each minute."""

    driver: Driver
    once: Mapping[str, int]
    seed: int
    kept: dict[str, list[Operation]] = field(default_factory=dict)
    looks: int = 0

    def look(self, acknowledged: Iterable[Operation]) -> Seen:
        """Remember some of these, look up some of all; nothing where the target has no write that can be read back."""
        self.looks += 1
        dice = random.Random(f"{self.seed}:{self.looks}")  # noqa: S311  (a sample, no secret)
        new: dict[str, list[Operation]] = {}
        for one in acknowledged:
            if one.kind is Kind.WRITE and self.once.get(one.sample, 0) > 0:
                new.setdefault(one.sample, []).append(one)
        for sample, these in new.items():
            kept = self.kept.setdefault(sample, [])
            kept += sorted(dice.sample(these, min(TAKEN, len(these))), key=lambda one: one.finished)
            self._thin(kept, dice)
        chosen = [one for kept in self.kept.values() for one in self._chosen(kept, dice)]
        shown = {key: one for key, one in self.driver.read_back(chosen).items() if one.occurrences >= 0} if chosen else {}
        seen = judged(chosen, shown, self.once)
        wrong = {one.unique for one in seen.examples}
        for kept in self.kept.values():  # each counts once
            kept[:] = [one for one in kept if one.unique not in wrong]
        return seen

    @staticmethod
    def _chosen(kept: Sequence[Operation], dice: random.Random) -> list[Operation]:
        """The oldest, the newest, and some between, in order."""
        if len(kept) <= LOOKED_UP:
            return list(kept)
        places = {0, len(kept) - 1, len(kept) - 2, *dice.sample(range(1, len(kept) - 2), LOOKED_UP - 3)}
        return [kept[place] for place in sorted(places)]

    @staticmethod
    def _thin(kept: list[Operation], dice: random.Random) -> None:
        """The newest half stays; of the older ones but the first, one goes for each that is too many."""
        while len(kept) > KEPT:
            del kept[dice.randrange(1, KEPT // 2)]
