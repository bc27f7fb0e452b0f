"""What the pauses between attempts to connect say: do they grow, are they jittered, how large is the herd. Pure functions.

A client is a list of pauses, the first one first (s, from an attempt's end to the next one's beginning), each since its own outage
began. Only pauses that every client completed are used, so that no slow one is left out for being slow. Every number comes with its
interval: bootstrap over clients (Efron, 1979), 5th and 95th percentile, so each bound is one-sided 95 %.

The rules, and the error rates that `python benchmarks/retry_estimators.py` shows for them:

- **growth**: m_k is the mean over clients of pause k, the top the median of its last third. K is the last pause on the way up to half
  of the top: g = (m_K / m_(K-3))^(1/3). Over three steps a linear growth is 1.26 or less from K = 6 on, so with fewer steps nothing is
  said about the kind of growth; `rise`, the top over the first pause, says whether there was any.
- **jitter**: w = (P90 - P10) / median over clients and pauses, each pause by its own mean: once for the pauses on the way up, once for
  the last ones, at the top. What the machine spreads by itself (the noise floor) adds to it in quadrature and is not taken for jitter;
  pauses shorter than 20 times the floor (at the top: 4 times) are left out.
- **herd**: the largest share of clients that attempt within any 100 ms, after the first attempts that a common cause makes common.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chaos.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

GROWS, GROWS_DECORRELATED = (
    1.3,
    1.2,
)  # growth for each attempt; decorrelated jitter grows by 1.5 to 2 in the mean, with a heavier spread
STEPS, LEAST = 3, 6  # pauses between the two means compared; the first K with which linear is told from exponential
FLAT = 1.5  # rise of what does not grow at all, at the most
JITTER = 0.10  # (P90 - P10) / median
SEVERAL = 0.04  # the same, over up to MOST_CHAINS attempts of several chains
TOP = 3  # pauses at the top that have to be seen
AT_TOP = 0.7  # of the largest mean: a pause that long is one of the top
CLEAR_OF_NOISE, AT_LEAST = 20.0, 4.0  # times the noise floor: a pause on the way up, and one at the top
DRAWS = 600
MOST_CHAINS = 12  # of one client
FEW = 5  # clients: with fewer, a bootstrap over them says nothing
WINDOW = 0.1  # s of a herd


@dataclass(frozen=True, slots=True)
class Interval:
    """A number, and its one-sided 95 % bounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def against(self, limit: float) -> Outcome:
        """PASS when all of it lies above, FAIL when all of it lies below."""
        if self.low > limit:
            return Outcome.PASS
        return Outcome.FAIL if self.high < limit else Outcome.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Growth:
    """`each` is the growth with each attempt at pause `step` (None where the top comes too early to tell), `rise` that of all."""

    each: Interval | None
    rise: Interval
    step: int
    top: float  # s, the largest mean
    pauses: int

    @property
    def outcome(self) -> Outcome:
        """PASS: exponential; FAIL: not; INCONCLUSIVE: cannot be told."""
        return self.each.against(GROWS) if self.each else Outcome.INCONCLUSIVE

    @property
    def flat(self) -> bool:
        """Whether it is proven that the pauses do not grow at all."""
        return self.rise.high < FLAT


@dataclass(frozen=True, slots=True)
class Jitter:
    """On the way up (None when all pauses there are too short to tell) and at the top (None when too few were seen)."""

    below: Interval | None
    top: Interval | None
    pauses: int  # of each client, at the top
    noise: tuple[float, float] = (0.0, 0.0)  # share of the pauses that is the machine's: below, at the top
    limit: float = JITTER

    @property
    def outcome(self) -> Outcome:
        """PASS needs both, where there are both; FAIL is enough of one, and stands in any noise, which only adds."""
        seen = [(one, noise) for one, noise in zip((self.below, self.top), self.noise, strict=True) if one is not None]
        if any(one.high < self.limit for one, _ in seen):
            return Outcome.FAIL
        proven = all(one.low > math.hypot(self.limit, noise) for one, noise in seen)
        return Outcome.PASS if self.top is not None and proven else Outcome.INCONCLUSIVE


def completed(clients: Sequence[Sequence[float]]) -> Numbers:
    """Clients x pauses, cut to what every client completed."""
    most = min((len(one) for one in clients), default=0)
    return np.array([one[:most] for one in clients], dtype=np.float64).reshape(len(clients), most)


def growth(clients: Sequence[Sequence[float]], *, seed: int = 0) -> Growth | None:
    """None with fewer than FEW clients, or fewer than STEPS + 1 pauses of each."""
    table = completed(clients)
    if table.shape[0] < FEW or table.shape[1] < STEPS + 1:
        return None
    table = np.maximum(table, 1e-4)
    means = table.mean(axis=0)
    drawn = _resampled(table, seed).mean(axis=1)  # draws x pauses
    last = max(1, table.shape[1] // 3)
    top = float(np.median(means[-last:]))  # the largest of many means would be a chance
    rise = _interval(top / float(means[0]), np.median(drawn[:, -last:], axis=1) / drawn[:, 0])
    step = int(np.argmax(means > top / 2))  # pauses before the first that is more than half of it
    each = None
    if step >= LEAST:
        ratio = (means[step - 1] / means[step - 1 - STEPS]) ** (1 / STEPS)
        each = _interval(float(ratio), (drawn[:, step - 1] / drawn[:, step - 1 - STEPS]) ** (1 / STEPS))
    elif step == 0 and table.shape[1] >= LEAST:  # no pause is half of another: what is compared are the last two that can be
        step = table.shape[1]
        ratio = (means[-1] / means[-1 - STEPS]) ** (1 / STEPS)
        each = _interval(float(ratio), (drawn[:, -1] / drawn[:, -1 - STEPS]) ** (1 / STEPS))
    return Growth(each, rise, step, top, table.shape[1])


def jitter(clients: Sequence[Sequence[float]], *, noise: float, seed: int = 0) -> Jitter | None:
    """`noise` (s): how far the machine alone spreads pauses. None with fewer than FEW clients."""
    table = completed(clients)
    if table.shape[0] < FEW or table.shape[1] < 1:
        return None
    medians = np.median(table, axis=0)
    at_top = int(np.argmax(table.mean(axis=0) >= AT_TOP * float(table.mean(axis=0).max())))
    first = min(at_top, max(0, table.shape[1] - TOP))  # what never levels off has its last pauses for a top
    below = table[:, :first][:, medians[:first] >= CLEAR_OF_NOISE * noise]
    upper = table[:, first:][:, medians[first:] >= AT_LEAST * noise]
    shares = [noise / float(np.median(one, axis=0).min()) if one.size else 0.0 for one in (below, upper)]
    top = _spread(upper, seed) if upper.shape[1] >= TOP else None
    return Jitter(_spread(below, seed), top, upper.shape[1], (shares[0], shares[1]))


def periodic(clients: Sequence[Sequence[float]], *, noise: float, seed: int = 0) -> Jitter | None:
    """Jitter at the top where several chains run in each client; `clients` are times of attempts (s) while the pauses are at the top.

    Of c chains without jitter, every attempt is followed by another one of the same chain exactly c attempts later. The c that spreads
    least is taken for the number of chains, or a multiple: jittered ones spread at every distance, by the less the more attempts lie
    between, but +-10 % is still 0.06 after six turns. So the limit is SEVERAL.
    """
    times = completed(clients)
    if times.shape[0] < FEW or times.shape[1] < 2 * MOST_CHAINS:
        return None
    best: Jitter | None = None
    for count in range(1, MOST_CHAINS + 1):
        apart = times[:, count:] - times[:, :-count]
        pause = float(np.median(apart))
        top = _spread(apart, seed)
        if top is None or pause < max(WINDOW, AT_LEAST * noise):  # attempts of one moment
            continue
        if best is None or best.top is None or top.value < best.top.value:
            best = Jitter(None, top, apart.shape[1], (0.0, noise / pause), SEVERAL)
    return best


def noise_floor(clients: Sequence[Sequence[float]]) -> float:
    """P90 - P10 (s) of the pauses of clients that have no jitter of their own, the worst pause of the later half."""
    table = completed(clients)
    if not table.size:
        return 0.0
    late = table[:, table.shape[1] // 2 :]
    return float((np.percentile(late, 90, axis=0) - np.percentile(late, 10, axis=0)).max())


def herd(clients: Sequence[Sequence[float]], *, after: float = 1.0) -> float:
    """Largest share of clients with an attempt within any WINDOW seconds; `clients` are times of attempts since their outage began."""
    events = sorted((at, who) for who, times in enumerate(clients) for at in times if at >= after)
    if not clients:
        return 0.0
    best, left = 0, 0
    inside: dict[int, int] = {}
    for at, who in events:
        inside[who] = inside.get(who, 0) + 1
        while at - events[left][0] > WINDOW:
            gone = events[left][1]
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            left += 1
        best = max(best, len(inside))
    return best / len(clients)


def _resampled(table: Numbers, seed: int) -> Numbers:
    """Draws x clients x pauses."""
    rng = np.random.default_rng(seed)
    return table[rng.integers(0, table.shape[0], (DRAWS, table.shape[0]))]


def _spread(table: Numbers, seed: int) -> Interval | None:
    """(P90 - P10) / median of all pauses, each divided by its own mean."""
    table = table[:, table.mean(axis=0) > 0]  # attempts of one moment lie nothing apart
    if not table.size:
        return None
    share = table / table.mean(axis=0)
    drawn = _resampled(share, seed).reshape(DRAWS, -1)
    low, middle, high = np.percentile(drawn, (10, 50, 90), axis=1)
    all_low, all_middle, all_high = np.percentile(share, (10, 50, 90))
    return _interval(float((all_high - all_low) / all_middle), (high - low) / middle)


def _interval(value: float, drawn: Numbers) -> Interval:
    low, high = np.percentile(drawn, (5, 95))
    return Interval(value, float(low), float(high))
