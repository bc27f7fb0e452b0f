"""Drawings by time: errors, recovery, and what a long run keeps - latency, errors and gauges by stretch - with faults shaded.

The same canvas, colours and time axis as `charts`. What is drawn is bounded by `binned` and by the width of the drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.evidence.charts import GOOD, HOSTILE, LIMIT, REFUSED, SILENT, Draw, Stretch, dots, ground, shaded, short, time_axis
from chaos.evidence.words import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from chaos.evidence.binned import Bins, Level, Long
    from chaos.evidence.series import Series

LEFT, RIGHT = 0.62, 0.1  # inches beside the axes
STRATA = (
    ("while nothing was broken", (("steady", SILENT), ("dropped", HOSTILE))),
    ("while something was", (("fault", REFUSED),)),
)
DASHES = {"": "-", "baseline": (0, (5, 2)), "candidate": "-"}


def _canvas(figure: Figure, width: float, *, tall: float, rows: int = 1) -> list[Axes]:
    """Rows of axes above each other, with room for the labels of the lowest."""
    height = 0.34 + tall * rows
    figure.set_size_inches(width, height)
    every = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    figure.subplots_adjust(left=LEFT / width, right=1 - RIGHT / width, top=1 - 0.06 / height, bottom=0.28 / height, hspace=0.14)
    return list(every)


def _ground(axes: Axes, span: float, width: float, stretches: Sequence[Stretch]) -> None:
    """The time axis, its grid, and what was broken behind it."""
    time_axis(axes, span, width)
    axes.grid(visible=True, axis="y")
    ground(axes, stretches)


def _seconds_axis(axes: Axes) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([value * ten for ten in (0.001, 0.01, 0.1, 1, 10, 100) for value in (1, 3)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))


# -- a short run -------------------------------------------------------------------------------------------------------------------


def errors(series: Series) -> Draw:
    """Bad answers per second: with an error, and none at all."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        [axes] = _canvas(figure, width, tall=1.35)
        _ground(axes, series.span, width, shaded(series.faults, series.span))
        bucket, rates = series.bad_rates()
        edges = [index * bucket for index in range(len(rates["silent"]) + 1)]
        both = [one + other for one, other in zip(rates["silent"], rates["refused"], strict=True)]
        axes.stairs(rates["silent"], edges, fill=True, facecolor=SILENT, alpha=0.85, linewidth=0)
        axes.stairs(both, edges, baseline=rates["silent"], fill=True, facecolor=REFUSED, alpha=0.7, linewidth=0)
        axes.set_ylim(0, max([*both, 1.0]) * 1.2)
        axes.text(0.004, 0.97, "bad answers per second", transform=axes.transAxes, va="top", fontsize="small")
        return {}

    return draw


def recovery(series: Series, limit: float) -> Draw:
    """When a fault had gone, and how long after that the target served again; a cross at the top: never."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        [axes] = _canvas(figure, width, tall=1.35)
        _ground(axes, series.span, width, shaded(series.faults, series.span))
        known = [(one.end, max(0.001, one.recovered)) for one in series.faults if one.took and one.recovered is not None]
        never = [one.end for one in series.faults if one.took and one.healed and one.recovered is None]
        _seconds_axis(axes)
        top = max([limit, *(y for _, y in known), 1.0]) * 2.5
        axes.set_ylim(min([0.05, *(y for _, y in known)]) * 0.7, top)
        late = [point for point in known if limit and point[1] > limit]
        dots(axes, [point for point in known if point not in late], GOOD, 4.5)
        dots(axes, late, SILENT, 5.5)
        axes.plot(never, [top / 1.3] * len(never), "x", color=SILENT, markersize=5, clip_on=False)
        _limits(axes, [(limit, f"limit {duration(limit)}")] if limit else [])
        return {}

    return draw


def _limits(axes: Axes, limits: Sequence[tuple[float, str]]) -> None:
    for value, text in limits:
        axes.axhline(value, color=LIMIT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        axes.text(0.998, value, text, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize="x-small")


# -- a long run --------------------------------------------------------------------------------------------------------------------


def latency(long: Long, stretches: Sequence[Stretch], limits: Sequence[tuple[float, str]]) -> Draw:
    """P50, P95 and P99 of the steady reads, a point a stretch; a release a line, the baseline's dashed. `limits`: (s, words)."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        [axes] = _canvas(figure, width, tall=2.0)
        _ground(axes, long.span, width, stretches)
        _seconds_axis(axes)
        values: list[float] = [limit for limit, _ in limits]
        half = long.asked.width / 2
        for release in sorted(long.releases):
            found = long.quantiles(release)
            style = DASHES.get(release, ":")
            for index, (name, color) in enumerate((("P50", GOOD), ("P95", REFUSED), ("P99", SILENT))):
                points = [(at + half, quantiles[index]) for at, quantiles in found]
                values += [y for _, y in points]
                axes.plot(
                    [x for x, _ in points], [y for _, y in points], color=color, linewidth=1.4, linestyle=style,
                    marker="" if len(points) > 2 else "o", markersize=3,
                )  # fmt: skip
                if points:  # a line is known by its name, not by its colour alone
                    axes.text(points[0][0], points[0][1] * 1.05, name, fontsize="x-small", va="bottom")
        _limits(axes, limits)
        axes.set_ylim(min([*values, 1.0]) * 0.6, max([*values, 0.001]) * 1.9)
        return {}

    return draw


def failures(long: Long, stretches: Sequence[Stretch]) -> Draw:
    """The share of requests that came to no good, a bar a stretch; apart, for their scales: outside fault windows, and within."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

        step = long.asked.width
        held = {round((at - long.first) / step): one for at, one in long.asked.items()}
        edges = [min(number * step, long.span) for number in range(max(held) + 2)]
        for axes, (title, strata) in zip(_canvas(figure, width, tall=1.05, rows=len(STRATA)), STRATA, strict=True):
            _ground(axes, long.span, width, stretches)
            below = [0.0] * (len(edges) - 1)
            for stratum, color in strata:
                shares = (
                    one.bad[stratum] / one.planned if one and one.planned else 0.0 for one in map(held.get, range(len(below)))
                )
                above = [low + share for low, share in zip(below, shares, strict=True)]
                axes.stairs(above, edges, baseline=below, fill=True, facecolor=color, alpha=0.85, linewidth=0)
                below = above
            axes.set_ylim(0, max(below) * 1.35 or 0.001)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.3g} %"))
            axes.text(0.004, 0.95, title, transform=axes.transAxes, va="top", fontsize="small")
        return {}

    return draw


def gauges(chosen: Sequence[tuple[str, Bins[Level]]], long: Long, stretches: Sequence[Stretch]) -> Draw:
    """A row a gauge: its mean as a line, from the smallest to the largest value of a stretch as a band."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

        for axes, (name, bins) in zip(_canvas(figure, width, tall=0.8, rows=len(chosen)), chosen, strict=True):
            _ground(axes, long.span, width, stretches)
            half = bins.width / 2 if len(bins) > 1 else 0.0
            found = [(min(long.span, at - long.first + half), held) for at, held in bins.items()]
            times = [at for at, _ in found]
            axes.fill_between(times, [held.low for _, held in found], [held.high for _, held in found], color=GOOD, alpha=0.25,
                              linewidth=0)  # fmt: skip
            axes.plot(times, [held.mean for _, held in found], color=GOOD, linewidth=1.2)
            low, high = min(held.low for _, held in found), max(held.high for _, held in found)
            room = (high - low) or abs(high) * 0.1 or 1.0
            axes.set_ylim(min(low, max(0.0, low - room * 0.15)), high + room * 0.6)
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _, name=name: amount(name, value)))
            axes.text(0.004, 0.95, short(name, 60), transform=axes.transAxes, va="top", fontsize="small")
        return {}

    return draw


def amount(name: str, value: float) -> str:
    """A gauge's value with its unit, where its name tells it: bytes for what is memory, else a plain number."""
    if "memory" in name or name.endswith("bytes"):
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if abs(value) >= size:
                return f"{value / size:.3g} {unit}"
        return f"{value:.0f} B"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
