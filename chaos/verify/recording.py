"""One pass over all records: chains are walked, raw rows counted again, and what the statement must say is gathered on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.verify import long_run, raw
from chaos.verify.long_run import LongRun
from chaos.verify.records import Walk, parsed, pinpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.verify.gates import Policy
    from chaos.verify.records import Database, Link, Record, Row
    from chaos.verify.result import Step

ENDED = "ended: "  # a phase that says what ended a run early
CONTROLLER = "controller"  # the segment of whoever ends a run
PLAN = "plan "  # a phase that binds what the run was going to do


@dataclass(slots=True)
class Seen:
    """What the records hold. `fault` rows are as the statement has them (Any: JSON); `heads` are the last links of the segments."""

    findings: list[Row] = field(default_factory=list)
    heads: dict[str, Link] = field(default_factory=dict)
    histories: dict[str, int] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    controls: list[tuple[str, str]] = field(default_factory=list)
    heard: Counter[str] = field(default_factory=Counter)
    spans: dict[float, tuple[float, float]] = field(default_factory=dict)
    phases: list[tuple[float, str]] = field(default_factory=list)
    raw: Counter[str] = field(default_factory=Counter)
    long: LongRun = field(default_factory=LongRun)
    first: float = float("inf")
    last: float = 0.0

    @property
    def ended(self) -> list[str]:
        """What ended the run early."""
        return [name.removeprefix(ENDED) for _, name in self.phases if name.startswith(ENDED)]

    @property
    def plans(self) -> dict[str, str]:
        """File -> SHA-256 of plans that were chained."""
        words = [name.removeprefix(PLAN).split() for _, name in self.phases if name.startswith(PLAN)]
        return {pair[0]: pair[1] for pair in words if len(pair) == 2}


def read(
    databases: Iterable[Database], policy: Policy, digest: str, *, chain: Step, counts: Step, originals: dict[str, Database]
) -> Seen:
    """All of it. `chain` and `counts` take what does not hold; `originals` are the segments that are there, to find a change in."""
    seen = Seen()
    for database in databases:
        walk = Walk.of(database.name, digest)
        for record in database.records():
            if not walk.take(record, chain):
                where = pinpoint(record, originals.get(record.link.segment))
                if where:
                    chain.wrong(f"{database.name}, {record.name}", where)
            _gather(record, seen)
            if record.history is not None:
                seen.raw.update(raw.compare(record, policy, counts, database.name))
            seen.long.take(record, policy)
        walk.finish(database.counts(), chain)
        seen.heads |= walk.heads
        seen.histories |= walk.histories
        seen.rows.update(database.counts())
    whole = CONTROLLER in seen.heads and not seen.ended
    seen.raw.update(long_run.compare(seen.long, seen.findings, policy, counts, whole=whole))
    seen.faults.sort(key=lambda one: (one["injected"], one["segment"]))
    return seen


def _gather(record: Record, seen: Seen) -> None:
    link, history = record.link, record.history
    seen.first, seen.last = min(seen.first, link.at), max(seen.last, link.at)
    seen.findings += record.tables.get("finding", ())
    seen.phases += [(row["at"], str(row["name"])) for row in record.tables.get("phase", ())]
    if history is None:
        seen.heard.update(one["check"] for one in record.tables.get("finding", ()))
        return
    seen.heard[history["experiment"]] += 1
    seen.controls.append((history["experiment"], history["control"]))
    minute = record.facts.get("family") == "soak"  # which repeats the windows of faults that have a history of their own
    for window in () if minute else record.tables["window"]:
        effect = parsed(window["effect"]) or {}
        seen.faults.append(
            {
                "segment": link.segment,
                "experiment": history["experiment"],
                **{name: window[name] for name in ("fault", "scope", "injected", "healed", "cleanup")},
                "took_effect": bool(effect.get("took")),
            }
        )
    for row in record.tables["interval"]:
        seconds, covered = seen.spans.get(row["started"], (0.0, 1.0))
        seen.spans[row["started"]] = max(seconds, row["seconds"]), min(covered, row["covered"])
