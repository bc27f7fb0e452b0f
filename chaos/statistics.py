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


def needed_after(bad: float, limit: float, *, alpha: float = ALPHA) -> int:
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


def episodes(times: Sequence[float], *, apart: float = 60.0) -> list[int]:
    """The sizes of the episodes that failures at these `times` (seconds, in order) fall into, which are `apart` or more."""
    sizes: list[int] = []
    last = -math.inf
    for at in times:
        if at - last >= apart:
            sizes.append(0)
        sizes[-1] += 1
        last = at
    return sizes


def clusters(blocks: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """What (bad, n) of consecutive minutes hold: the sizes of the bursts, and how many failures came by themselves.

    A minute is a burst where it is worse than usual: above the median rate by more than three standard deviations of a Poisson count;
    neighbouring ones are one burst. Without that, a service with a few independent failures in every minute would have had one
    endless episode. (`episodes` is for failures whose times are known.)
    """
    rates = sorted(bad / n for bad, n in blocks if n > 0)
    usual = rates[(len(rates) - 1) // 2] if rates else 0.0
    sizes: list[int] = []
    alone, going_on = 0, False
    for bad, n in blocks:
        mean = usual * n
        worse = bad > mean + 3 * math.sqrt(mean)
        if worse and going_on:
            sizes[-1] += bad
        elif worse:
            sizes.append(bad)
        else:
            alone += bad
        going_on = worse
    return sizes, alone


def upper_of_episodes(sizes: Sequence[int], n: float, *, alone: int = 0, alpha: float = ALPHA) -> float:
    """The largest rate of failures that come in episodes of these sizes, and `alone`, in `n` observations: a compound Poisson process.

    The gamma interval of a weighted sum of Poisson counts (Fay and Feuer, Statistics in Medicine 16, 1997), each episode's weight its
    size. The weight of the episode that might have come as well is the largest one, and two mean sizes more: with few of them the
    next may well be larger than any. Single failures give the Poisson bound (Garwood, 1936), none at all the rule of three.
    """
    if n <= 0:
        return 1.0
    from scipy.stats import gamma  # noqa: PLC0415

    total, squares = alone + sum(sizes), alone + sum(one * one for one in sizes)
    largest = float(max(sizes, default=1))
    weight = largest if largest == 1 else largest + 2 * sum(sizes) / len(sizes)
    scale = (squares + weight**2) / (total + weight)
    return min(1.0, scale * float(gamma.ppf(1.0 - alpha, (total + weight) / scale)) / n)


def wider(blocks: Sequence[tuple[int, int]], sizes: Sequence[int], *, alone: int = 0, alpha: float = ALPHA) -> float:
    """The upper bound of a rate that may come in bursts: the wider of Clopper-Pearson on n/DEFF and the episodes' own.

    `blocks` are (bad, n) of consecutive minutes, `sizes` those of `episodes` or `clusters`. Plain bounds covered 56 % on bursty
    failures where 95 % were asked for (simulated: benchmarks/statistics_simulated.py).
    """
    bad, n = sum(one for one, _ in blocks), sum(one for _, one in blocks)
    deff = design_effect(blocks)
    return max(upper(bad / deff, n / deff, alpha=alpha), upper_of_episodes(sizes, n, alone=alone, alpha=alpha))


def effective(blocks: Sequence[tuple[int, int]]) -> float:
    """The design effect with which Clopper-Pearson's upper bound is the wider one of the two: >= 1, and 1 without any failure.

    So a finding carries one number, and whoever has k, n and that number has the bound.
    """
    bad, n = sum(one for one, _ in blocks), sum(one for _, one in blocks)
    if bad == 0 or bad >= n:
        return 1.0
    sizes, alone = clusters(blocks)
    wanted = wider(blocks, sizes, alone=alone)
    low, high = 1.0, float(n)
    if upper(bad, n) >= wanted:
        return low
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if upper(bad / middle, n / middle) < wanted else (low, middle)
    return high


def burn(bad: float, projected: float, *, objective: float = 0.001) -> float:
    """Share of a 30 days' error budget that `bad` events burn: bad / (objective x events `projected` for those 30 days)."""
    return bad / (objective * projected) if projected > 0 else 0.0


def judge_rate(bad: int, n: int, limit: float, *, deff: float = 1.0) -> Outcome:
    """Three-valued: FAIL when even the lower bound breaks `limit`, PASS when the upper one keeps it, else INCONCLUSIVE."""
    if n == 0:
        return Outcome.INCONCLUSIVE
    if lower(bad / deff, n / deff) > limit:
        return Outcome.FAIL
    return Outcome.PASS if upper(bad / deff, n / deff) <= limit else Outcome.INCONCLUSIVE
