"""Latency histograms that add up without loss: HDR (Tene), 1 us to 1 h, three significant digits. Values in and out are seconds.

Kept as text: base64 of the compressed V2 encoding, which every HDR library reads (https://github.com/HdrHistogram/HdrHistogram).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hdrh.histogram import HdrHistogram

if TYPE_CHECKING:
    from collections.abc import Iterable

LOWEST, HIGHEST, DIGITS = 1, 3_600_000_000, 3  # us, us, significant digits
MICRO = 1_000_000


class Histogram:
    """Mutable while it fills; `text()` is what is kept. A quantile is exact to 0.1 % of its value."""

    def __init__(self, text: str = "") -> None:
        self._counts = HdrHistogram.decode(text.encode("ascii")) if text else HdrHistogram(LOWEST, HIGHEST, DIGITS)

    def record(self, seconds: float, count: int = 1) -> None:
        """Add one value, or the same several times; below 1 us is 1 us, above an hour an hour."""
        self._counts.record_value(min(HIGHEST, max(LOWEST, round(seconds * MICRO))), count)

    def add(self, other: Histogram) -> None:
        """Everything that the other one holds."""
        self._counts.add(other._counts)

    def add_text(self, text: str) -> None:
        """Everything that a kept one holds ('' holds nothing): a seventh of the time of decoding it first."""
        if text:
            self._counts.decode_and_add(text.encode("ascii"))

    def clear(self) -> None:
        """Empty again."""
        self._counts.reset()

    def above(self, seconds: float) -> int:
        """How many values are longer, to the histogram's resolution."""
        index = self._counts.get_counts_array_index(min(HIGHEST, max(LOWEST, round(seconds * MICRO))))
        return sum(self._counts.counts[index + 1 :])

    def counts(self) -> dict[float, int]:
        """Value (seconds, to the histogram's resolution) -> how often it was there."""
        found = enumerate(self._counts.counts)
        return {self._counts.get_value_from_index(index) / MICRO: count for index, count in found if count}

    def __len__(self) -> int:
        return int(self._counts.get_total_count())

    def quantile(self, share: float) -> float:
        """The value that `share` (0 to 1) of all are at or below; NaN when it is empty."""
        return self._counts.get_value_at_percentile(share * 100) / MICRO if len(self) else math.nan

    def pairs(self) -> tuple[tuple[float, int], ...]:
        """(value, how often), smallest first: what a count above some limit is made from, to a thousandth of the value."""
        import numpy as np  # noqa: PLC0415  (0.1 s to import)

        counts = np.asarray(self._counts.counts)
        return tuple((self._counts.get_value_from_index(int(at)) / MICRO, int(counts[at])) for at in np.nonzero(counts)[0])

    def text(self) -> str:
        """'' when it is empty."""
        return str(self._counts.encode().decode("ascii")) if len(self) else ""


def merged(texts: Iterable[str]) -> Histogram:
    """One histogram of many; those that are empty count for nothing."""
    whole = Histogram()
    for text in texts:
        whole.add_text(text)
    return whole
