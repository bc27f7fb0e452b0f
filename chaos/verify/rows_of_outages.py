"""Outages: answered meanwhile, alive meanwhile, serving again in time - counted again from operations and windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.verify.expected import Expected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos.verify.gates import Policy
    from chaos.verify.records import Record, Row

WORK = ("read", "write")
EVER = float("inf")


def seconds(one: Row) -> float:
    """From sending to answer, the sender's own stall taken off."""
    return max(0.0, float(one["finished"] - one["started"] - one["lag"]))


def again(operations: Sequence[Row], healed: float) -> float | None:
    """Seconds from the end of a fault to the first success of each kind of work after the last miss; None: never."""
    after = [one for one in operations if one["kind"] in WORK and one["started"] >= healed]
    last_miss = max((one["started"] for one in after if not one["ok"]), default=healed)
    first: dict[str, float] = {one["kind"]: EVER for one in after}
    for one in after:
        if one["ok"] and one["started"] >= last_miss:
            first[one["kind"]] = min(first[one["kind"]], one["finished"])
    latest = max(first.values(), default=EVER)
    return None if latest == EVER else latest - healed


def overdue(operations: Sequence[Row], injected: float, policy: Policy) -> list[Row]:
    """Requests sent in or after a fault that got no answer within fail_fast and its slack."""
    limit = policy["limits"]["fail_fast"] + policy["limits"]["slack"]
    return [
        one for one in operations if one["started"] >= injected - 0.5 and one["finished"] >= injected and seconds(one) > limit
    ]


def outage(record: Record, policy: Policy) -> Iterator[Expected]:
    """One outage: bad when something was overdue, dead, never or too late back, or the target ended."""
    history, operations, window = record.history, record.tables["operation"], record.tables["window"][0]
    assert history is not None
    back = again(operations, window["healed"])
    slow = overdue(operations, window["injected"], policy)
    lifeless = [
        one
        for one in operations
        if one["kind"] == "live" and one["started"] >= window["injected"] and not one["ok"] and one not in slow
    ]
    limit = policy["limits"]["recovery"] + policy["limits"]["slack"]
    bad = bool(history["exited"] or slow or lifeless or back is None or back > limit)
    asked = any(one["kind"] in WORK and window["injected"] <= one["started"] < window["healed"] for one in operations)
    outcome = "fail" if bad else "pass" if asked else "inconclusive"
    yield Expected(history["experiment"], n=1, bad=int(bad), measured=back, outcome=outcome)


def outages(record: Record, policy: Policy) -> Iterator[Expected]:
    """One after another: how many that struck were not recovered from in time."""
    history, operations, windows = record.history, record.tables["operation"], record.tables["window"]
    assert history is not None
    ends = [*(one["injected"] for one in windows[1:]), EVER]
    struck = [(window, end) for window, end, took in zip(windows, ends, record.effects, strict=True) if took]
    if not struck:
        yield Expected(history["experiment"], n=0, bad=0, outcome="inconclusive")
        return
    backs = [again([one for one in operations if one["finished"] <= end], window["healed"]) for window, end in struck]
    limit = policy["limits"]["recovery"] + policy["limits"]["slack"]
    missed = sum(one is None or one > limit for one in backs)
    slow = any(
        one["kind"] != "prepare"
        for window, end in struck
        for one in overdue([one for one in operations if one["started"] < end], window["injected"], policy)
    )
    bad = max(missed, int(bool(slow or history["exited"])))
    came = [one for one in backs if one is not None]
    yield Expected(
        history["experiment"], n=len(struck), bad=bad, measured=max(came, default=None), outcome="fail" if bad else "pass"
    )
