"""Exact binomial bounds and design effects, written from their sources and from no code of the judging side.

Clopper and Pearson, Biometrika 26 (1934): the bounds are quantiles of beta distributions, and so of the inverse of the regularised
incomplete beta function (NIST Digital Library of Mathematical Functions, 8.17).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ALPHA = 0.05


def below(bad: float, n: float, alpha: float = ALPHA) -> float:
    """The one-sided lower bound of a rate; 0 without observations."""
    from scipy.special import betaincinv  # noqa: PLC0415  (0.2 s to import)

    return float(betaincinv(bad, n - bad + 1, alpha)) if bad > 0 and n > 0 else 0.0


def above(bad: float, n: float, alpha: float = ALPHA) -> float:
    """The one-sided upper bound of a rate; 1 without observations."""
    from scipy.special import betaincinv  # noqa: PLC0415

    return float(betaincinv(bad + 1, n - bad, 1 - alpha)) if 0 <= bad < n else 1.0


def dependence(blocks: Iterable[tuple[object, bool]]) -> float:
    """The design effect of observations (block, whether bad): how much wider their rate varies than independent ones would. >= 1.

    Between-block variance of a ratio estimate, over the binomial one (Kish, Survey Sampling, 1965, sections 2.7 and 6.5).
    """
    sizes, wrong = Counter[object](), Counter[object]()
    for block, bad in blocks:
        sizes[block] += 1
        wrong[block] += bad
    n, bad_total, many = sum(sizes.values()), sum(wrong.values()), len(sizes)
    if many < 2 or bad_total in {0, n}:
        return 1.0
    rate = bad_total / n
    residual = sum((wrong[block] - rate * size) ** 2 for block, size in sizes.items())
    between = many * residual / ((many - 1) * n * n)
    return max(1.0, between * n / (rate * (1 - rate)))


def quantile(values: Iterable[float], per_mille: int) -> float:
    """The smallest value that at least so many thousandths of the sample do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * per_mille // 1000)  # rounded up
    return ordered[max(0, rank - 1)] if ordered else 0.0
