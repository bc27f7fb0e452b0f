"""Exact binomial bounds and design effects, written from their sources and from no code of the judging side.

Clopper and Pearson, Biometrika 26 (1934): the bounds are quantiles of beta distributions, and so of the inverse of the regularised
incomplete beta function (NIST Digital Library of Mathematical Functions, 8.17).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    n, bad_total = sum(sizes.values()), sum(wrong.values())
    return 1.0 if bad_total in {0, n} else _design([(wrong[block], size) for block, size in sizes.items()], bad_total, n)


def quantile(values: Iterable[float], per_mille: int) -> float:
    """The smallest value that at least so many thousandths of the sample do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * per_mille // 1000)  # rounded up
    return ordered[max(0, rank - 1)] if ordered else 0.0


def bursts(blocks: Sequence[tuple[int, int]]) -> float:
    """The upper bound of a rate whose failures may come in bursts; `blocks` are (bad, n) of consecutive minutes.

    The widest of three: plain Clopper and Pearson; the same on n over the design effect; and the gamma interval of a weighted sum of
    Poisson counts (Fay and Feuer, Statistics in Medicine 16, 1997), a burst's weight being its size. A burst is a run of minutes that
    are worse than usual: above the median rate by more than three standard deviations of a Poisson count.
    """
    bad, n = sum(one for one, _ in blocks), sum(one for _, one in blocks)
    if bad in {0, n}:
        return above(bad, n)
    from scipy.special import gammaincinv  # noqa: PLC0415

    ordered = sorted(one / size for one, size in blocks)
    usual = ordered[(len(ordered) - 1) // 2]
    weights: list[int] = []
    single, before = 0, False
    for one, size in blocks:
        worse = one > usual * size + 3 * math.sqrt(usual * size)
        if not worse:
            single += one
        elif before:
            weights[-1] += one
        else:
            weights.append(one)
        before = worse
    total, squares = single + sum(weights), single + sum(one * one for one in weights)
    most = max(weights, default=1)
    next_one = 1.0 if most == 1 else most + 2 * sum(weights) / len(weights)
    scale = (squares + next_one**2) / (total + next_one)
    compound = min(1.0, scale * float(gammaincinv((total + next_one) / scale, 1 - ALPHA)) / n)
    deff = _design(blocks, bad, n)
    return max(above(bad, n), above(bad / deff, n / deff), compound)


def _design(blocks: Sequence[tuple[int, int]], bad: int, n: int) -> float:
    rate, many = bad / n, len(blocks)
    if many < 2:
        return 1.0
    residual = sum((one - rate * size) ** 2 for one, size in blocks)
    return max(1.0, many * residual / ((many - 1) * n * n) * n / (rate * (1 - rate)))
