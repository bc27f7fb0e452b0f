"""What an attestation says of a store as a whole: its chains, its rows, its faults and controls, and what was covered."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.evidence.chain import COVERED, FINDINGS, HISTORY

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

SOAK = "soak"  # a family: the minutes of a long run, which repeat the windows of faults that have a history of their own
ENDED = "ended: "  # how a phase begins that says what ended a run early
PLAN = "plan "  # and one that binds a plan: its name and its SHA-256


@dataclass(frozen=True, slots=True)
class Attested:
    """`segments` are (name, links, digest of the last, histories); `faults` rows as the statement has them (Any: JSON).

    `sick` are experiments whose control was, `heard` maps an experiment to how often it was heard of. `seconds` is how much time the
    intervals of a long run span, of which `covered` were looked at.
    """

    segments: Sequence[tuple[str, int, str, int]]
    rows: Mapping[str, int]
    faults: Sequence[Mapping[str, Any]]
    healthy: int
    sick: Sequence[str]
    heard: Mapping[str, int]
    seconds: float
    covered: float


def attested(connection: sqlite3.Connection) -> Attested:
    """Of the store behind a connection that reads."""
    ask = connection.execute
    heads = ask(
        "SELECT segment, number, digest FROM chain c WHERE number = (SELECT max(number) FROM chain WHERE segment = c.segment)"
    )
    histories = dict(ask(f"SELECT segment, count(*) FROM chain WHERE kind = '{HISTORY}' GROUP BY segment"))  # noqa: S608  (ours)
    rows = {name: ask(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in COVERED}  # noqa: S608  (the same)
    faults = [
        {
            "segment": segment,
            "experiment": experiment,
            "fault": fault,
            "scope": scope,
            "injected": injected,
            "healed": healed,
            "took_effect": bool(json.loads(effect)["took"]),
            "cleanup": cleanup,
        }
        for segment, experiment, facts, fault, scope, injected, healed, effect, cleanup in ask(
            "SELECT h.worker, h.experiment, h.facts, w.fault, w.scope, w.injected, w.healed, w.effect, w.cleanup FROM window w "
            "JOIN history h ON h.number = w.history ORDER BY w.injected, h.worker, w.rowid"
        )
        if json.loads(facts).get("family") != SOAK
    ]
    controls = ask(
        "SELECT h.experiment, h.control FROM chain c JOIN history h ON h.number = c.record WHERE c.kind = ? "
        "ORDER BY c.segment, c.number",
        (HISTORY,),
    ).fetchall()
    lone = f"SELECT f.\"check\" FROM finding f JOIN chain c ON c.kind = '{FINDINGS}' AND c.record = f.history"  # noqa: S608  (ours)
    heard = Counter([experiment for experiment, _ in controls]) + Counter(check for (check,) in ask(lone))
    spans = ask("SELECT started, max(seconds), min(covered) FROM interval GROUP BY started").fetchall()
    return Attested(
        segments=[(name, number, digest, histories.get(name, 0)) for name, number, digest in sorted(heads.fetchall())],
        rows=rows,
        faults=faults,
        healthy=sum(not control for _, control in controls),
        sick=[experiment for experiment, control in controls if control],
        heard=heard,
        seconds=sum(seconds for _, seconds, _ in spans),
        covered=sum(seconds * covered for _, seconds, covered in spans),
    )
