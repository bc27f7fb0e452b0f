"""What a finding must hold, as far as the raw rows decide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.verify.numbers import above

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.verify.records import Row

OPEN = -1.0  # of `measured`: the rows do not decide it (None means that nothing was measured)


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one check. `outcome` is '' and `bad` None where the rows do not decide them.

    `least`: at least so many are bad; `most`: `n` may be as much; `upper`: the bound that bad, n and DEFF
    of the finding must come to.
    """

    check: str
    n: int
    bad: int | None = None
    measured: float | None = OPEN
    deff: float | None = None
    outcome: str = ""
    least: int | None = None
    most: int = 0
    upper: float | None = None
    required: bool = True

    def values(self, found: Row, *, vacuous: bool) -> Iterator[tuple[str, object]]:
        """(column, what it must hold). `vacuous`: a fault did not take effect, which leaves a pass inconclusive."""
        yield "n", max(self.n, min(found["n"], self.most))
        if self.bad is not None:
            yield "bad", self.bad
        if self.least is not None:
            yield "bad", max(found["bad"], self.least)
        if self.measured != OPEN:
            yield "measured", self.measured
        if self.deff is not None:
            yield "deff", self.deff
        if self.upper is not None:
            deff = found["deff"]
            reached = above(found["bad"] / deff, found["n"] / deff)
            yield (
                "deff",
                deff if abs(reached - self.upper) <= 1e-6 * self.upper else f"one that gives a bound of {self.upper:.3g}",
            )
        if self.outcome:
            yield "outcome", "inconclusive" if self.outcome == "pass" and vacuous else self.outcome
