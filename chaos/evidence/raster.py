"""A raster plot of retries: a row a client, a tick an attempt to connect, by the time since that client's own outage began."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.checks.backoff import tried
from chaos.evidence.charts import GOOD, GRID, HOSTILE, Draw, strokes, time_axis
from chaos.retries import herd

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from chaos.model import Connection, History

CONTROL = "control "  # how the names of our own clients begin
MOST_TICKS = 1200  # of a row: a hot loop is a solid line anyway


@dataclass(frozen=True, slots=True)
class Row:
    """One client: attempts that failed, and those that got a session (s since its outage began); `healed` is when that was over."""

    name: str
    failed: tuple[float, ...]
    served: tuple[float, ...]
    healed: float


@dataclass(frozen=True, slots=True)
class Raster:
    """All clients of one experiment: instances of the target first, then ours."""

    title: str
    rows: tuple[Row, ...]

    @property
    def span(self) -> float:
        """Seconds that the plot covers."""
        return max([1.0, *(max((one.healed, *one.failed, *one.served)) for one in self.rows)])

    def said(self) -> str:
        """What it shows, in a sentence."""
        mine = [one for one in self.rows if not one.name.startswith(CONTROL)]
        ours = [one for one in self.rows if one.name.startswith(CONTROL)]
        counts = sorted(len(one.failed) for one in mine)
        text = f"{len(mine)} instances of the target, {counts[0]} to {counts[-1]} failed attempts of each"
        text += f"; at most {herd([one.failed[3:] for one in mine], after=0.0):.0%} of them within 100 ms after their third."
        if ours:
            text += (
                f" Below, {len(ours)} clients of ours without jitter: {herd([one.failed[3:] for one in ours], after=0.0):.0%}."
            )
        return text


def rasters(history: History, clean: Callable[[str], str] = str) -> list[Raster]:
    """[] for a history without clients that have a listener each."""
    told = json.loads(history.facts.get("replicas", "[]"))
    if not told:
        return []
    rows = [_row(one["name"], history, one["onset"], one["healed"]) for one in told]
    names = sorted({one.client for one in history.connections if one.client.startswith(CONTROL)})
    for name in names:
        begun = min(one.opened for one in history.connections if one.client == name)
        rows.append(_row(name, history, begun, 0.0))
    return [Raster(clean(history.facts.get("title", history.experiment)), tuple(rows))]


def _row(name: str, history: History, onset: float, healed: float) -> Row:
    mine = tried([one for one in history.connections if one.client == name], onset, float("inf"))
    failed = [one.opened - onset for one in mine if not _session(one)]
    served = [one.opened - onset for one in mine if _session(one)]
    return Row(name, tuple(failed[:MOST_TICKS]), tuple(served[:MOST_TICKS]), max(0.0, healed - onset))


def _session(one: Connection) -> bool:
    return one.behaviour == "relay" and one.established


def drawing(raster: Raster) -> Draw:
    """The plot."""

    def draw(figure: Figure, width: float) -> dict[str, str]:
        narrow = width < 6
        step = 0.2
        height = 0.4 + step * len(raster.rows)
        figure.set_size_inches(width, height)
        left = 0.9 if narrow else 1.0
        axes = figure.add_axes((left / width, 0.28 / height, 1 - (left + 0.08) / width, 1 - 0.34 / height))
        time_axis(axes, raster.span * 1.01, width)
        axes.set_ylim(len(raster.rows) - 0.4, -0.6)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        for number, row in enumerate(raster.rows):
            axes.axhline(number, color=GRID, linewidth=0.4, zorder=0)
            axes.text(-0.01, number, row.name, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize="small")
            strokes(axes, [((at, number - 0.36), (at, number + 0.36)) for at in row.failed], HOSTILE, 0.9)
            strokes(axes, [((at, number - 0.36), (at, number + 0.36)) for at in row.served], GOOD, 1.3)
        return {}

    return draw
