"""Two releases beside each other: ratios of quantiles and of rates, with bounds that know how requests hang together.

Pure; random numbers come from a seed. One-sided 95 % unless said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.model import Outcome
from chaos.statistics import ALPHA

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPLICATES = 400
FEWEST = 20  # blocks an arm, and buckets of a baseline, below which nothing is said


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of candidate to baseline, with its one-sided bounds. `why` says what was missing when there is none."""

    value: float
    low: float
    high: float
    why: str = ""


def quantile_ratio(
    baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], q: float, *, seed: int = 1, alpha: float = ALPHA
) -> Ratio:
    """How much longer the candidate's `q` quantile is, from blocks of latencies (seconds), each block a stretch of time.

    Whole blocks are drawn again, with replacement, an arm at a time (block bootstrap: Künsch, 1989), because neighbours hang together.
    Interleave the arms (A-B-B-A), else what the machine did meanwhile is the difference. The bounds are percentiles of ln ratio.
    """
    if min(len(baseline), len(candidate)) < FEWEST:
        return Ratio(math.nan, 0.0, math.inf, f"needs {FEWEST} blocks an arm, there are {len(baseline)} and {len(candidate)}")
    import numpy as np  # noqa: PLC0415  (0.1 s to import)

    rng = np.random.default_rng(seed)
    arms = [[np.asarray(block, dtype=float) for block in arm if len(block)] for arm in (baseline, candidate)]
    if min(map(len, arms)) < FEWEST:
        return Ratio(math.nan, 0.0, math.inf, "too many blocks are empty")

    def drawn(arm: list[np.ndarray]) -> float:
        return float(np.quantile(np.concatenate([arm[i] for i in rng.integers(0, len(arm), len(arm))]), q))

    value = math.log(float(np.quantile(np.concatenate(arms[1]), q)) / float(np.quantile(np.concatenate(arms[0]), q)))
    logs = np.array([math.log(drawn(arms[1]) / drawn(arms[0])) for _ in range(REPLICATES)])
    low, high = np.quantile(logs, [alpha, 1 - alpha])
    return Ratio(math.exp(value), math.exp(float(low)), math.exp(float(high)))


def quantile_ratio_of_counts(
    baseline: Sequence[Mapping[float, int]],
    candidate: Sequence[Mapping[float, int]],
    q: float,
    *,
    seed: int = 1,
    alpha: float = ALPHA,
    paired: bool = False,
) -> Ratio:
    """The same from histograms: each block is value -> how often. Ratios come in the histograms' own steps.

    `paired`: the i-th blocks of both are one stretch of time, and are drawn together: what the machine did to both cancels out.
    """
    arms = [[block for block in arm if block] for arm in (baseline, candidate)]
    if min(map(len, arms)) < FEWEST:
        return Ratio(math.nan, 0.0, math.inf, f"needs {FEWEST} blocks an arm, there are {len(arms[0])} and {len(arms[1])}")
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    together = paired and len(arms[0]) == len(arms[1])

    def quantiles(arm: Sequence[Mapping[float, int]]) -> np.ndarray:
        """Of all of it first, then of each replicate."""
        draw = np.random.default_rng(seed) if together else rng
        values = np.array(sorted({value for block in arm for value in block}))
        place = {value: i for i, value in enumerate(values.tolist())}
        table = np.zeros((len(arm), len(values)))
        for row, block in enumerate(arm):
            for value, count in block.items():
                table[row, place[value]] = count
        drawn = draw.multinomial(len(arm), np.full(len(arm), 1 / len(arm)), REPLICATES)
        summed = np.cumsum(np.vstack([np.ones(len(arm)), drawn]) @ table, axis=1)
        return np.asarray(values[np.argmax(summed >= q * summed[:, -1:], axis=1)])

    logs = np.log(quantiles(arms[1]) / quantiles(arms[0]))
    low, high = np.quantile(logs[1:], [alpha, 1 - alpha])
    return Ratio(math.exp(float(logs[0])), math.exp(float(low)), math.exp(float(high)))


def throughput_ratio(
    baseline: Sequence[tuple[float, float]], candidate: Sequence[tuple[float, float]], *, seed: int = 1, alpha: float = ALPHA
) -> Ratio:
    """How many times *fewer* good answers a second the candidate gives, from (answers, seconds) of blocks: above 1 is worse."""
    if min(len(baseline), len(candidate)) < FEWEST:
        return Ratio(math.nan, 0.0, math.inf, f"needs {FEWEST} blocks an arm, there are {len(baseline)} and {len(candidate)}")
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(seed)

    def rates(arm: Sequence[tuple[float, float]]) -> np.ndarray:
        drawn = rng.multinomial(len(arm), np.full(len(arm), 1 / len(arm)), REPLICATES)
        good, seconds = (np.vstack([np.ones(len(arm)), drawn]) @ np.array(arm, dtype=float)).T
        return np.asarray(np.maximum(good, 0.5) / seconds)

    logs = np.log(rates(baseline) / rates(candidate))
    low, high = np.quantile(logs[1:], [alpha, 1 - alpha])
    return Ratio(math.exp(float(logs[0])), math.exp(float(low)), math.exp(float(high)))


def within(ratio: Ratio, limit: float) -> Outcome:
    """Whether the candidate is at most `limit` times the baseline: 1.05 for 'within 5 %', 1.15 for a canary's P95."""
    if ratio.why:
        return Outcome.INCONCLUSIVE
    if ratio.low > limit:
        return Outcome.FAIL
    return Outcome.PASS if ratio.high <= limit else Outcome.INCONCLUSIVE


def rate_ratio(buckets: Sequence[tuple[float, float]], seen: float, exposure: float, *, alpha: float = ALPHA) -> Ratio:
    """How many times the baseline's rate `seen` events in `exposure` are; `buckets` are the baseline's (events, exposure).

    Unknown hosts come in waves of scanners: their counts vary more than a Poisson's. The baseline is taken for negative binomial, its
    dispersion by moments (Anscombe, 1950), and so is what was seen: log-normal bounds with both variances.
    """
    known = [(events, size) for events, size in buckets if size > 0]
    if len(known) < FEWEST:
        return Ratio(math.nan, 0.0, math.inf, f"needs {FEWEST} buckets of the baseline, there are {len(known)}")
    if exposure <= 0:
        return Ratio(math.nan, 0.0, math.inf, "nothing was observed")
    total, whole = sum(events for events, _ in known), sum(size for _, size in known)
    rate = (total + 0.5) / whole
    spread = sum((events - rate * size) ** 2 - rate * size for events, size in known)
    dispersion = max(0.0, spread / sum((rate * size) ** 2 for _, size in known))
    value = (seen + 0.5) / exposure / rate
    mean = rate * exposure
    variance = 1 / (total + 0.5) + dispersion / len(known) + 1 / max(mean, 0.5) + dispersion
    from scipy.stats import norm  # noqa: PLC0415

    width = float(norm.ppf(1 - alpha)) * math.sqrt(variance)
    return Ratio(value, value * math.exp(-width), value * math.exp(width))
