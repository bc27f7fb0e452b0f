"""Writes: lost, applied twice, refused and applied, gone back in time - counted again from what was written and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.verify.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.verify.gates import Policy
    from chaos.verify.records import Record, Row

SETTLED = 0.5  # s after its acknowledgement in which a write may still be on its way to what answers reads


def _looked_up(record: Record) -> dict[str, Row]:
    """The last read-back of each write, after everything was healed."""
    healed = max((one["healed"] for one in record.tables["window"]), default=0.0)
    return {
        one["unique"]: one
        for one in record.tables["operation"]
        if one["kind"] == "read_back" and one["occurrences"] >= 0 and one["started"] >= healed
    }


def _client_error(one: Row) -> bool:
    return one["status"] is not None and 400 <= one["status"] < 500


def _wrong(record: Record, shown: dict[str, Row]) -> int:
    """How many writes are not there as often as they must be; one that breaks two rules counts for both."""
    operations, facts = record.tables["operation"], record.facts
    last = {one["unique"]: one for one in operations if one["kind"] == "write"}
    done = {one["unique"]: one["finished"] for one in operations if one["kind"] == "write" and one["ok"]}
    bad = 0
    for unique, seen in shown.items():
        write = last.get(unique)
        once = int(facts.get(f"once.{write['sample']}", "0")) if write is not None else 0
        if write is None or once < 1:
            continue
        bad += unique in done and seen["occurrences"] == 0
        bad += seen["occurrences"] > once
        bad += unique not in done and _client_error(write) and seen["occurrences"] > 0
    struck = min((one["injected"] for one in record.tables["window"]), default=0.0)
    stale = sum(
        one["kind"] == "read_back"
        and one["occurrences"] == 0
        and one["unique"] in done
        and one["unique"] in shown
        and shown[one["unique"]]["occurrences"] > 0
        and one["started"] > max(struck, done[one["unique"]] + SETTLED)
        for one in operations
    )
    return int(bad + stale)


def _emptied(record: Record) -> int:
    """Good answers with nothing in them during a fault, to reads that were answered with something before it and after it."""
    windows = record.tables["window"]
    if not windows:
        return 0
    struck, healed = min(one["injected"] for one in windows), max(one["healed"] for one in windows)
    samples: dict[str, list[Row]] = {}
    for one in record.tables["operation"]:
        if one["kind"] == "read" and one["ok"] and one["occurrences"] >= 0:
            samples.setdefault(one["sample"], []).append(one)
    found = 0
    for mine in samples.values():
        before = [one["occurrences"] for one in mine if one["finished"] < struck]
        after = [one["occurrences"] for one in mine if one["started"] > healed]
        if before and after and all(before) and all(after):
            found += sum(one["occurrences"] == 0 and one["started"] >= struck and one["finished"] <= healed for one in mine)
    return found


def writes(record: Record, policy: Policy) -> Iterator[Expected]:
    """The finding on writes of an experiment; none where none can be read back and no read was emptied."""
    del policy
    counted = _counted(record)
    if counted is not None:
        n, bad = counted
        outcome = "fail" if bad else "pass" if n else "inconclusive"
        yield Expected(f"writes.{record.experiment}", n=n, bad=bad, outcome=outcome)


def _counted(record: Record) -> tuple[int, int] | None:
    emptied = _emptied(record)
    written = any(one["kind"] == "write" for one in record.tables["operation"])
    if not (written and any(key.startswith("once.") for key in record.facts)):
        return (emptied, emptied) if emptied else None
    shown = _looked_up(record)
    return len(shown) + emptied, _wrong(record, shown) + emptied


def cut(record: Record, policy: Policy) -> Iterator[Expected]:
    """Answers cut right after COMMIT: `n` is how many were hit."""
    del policy
    assert record.history is not None
    hits, counted = int(record.facts.get("hits", "0")), _counted(record)
    if record.history["exited"]:
        yield Expected(record.experiment, n=hits, bad=1, outcome="fail")
    elif not hits or counted is None:
        yield Expected(record.experiment, n=hits, bad=0, outcome="inconclusive")
    else:
        n, bad = counted
        yield Expected(record.experiment, n=hits, bad=bad, outcome="fail" if bad else "pass" if n else "inconclusive")
