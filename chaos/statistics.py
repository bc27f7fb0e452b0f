"""From counts to bounds. Pure functions; alpha = 0.05, one-sided, unless said.

The bounds are exact (Clopper and Pearson, Biometrika 26, 1934): they cover at least 95 %, never less, whatever the true rate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from chaos.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = 0.05


def upper(bad: float, n: float, *, alpha: float = ALPHA) -> float:
    """The largest rate that `bad` of `n` is still compatible with (one-sided 1 - alpha); 1.0 without data."""
    if n <= 0 or bad >= n:
        return 1.0
    if bad == 0:
        return 1.0 - math.pow(alpha, 1.0 / n)  # the closed form of the beta quantile below
    from scipy.stats import beta  # noqa: PLC0415  (0.4 s to import, and most runs of the tool never need it)

    return float(beta.ppf(1.0 - alpha, bad + 1, n - bad))


def lower(bad: float, n: float, *, alpha: float = ALPHA) -> float:
    """The smallest rate that `bad` of `n` is still compatible with (one-sided 1 - alpha); 0.0 without data."""
    if n <= 0 or bad <= 0:
        return 0.0
    if bad >= n:
        return math.pow(alpha, 1.0 / n)
    from scipy.stats import beta  # noqa: PLC0415

    return float(beta.ppf(alpha, bad, n - bad + 1))


def needed(limit: float, *, alpha: float = ALPHA) -> int:
    """How many observations without a single bad one prove a rate <= limit: 2,995 for 0.1 %, 598 for 0.5 %, 299 for 1 %."""
    if limit <= 0:
        return 0
    return math.ceil(math.log(alpha) / math.log1p(-limit))


def needed_after(bad: int, limit: float, *, alpha: float = ALPHA) -> int:
    """How many observations with `bad` bad ones in all prove a rate <= limit (doubling, then bisection)."""
    if bad == 0:
        return needed(limit, alpha=alpha)
    high = needed(limit, alpha=alpha)
    while upper(bad, high, alpha=alpha) > limit:
        high *= 2
    low = high // 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if upper(bad, middle, alpha=alpha) <= limit else (middle, high)
    return high


def design_effect(blocks: Sequence[tuple[int, int]]) -> float:
    """How much less `n` dependent observations say than independent ones: >= 1.

    `blocks` are (bad, n) of consecutive stretches of time. The ratio of the variance of the blocks' rates to the binomial one
    (Kish, Survey Sampling, 1965); 1.0 where there is nothing to estimate it from (fewer than two blocks, or no bad one).
    """
    used = [(bad, n) for bad, n in blocks if n > 0]
    total = sum(n for _, n in used)
    bad_total = sum(bad for bad, _ in used)
    if len(used) < 2 or bad_total in {0, total}:
        return 1.0
    rate = bad_total / total
    count = len(used)
    mean = total / count
    spread = sum((bad - rate * n) ** 2 for bad, n in used) / (count - 1) * count / total**2
    simple = rate * (1 - rate) / (mean * count)
    return max(1.0, spread / simple)


def judge_rate(bad: int, n: int, limit: float, *, deff: float = 1.0) -> Outcome:
    """Three-valued: FAIL when even the lower bound breaks `limit`, PASS when the upper one keeps it, else INCONCLUSIVE."""
    if n == 0:
        return Outcome.INCONCLUSIVE
    if lower(bad / deff, n / deff) > limit:
        return Outcome.FAIL
    return Outcome.PASS if upper(bad / deff, n / deff) <= limit else Outcome.INCONCLUSIVE
