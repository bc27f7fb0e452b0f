"""The report's drawings: matplotlib to SVG that stands in the page, in the page's colours and font, light and dark.

Every colour here is a placeholder that becomes a CSS variable, and text stays text. Each drawing is made twice, for a wide and
for a narrow page: one scaled down to a telephone cannot be read. Points are one path of zero-length strokes with round ends,
some 20 bytes each; matplotlib's own markers take 100.
"""

from __future__ import annotations

import io
import logging
import math
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from chaos.evidence.series import FLOOR, Fault, Lane, Point, Series, arrivals
from chaos.evidence.words import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#0a0001", "#0a0002", "#0a0003"
GOOD, REFUSED, SILENT, SHADE = "#0a0004", "#0a0005", "#0a0006", "#0a0007"
HOSTILE, LIMIT, HATCH = "#0a0008", "#0a0009", "#0a0010"
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "line", GOOD: "good", REFUSED: "refused", SILENT: "silent", SHADE: "shade",
    HOSTILE: "hostile", LIMIT: "limit", HATCH: "hatch",
}  # fmt: skip
WIDE, NARROW = 10.2, 4.1  # inches: 734 and 295 units of the drawing, shown on some 1,100 and 350 pixels
MOST_LANES, MOST_ROWS = 8, 32
_RC: Any = {  # Any: matplotlib's type for it is a Literal of every key there is
    "svg.fonttype": "none",
    "svg.hashsalt": "chaos-gate",
    "path.simplify": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": MUTED,
}

Draw = Callable[["Figure", float], dict[str, str]]
Stretch = tuple[float, float]
SPANS = 400  # places along the time axis that a shaded stretch can begin or end at


def drawn(name: str, label: str, draw: Draw) -> str:
    """Both sizes of one drawing, as HTML; `label` says in a sentence what it shows. `draw` answers with tool tips by gid."""
    wide = _svg(f"{name}-w", label, draw, WIDE)
    narrow = _svg(f"{name}-n", label, draw, NARROW)
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


def _svg(name: str, label: str, draw: Draw, width: float) -> str:
    from matplotlib import rc_context  # noqa: PLC0415  (0.5 s)
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it tells users of its cache
    out = io.StringIO()
    with rc_context(_RC if width == WIDE else _RC | {"font.size": 9.5}):
        figure = Figure(figsize=(width, 2.0))
        FigureCanvasSVG(figure)
        tips = draw(figure, width)
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return _adopted(out.getvalue(), name, label, tips)


def _adopted(svg: str, name: str, label: str, tips: dict[str, str]) -> str:
    """The page's own: no prologue, unique ids, colours as variables, the page's font, a label, tool tips."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    for gid, text in tips.items():
        svg = svg.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(text)}</title>', 1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)([^")]+)', rf"\1{name}-\2", svg)
    svg = re.sub(r"#0a00\d\d", lambda match: f"var(--{VARIABLES[match[0]]})", svg)
    svg = re.sub(r"(font: [^;\"]*?[\d.]+px) [^;\"]*", r"\1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    head = re.compile(r"<svg[^>]*>")
    box = re.search(r'viewBox="([^"]*)"', svg)
    assert box is not None
    return head.sub(f'<svg viewBox="{box[1]}" role="img" aria-label="{escape(label)}" focusable="false">', svg, count=1)


def dots(axes: Axes, points: Iterable[Point], color: str, size: float, **more: Any) -> None:
    """Every point a stroke of no length with round ends, all of them one path. Any: matplotlib's own keywords."""
    strokes(axes, [((x, y), (x, y)) for x, y in points], color, size, capstyle="round", **more)


def strokes(axes: Axes, arms: Sequence[tuple[Point, Point]], color: str, width: float, **more: Any) -> None:
    """Lines from point to point, all of them one path. Any: matplotlib's own keywords."""
    from matplotlib.patches import PathPatch  # noqa: PLC0415
    from matplotlib.path import Path  # noqa: PLC0415

    if not arms:
        return
    vertices = [vertex for arm in arms for vertex in arm]
    path = Path(vertices, [Path.MOVETO, Path.LINETO] * len(arms))
    patch = PathPatch(
        path, facecolor="none", edgecolor=color, linewidth=width, joinstyle="round", transform=axes.transData, **more
    )
    axes.add_artist(patch)  # not add_patch: that would take seconds to find limits that are set anyway


def _crosses(axes: Axes, points: Iterable[Point], color: str, across: float) -> None:
    """A cross keeps apart what colour alone would not. `across` is its half width along the time axis, in data units."""
    arms: list[tuple[Point, Point]] = []
    for x, y in points:
        up = 1.13
        arms += [((x - across, y / up), (x + across, y * up)), ((x - across, y * up), (x + across, y / up))]
    strokes(axes, arms, color, 1.0, capstyle="round")


def time_axis(axes: Axes, span: float, width: float) -> None:
    """Seconds since the start as a clock would show them, as many ticks as the width has room for."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator  # noqa: PLC0415

    steps = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172_800, 604_800)
    step = next((one for one in steps if span / one <= width * 1.1), steps[-1])
    axes.set_xlim(0, span)
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value, hours=span > 7200)))


def _clock(seconds: float, *, hours: bool) -> str:
    whole = round(seconds)
    if hours:
        return f"{whole // 3600}:{whole // 60 % 60:02d} h"
    return f"{whole // 60}:{whole % 60:02d}"


def _shade(axes: Axes, faults: Iterable[Fault], width: float, tips: dict[str, str], prefix: str) -> None:
    """The windows in which something was broken; hatched where the fault was not seen to take effect."""
    low, high = axes.get_xlim()
    for one in faults:
        gid = f"{prefix}{one.number}"
        span = axes.axvspan(
            one.start,
            one.end,
            facecolor=SHADE if one.took else "none",
            edgecolor="none" if one.took else HATCH,
            hatch=None if one.took else "////",
            linewidth=0,
            zorder=0,
        )
        span.set_gid(gid)
        lag = "never served again" if one.recovered is None and one.healed else duration(one.recovered) if one.recovered else ""
        tips[gid] = f"{one.number}. {one.title}: {one.seen}" + (f"; serving again after {lag}" if one.recovered else "")
        if (one.end - one.start) / (high - low) * width > 0.12:
            middle = (one.start + one.end) / 2
            axes.text(middle, 0.97, str(one.number), transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=6.5)


def shaded(faults: Iterable[Fault], span: float, *, offset: float = 0.0) -> list[Stretch]:
    """Where something was broken, in seconds of the drawing; what lies on the same spot is one stretch."""
    cells: set[int] = set()
    for one in faults:
        first = max(0, math.floor((one.start - offset) / span * SPANS))
        last = min(SPANS - 1, math.ceil((one.end - offset) / span * SPANS) - 1)
        cells |= set(range(first, max(first, last) + 1)) if first < SPANS and one.end >= offset else set()
    stretches: list[list[int]] = []
    for cell in sorted(cells):
        if stretches and stretches[-1][1] == cell:
            stretches[-1][1] = cell + 1
        else:
            stretches.append([cell, cell + 1])
    return [(begin * span / SPANS, end * span / SPANS) for begin, end in stretches]


def ground(axes: Axes, stretches: Sequence[Stretch]) -> None:
    """What was broken, behind what is drawn: all stretches are one path."""
    from matplotlib.patches import PathPatch  # noqa: PLC0415
    from matplotlib.path import Path  # noqa: PLC0415

    if not stretches:
        return
    vertices = [(x, y) for begin, end in stretches for x, y in ((begin, 0), (begin, 1), (end, 1), (end, 0), (begin, 0))]
    path = Path(vertices, [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(stretches))
    axes.add_artist(PathPatch(path, facecolor=SHADE, linewidth=0, zorder=0, transform=axes.get_xaxis_transform()))


def latency(series: Series) -> Draw:
    """Every request by when it was sent and how long its answer took, a lane a worker, fault windows shaded."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa: PLC0415

        tips: dict[str, str] = {}
        lanes = [(name, lane) for name, lane in series.lanes.items() if lane.good or lane.refused or lane.silent][:MOST_LANES]
        tallest = 1.35 if len(lanes) <= 4 else 1.0
        height = 0.35 + tallest * max(1, len(lanes))
        figure.set_size_inches(width, height)
        highest = max((y for _, lane in lanes for y in _all(lane)), default=1.0)
        every = figure.subplots(max(1, len(lanes)), 1, sharex=True, squeeze=False)[:, 0]
        figure.subplots_adjust(left=0.44 / width, right=1 - 0.08 / width, top=1 - 0.05 / height, bottom=0.28 / height, hspace=0.1)
        for axes, (name, lane) in zip(every, lanes, strict=False):
            axes.set_yscale("log")
            axes.set_ylim(FLOOR * 0.8, max(2.0, highest) * 4)
            axes.yaxis.set_major_locator(FixedLocator([0.001, 0.01, 0.1, 1, 10, 100]))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(
                FuncFormatter(lambda value, _: f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms")
            )
            axes.grid(visible=True, axis="y")
            time_axis(axes, series.span, width)
            _shade(axes, lane.faults, width, tips, f"{name}-fault-")
            size = 1.7 if width > 6 else 1.4
            dots(axes, lane.good.values(), GOOD, size, alpha=0.75)
            dots(axes, lane.refused.values(), REFUSED, size * 1.35)
            _crosses(axes, lane.silent.values(), SILENT, series.span / width / 72 * 1.6)
            if len(lanes) > 1:
                axes.text(0.998, 0.97, name, transform=axes.transAxes, fontsize="small", va="top", ha="right")
        return tips

    return draw


def _all(lane: Lane) -> Iterable[float]:
    return (point[1] for group in (lane.good, lane.refused, lane.silent) for point in group.values())


def recoveries(series: Series, limit: float) -> Draw:
    """How long each target took to serve again once a fault had gone: a row an experiment, a dot a repetition, slowest first."""
    rows = recovery_rows(series)[:MOST_ROWS]

    def draw(figure: Figure, width: float) -> dict[str, str]:
        narrow = width < 6
        step = 0.38 if narrow else 0.215
        height = 0.62 + step * len(rows)
        figure.set_size_inches(width, height)
        left = 0.12 if narrow else 3.8
        axes = figure.add_axes((left / width, 0.36 / height, 1 - (left + 0.45) / width, 1 - 0.5 / height))
        slowest = max((value for _, values in rows for value in values if value is not None), default=1.0)
        never = any(value is None for _, values in rows for value in values)
        # a limit that is far beyond all that was seen would press the dots together: it is then said in the caption only
        drawn_limit = limit if 0 < limit <= slowest * 4 or (never and limit) else 0.0
        edge = max(slowest * 1.06, drawn_limit * 1.04, 0.1)
        axes.set_xlim(0, edge)
        axes.set_ylim(len(rows) - 0.4, -0.6 - (0.35 if narrow else 0))
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")
        if drawn_limit:
            axes.axvline(drawn_limit, color=LIMIT, linewidth=1, linestyle=(0, (4, 3)))
            axes.text(
                drawn_limit, -0.62 - (0.35 if narrow else 0), f"limit {limit:g} s", ha="right", va="bottom", fontsize="small"
            )
        for index, (label, values) in enumerate(rows):
            axes.axhline(index, color=GRID, linewidth=0.5, zorder=0)
            where: dict[str, Any] = {"x": 0.0, "y": index - 0.4, "ha": "left", "va": "center", "fontsize": "medium"}
            if not narrow:
                where = {"x": -0.012, "y": index, "ha": "right", "va": "center", "transform": axes.get_yaxis_transform()}
            axes.text(s=short(label, 62), **where)
            for value in values:
                missed = value is None or (limit > 0 and value > limit)
                mark, at = ("X", edge) if value is None else ("o", value)
                axes.plot(
                    [at], [index], marker=mark, markersize=6, color=SILENT if missed else GOOD, markeredgewidth=0, clip_on=False
                )
                if value is None and not narrow:
                    axes.text(edge * 1.012, index, "never", ha="left", va="center", fontsize="small")
        return {}

    return draw


def recovery_rows(series: Series) -> list[tuple[str, list[float | None]]]:
    """(what was broken, seconds to the first success that held or None) for all windows that had traffic after them."""
    rows: dict[str, list[float | None]] = {}
    for one in series.faults:
        if one.healed and one.took:
            rows.setdefault(one.title, []).append(one.recovered)
    return sorted(rows.items(), key=lambda row: max(math.inf if value is None else value for value in row[1]), reverse=True)


def short(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


RUGS = (
    ("relay", "session with the real server", GOOD),
    ("failed", "no session with the real server", REFUSED),
    ("hostile", "met a hostile server", HOSTILE),
)


def connections(series: Series) -> Draw:
    """Connections to the database as the wire saw them: how many a second, and each one as a tick by what it met."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

        height = 2.6
        figure.set_size_inches(width, height)
        left = 0.44 / width
        across = 1 - (0.44 + 0.08) / width
        upper = figure.add_axes((left, 1.22 / height, across, 1.3 / height))
        rug = figure.add_axes((left, 0.3 / height, across, 0.85 / height))
        time_axis(upper, series.span, width)
        time_axis(rug, series.span, width)
        upper.tick_params(labelbottom=False)
        ground(upper, shaded(series.faults, series.span))
        bucket, rates = arrivals(series)
        edges = [index * bucket for index in range(len(rates["relay"]) + 1)]
        below = [0.0] * len(rates["relay"])
        for kind, _, color in RUGS:
            above = [low + rate for low, rate in zip(below, rates[kind], strict=True)]
            upper.stairs(above, edges, baseline=below, fill=True, facecolor=color, alpha=0.55, linewidth=0)
            below = above
        upper.set_ylim(0, max([*below, 4.0]) * 1.15)
        upper.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        upper.grid(visible=True, axis="y")
        upper.text(0.004, 0.97, "new connections per second", transform=upper.transAxes, va="top", fontsize="small")
        rug.set_ylim(len(RUGS), 0)
        rug.set_yticks([])
        for row, (kind, label, color) in enumerate(RUGS):
            at = {round(start / series.span * 1400): start for start, found in series.sessions if found == kind}
            strokes(rug, [((start, row + 0.52), (start, row + 0.95)) for start in at.values()], color, 0.8)
            rug.text(0.004, row + 0.05, label, transform=rug.get_yaxis_transform(), va="top", fontsize="small")
        return {}

    return draw
