"""Looking again and again without being wrong more often: e-processes for a canary.

An e-process starts at 1 and, while the null hypothesis holds, reaches 100 with a probability of at most 1 % *ever*, however often it
is looked at (Ville's inequality, 1939; Ramdas et al., 'Game-theoretic statistics and safe anytime-valid inference', 2023). The one
here is a mixture over all rates above a limit, beta-distributed, and has a closed form: no simulation, no tuning per traffic.
A threshold looked at every minute pauses a healthy service on nine days of ten; this does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PAUSE = 100.0  # the e-value from which on a roll-out pauses: at most one false pause in a hundred roll-outs, for ever
TRIP = 20  # failures in a row that need no statistics
TENFOLD = 10.0  # the prior's mean, in limits: a release that is bad is bad by an order of magnitude, or it is waited for longer


def e_value(bad: float, n: float, limit: float) -> float:
    """The evidence of `bad` of `n` against 'the rate is at most `limit`'; 1.0 without data, inf when it overflows.

    integral over q > limit of q^bad (1-q)^(n-bad) / (limit^bad (1-limit)^(n-bad)) under Beta(1, 1/(10 limit)) given q > limit.
    For every true rate below the limit each factor's expectation is at most 1 for every q above it, so this is an e-process of the
    composite null.
    """
    if n <= 0:
        return 1.0
    if limit <= 0.0:
        return math.inf if bad else 1.0
    from scipy.special import betaln  # noqa: PLC0415  (0.4 s to import, and most runs never need it)
    from scipy.stats import beta  # noqa: PLC0415

    a, b = 1.0, 1.0 / (TENFOLD * limit)
    above = beta.logsf(limit, a + bad, b + n - bad) - beta.logsf(limit, a, b)
    log = betaln(a + bad, b + n - bad) - betaln(a, b) + above - bad * math.log(limit) - (n - bad) * math.log1p(-limit)
    return math.exp(min(log, 700.0)) if log < 700.0 else math.inf


@dataclass(slots=True)
class Watch:
    """One quantity of a canary, looked at after each request: its e-value so far, the largest there was, and the failures in a row."""

    limit: float
    n: int = 0
    bad: int = 0
    row: int = 0
    highest: float = 1.0

    def add(self, *, failed: bool) -> None:
        """One more request."""
        self.n += 1
        self.bad += failed
        self.row = self.row + 1 if failed else 0

    def look(self) -> float:
        """The e-value now; remembers the highest, for having been reached once is enough."""
        value = e_value(self.bad, self.n, self.limit)
        self.highest = max(self.highest, value)
        return value

    @property
    def pauses(self) -> str:
        """Why this pauses the roll-out; '' when it does not."""
        if self.row >= TRIP:
            return f"{self.row} failures in a row"
        if self.highest >= PAUSE:
            return f"{self.bad} of {self.n:,} is more than {self.limit:.3%}, evidence {self.highest:,.0f} to 1"
        return ""
