"""When requests are due: planned arrival times, the same for the same seed, whatever the target does.

An open loop: no arrival waits for an answer. Gaps are exponential (a Poisson process, as independent users make) or equal.
"""

from __future__ import annotations

import bisect
import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Arrivals:
    """An endless row of (time, which request). Times are those of the caller's clock.

    `weights` are of the requests that are chosen between. `turn` (i, n) takes each n-th arrival from the i-th on: n senders of one seed
    send every arrival once, and together what one of them would. Each arrival has its own dice, so that leaving one out moves no other.
    """

    def __init__(
        self,
        *,
        seed: int,
        weights: Sequence[float],
        rate: float,
        start: float,
        paced: bool = False,
        turn: tuple[int, int] = (0, 1),
    ) -> None:
        self._seed = seed
        self._changes = 0
        self._dice = random.Random(seed)  # noqa: S311  (a reproducible schedule, not a secret)
        self._sums = list(itertools.accumulate(weights))
        self._paced = paced
        self._turn = turn
        self._number = -1
        self._rate = rate
        self._from = start
        self.due = float("inf")  # when the next one is
        self.which = 0
        self._step()

    @property
    def rate(self) -> float:
        """Arrivals a second, of all senders together."""
        return self._rate

    def take(self) -> tuple[float, int]:
        """The next one, which the caller now sends or counts as not sent."""
        taken = self.due, self.which
        self._from = self.due
        self._step()
        return taken

    def change(self, rate: float, at: float) -> None:
        """Another rate from `at` on; 0 stops. Exponential gaps have no memory, so a new one may begin at any time.

        The dice begin anew, so that several senders of one seed agree again, however far each of them had come.
        """
        self._changes += 1
        self._dice = random.Random(f"{self._seed} {self._changes}")  # noqa: S311
        self._number = -1
        self._rate = rate
        self._from = at
        self._step()

    def skip(self, until: float) -> int:
        """Leave out what was due before `until`; how many those were."""
        left = 0
        while self.due < until:
            self.take()
            left += 1
        return left

    def _step(self) -> None:
        if self._rate <= 0:
            self.due = float("inf")
            return
        first, of = self._turn
        at = self._from
        while True:
            self._number += 1
            at += 1 / self._rate if self._paced else self._dice.expovariate(self._rate)
            chosen = self._dice.random() * self._sums[-1]
            if self._number % of == first:
                break
        self.due, self.which = at, bisect.bisect_right(self._sums, chosen, hi=len(self._sums) - 1)
