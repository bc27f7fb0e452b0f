"""How long to wait before trying again, and when not to try at all.

Full jitter: a uniform draw from 0 to the exponential bound (AWS Architecture Blog, 'Exponential Backoff And Jitter'). The draw comes
after the cap, so clients that have all reached the cap stay spread out. stamina adds its jitter and then clamps, so none is left at
the cap; psycopg_pool 3.3 jitters the first delay only and has no cap at all.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def full_jitter(failures: int, *, base: float, cap: float) -> float:
    """Seconds to wait after `failures` failures in a row (>= 1): uniform from 0 to min(cap, base * 2^(failures-1))."""
    # The exponent is bounded because 2.0**1024 overflows, after an outage of a quarter of an hour.
    return random.uniform(0.0, min(cap, base * 2.0 ** min(failures - 1, 30)))  # noqa: S311  (spreading load is no secret)


@dataclass(slots=True, kw_only=True)
class RetryBudget:
    """At most `ratio` retries for each first try, over a small reserve: retries must not multiply an outage (Finagle's RetryBudget).

    A first try puts `ratio` in, a retry takes 1 out; never more than `reserve` is kept.
    """

    ratio: float = 0.1
    reserve: float = 5.0
    balance: float = field(default=5.0)

    def first_try(self) -> None:
        """Count a request."""
        self.balance = min(self.reserve, self.balance + self.ratio)

    def allows(self) -> bool:
        """Take one retry out, if there is one."""
        if self.balance < 1.0:
            return False
        self.balance -= 1.0
        return True


def retry_hook(
    *, retryable: Callable[[Exception], bool], budget: RetryBudget, base: float, cap: float, seen: Callable[[str], None]
) -> Callable[[Exception], bool | float]:
    """A backoff hook for one call of `stamina.retry_context`: False ends it, a number is the wait in seconds.

    The number is ours because stamina's own is clamped after its jitter. `seen` is told 'retried' or 'budget_empty'.
    """
    failures = 0

    def hook(error: Exception) -> bool | float:
        nonlocal failures
        if not retryable(error):
            return False
        if not budget.allows():
            seen("budget_empty")
            return False
        failures += 1
        seen("retried")
        return full_jitter(failures, base=base, cap=cap)

    return hook
