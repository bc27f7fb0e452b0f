"""Runs beside each other, gate by gate: for people at a terminal, and in Markdown for a pipeline's summary page. Pure but for `load`.

Only evidence.json is read, so runs of any machine and any day can be compared.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.errors import UsageError
from chaos.evidence import schema, words
from chaos.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from chaos.evidence.schema import CheckRow, Evidence, GateRow

LAST = 5  # runs that are shown when nobody says how many
TOLD = 12  # failed checks told one by one
ASIDE = {"not_applicable"}


@dataclass(frozen=True, slots=True)
class Row:
    """One gate over all runs: a verdict a run ('' where it had none), and what the newest one measured."""

    gate: str
    verdicts: tuple[str, ...]
    measured: str

    @property
    def changed(self) -> bool:
        """Whether the newest verdict is another than the last one before it that there was."""
        before = [one for one in self.verdicts[:-1] if one]
        return bool(before) and bool(self.verdicts[-1]) and before[-1] != self.verdicts[-1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of one target and profile, the oldest first, and their gates, what failed first."""

    runs: tuple[Evidence, ...]
    rows: tuple[Row, ...]

    @property
    def newest(self) -> Evidence:
        """The run that is judged."""
        return self.runs[-1]

    @property
    def failed(self) -> list[CheckRow]:
        """Its checks that failed."""
        return [one for one in self.newest.checks if one.outcome == "fail"]


def load(places: Sequence[Path], *, base: Path, last: int) -> list[Evidence]:
    """The runs in these evidence directories, in order of time; without any, the last ones below `base` of the newest's target and
    profile. Raises UsageError: there is none, or one that was named cannot be read.
    """
    if places:
        found = [schema.read(place if place.is_file() else place / "evidence.json") for place in places]
    else:
        found = []
        for file in base.glob("*/evidence.json"):
            if not file.parent.is_symlink():
                with contextlib.suppress(UsageError):  # half of one, or of another version: not what was asked about
                    found.append(schema.read(file))
    if not found:
        raise UsageError(
            "there is no evidence to compare", remedy="name evidence directories, or run chaos-gate run first", where=str(base)
        )
    found.sort(key=lambda one: one.started)
    newest = found[-1]
    return [one for one in found if places or (one.target, one.profile) == (newest.target, newest.profile)][-last:]


def compare(runs: Sequence[Evidence]) -> Comparison:
    """`runs` from the oldest to the newest; at least one."""
    ids = dict.fromkeys(gate.id for run in reversed(runs) for gate in run.gates)
    by_run = [{gate.id: gate for gate in run.gates} for run in runs]
    order = [outcome.value for outcome in Outcome]
    rows = [
        Row(name, tuple(gates[name].verdict if name in gates else "" for gates in by_run), _measured(by_run[-1].get(name)))
        for name in ids
    ]
    rows.sort(key=lambda row: order.index(row.verdicts[-1] or "not_applicable"))
    return Comparison(tuple(runs), tuple(rows))


def _measured(row: GateRow | None) -> str:
    """What the newest run saw of a gate, with its bound, as the terminal says it."""
    if row is None or row.verdict in ASIDE:
        return ""
    gate = schema.result_of(row)
    return ", ".join(filter(None, (words.observed(gate), words.bounded(gate))))


def _label(verdict: str) -> str:
    return words.LABELS[Outcome(verdict)] if verdict else "-"


def _shown(comparison: Comparison) -> list[Row]:
    """Without the gates that no run has looked into, or that applied to none."""
    looked = {gate.id for run in comparison.runs for gate in run.gates if gate.verdict not in ASIDE and (gate.n or gate.checks)}
    return [row for row in comparison.rows if row.gate in looked]


def _counts(run: Evidence) -> str:
    counts = {name: sum(gate.verdict == name for gate in run.gates) for name in ("fail", "pass", "inconclusive", "waived")}
    texts = (f"{counts['fail']} failed", f"{counts['pass']} proven", f"{counts['inconclusive']} not proven")
    return ", ".join([*texts, *([f"{counts['waived']} waived"] if counts["waived"] else [])])


def markdown(comparison: Comparison) -> str:
    """For $GITHUB_STEP_SUMMARY and its like: the verdict, what changed, the gates of the last runs, and what failed."""
    run, runs = comparison.newest, comparison.runs
    lines = [
        f"## {run.verdict}: {_cell(run.target)}, {run.profile}",
        "",
        f"{_counts(run)}. Seed {run.seed}, {run.started[:16]}Z.",
    ]
    changed = [row for row in comparison.rows if row.changed]
    if len(runs) > 1:
        told = [f"`{row.gate}` {_label(row.verdicts[-2])} → **{_label(row.verdicts[-1])}**" for row in changed]
        lines += ["", f"Since the last run: {'; '.join(told) or 'every gate as it was'}."]
    heads = [f"{one.started[5:16].replace('T', ' ')}" for one in runs]
    lines += ["", f"| gate | {' | '.join(heads)} | measured |", f"|---|{'---|' * len(heads)}---|"]
    lines += [f"| **verdict** | {' | '.join(f'**{one.verdict}**' for one in runs)} | |"]
    for row in _shown(comparison):
        cells = [_label(one) for one in row.verdicts]
        cells[-1] = f"**{cells[-1]}**" if row.verdicts[-1] == "fail" or row.changed else cells[-1]
        lines.append(f"| `{row.gate}` | {' | '.join(cells)} | {_cell(row.measured)} |")
    if comparison.failed:
        lines += ["", "| failed | seen | again |", "|---|---|---|"]
        lines += [f"| `{one.id}` | {_cell(one.detail)} | `{_cell(one.rerun)}` |" for one in comparison.failed[:TOLD]]
        more = len(comparison.failed) - TOLD
        lines += [f"\nand {more} more: see the report"] if more > 0 else []
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """One table cell: no bars, no line breaks, no HTML of somebody else's."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def text(comparison: Comparison) -> str:
    """The same for a terminal: columns, the newest run at the right."""
    runs = comparison.runs
    rows = [["gate", *(one.started[5:16].replace("T", " ") for one in runs), "measured"]]
    rows += [["verdict", *(one.verdict for one in runs), _counts(comparison.newest)]]
    for row in _shown(comparison):
        rows.append([f"{row.gate}{' *' if row.changed else ''}", *map(_label, row.verdicts), row.measured])
    lines = _columns(rows)
    if any(row.changed for row in comparison.rows):
        lines += ["", "* not as in the run before"]
    return "\n".join([f"{comparison.newest.target}, {comparison.newest.profile}", "", *lines]) + "\n"


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    table = [list(row) for row in rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in table
    ]
