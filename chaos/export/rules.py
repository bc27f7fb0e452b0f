"""Alerts and recordings as rows, each alert with the series that make it fire: no alert is without a test.

A row's `fires` is laid over series of a target that is well (chaos/export/trials.py); `quiet` are more states in which it must be
silent, beside the healthy one. `promtool test rules` runs them all, ours and the exported ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Series = dict[str, str]  # series -> values in promtool's notation, one a minute; '' takes the series away
SECOND = 1 / 60  # promtool's samples are a minute apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One alert. `held` is how long it must hold before it fires ('' at once). After an hour of its state `fires` it does.

    `more` are further states in which it does.
    `alone`: what it changes is read by other alerts too, so its states are tested with no other's.
    """

    alert: str
    expr: str
    severity: str
    summary: str
    description: str
    gate: str
    fires: Mapping[str, str]
    held: str = ""
    more: tuple[Mapping[str, str], ...] = ()
    quiet: tuple[Mapping[str, str], ...] = ()
    alone: bool = False
    runbook: str = ""

    def row(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """As Prometheus reads it."""
        annotations = {"summary": self.summary, "description": self.description}
        return {
            "alert": self.alert,
            "expr": self.expr,
            **({"for": self.held} if self.held else {}),
            "labels": {"severity": self.severity, "gate": self.gate, **labels},
            "annotations": {**annotations, **({"runbook": self.runbook} if self.runbook else {})},
        }


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded expression."""

    record: str
    expr: str

    def row(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {"record": self.record, "expr": self.expr, **({"labels": dict(labels)} if labels else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rules that are evaluated together. `well` are the series of a target that is well; `notes` say what is not watched, and why."""

    name: str
    rules: tuple[Rule, ...]
    well: Mapping[str, str]
    recordings: tuple[Recording, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    interval: str = ""

    def row(self) -> dict[str, Any]:
        """As Prometheus reads it."""
        return {
            "name": self.name,
            **({"interval": self.interval} if self.interval else {}),
            "rules": [
                *(one.row(self.labels) for one in self.recordings),
                *(one.row(self.labels) for one in self.rules),
            ],
        }


def counter(a_second: float, minutes: int = 120) -> str:
    """A counter that grows evenly."""
    return f"0+{a_second / SECOND:.6g}x{minutes}"


def gauge(value: float, minutes: int = 120) -> str:
    """A gauge that stays."""
    return f"{value:.10g}x{minutes}"
