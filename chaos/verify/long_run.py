"""A soak, counted again from its minutes: rates, the colour of each hour, the streak. After docs/long-runs.md and statistics' sources.

Histograms are HDR (base64 of the compressed V2 encoding), in microseconds, and are read by the library that anybody would take.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hdrh.histogram import HdrHistogram

from chaos.verify.expected import Expected
from chaos.verify.numbers import ALPHA, below, bursts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.verify.gates import Policy
    from chaos.verify.records import Record, Row
    from chaos.verify.result import Step

FAMILY = "soak"
HOUR, MONTH = 3600.0, 30 * 24 * 3600.0
WANTED, COVERED, LATE, FAST_BURN = 48, 0.99, 0.010, 14.4
BUSY = 0.85  # share of CPU time in use beyond which latency says nothing of the target
AVAILABLE, SERVED, REFUSED, SHAKEN = "rel.availability", "sec.unknown_host_2xx", "sec.unknown_host_400", "sec.tls_handshake"
QUICK = ("rel.p95", "rel.p99")
NO_SAY = {"429", "503", "timeout", "refused"}


@dataclass(slots=True)
class Hour:
    """What one hour came to: gate -> [bad, n], machine -> seconds it was there for, writes that were wrong, the send lag."""

    counts: dict[str, list[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    wrong: int = 0
    lag: Any = None  # an HdrHistogram, which ships no types


@dataclass(slots=True)
class LongRun:
    """All minutes so far. `rates`: gate -> (bad, n) of each; `lasting`: gate -> seconds; `wrote`: what the writes' gauges add up to."""

    begin: float | None = None
    rates: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    lasting: dict[str, float] = field(default_factory=dict)
    hours: dict[int, Hour] = field(default_factory=dict)
    wrote: dict[str, float] = field(default_factory=dict)
    quiet: float = -math.inf
    hurried: bool = False  # on a simulated clock an hour is a few real seconds: too few for a word about latency

    # -- in ---------------------------------------------------------------------------------------------------------------------

    def take(self, record: Record, policy: Policy) -> None:
        """One history; what is no minute of a soak is passed over."""
        history = record.history
        if history is None or record.facts.get("family") != FAMILY:
            return
        if self.begin is None:
            facts = record.facts
            self.begin = float(facts.get("plan.started") or facts.get("started") or history["started"])
            self.hurried = facts.get("compressed", "model") != "model"
        hour = self._hour(history["started"])
        rows = [one for one in record.tables["interval"] if one["release"] != "baseline"]
        self._there(rows)
        lag = _histogram(one["lag"] for one in rows)
        slipped = bool(lag.get_total_count()) and lag.get_value_at_percentile(99.0) / 1e6 > LATE
        slipped = slipped or any(one["name"] == "machine.busy" and one["value"] > BUSY for one in record.tables["gauge"])
        if hour.lag is None:
            hour.lag = _histogram(())
        hour.lag.add(lag)
        self._asked(hour, rows, policy, slipped=slipped)
        self._strangers(hour, rows)
        self._gauges(hour, record, rows, policy["limits"]["recovery"])

    def _hour(self, at: float) -> Hour:
        number = max(0, int((at - (self.begin or 0.0) + 1e-6) // HOUR))
        return self.hours.setdefault(number, Hour())

    def _there(self, rows: Sequence[Row]) -> None:
        """Seconds that each machine was there for; of stretches that overlap, each moment once."""
        load = [one for one in rows if one["kind"] in {"read", "write"}] or list(rows)
        for machine in {one["machine"] for one in load}:
            spans: dict[tuple[float, float], float] = {}
            for one in load:
                if one["machine"] == machine:
                    span = (one["started"], -(one["started"] + one["seconds"]))
                    spans[span] = min(spans.get(span, 1.0), one["covered"])
            reached = self.begin or 0.0
            for (start, minus_end), share in sorted(spans.items()):
                at = max(start, reached)
                while -minus_end - at > 1e-6:
                    number = int((at - (self.begin or 0.0) + 1e-6) // HOUR)
                    upto = min(-minus_end, (self.begin or 0.0) + (number + 1) * HOUR)
                    hour = self.hours.setdefault(number, Hour())
                    hour.seconds[machine] = hour.seconds.get(machine, 0.0) + (upto - at) * share
                    at = upto
                reached = max(reached, -minus_end)

    def _asked(self, hour: Hour, rows: Sequence[Row], policy: Policy, *, slipped: bool) -> None:
        """Requests in steady time. When the sender was late, what it dropped is its own, and no latency is the target's."""
        bad = n = reads = 0
        seconds, over = 0.0, dict.fromkeys(QUICK, 0)
        for one in rows:
            if one["kind"] not in {"read", "write"} or one["stratum"] != "steady":
                continue
            due = max(one["planned"], one["sent"] + one["dropped"]) - (one["dropped"] if slipped else 0)
            bad, n, seconds = bad + max(0, due - one["good"]), n + due, max(seconds, one["seconds"])
            if one["kind"] == "read" and one["sample"].startswith("read") and not slipped:
                reads += due
                for gate in QUICK:
                    limit = policy["limits"]["seconds"].get(gate)
                    over[gate] += _slower(one, limit) + one["dropped"] if limit else 0
        self._add(hour, AVAILABLE, bad, n, seconds)
        for gate in QUICK:
            self._add(hour, gate, over[gate], reads, seconds)

    def _strangers(self, hour: Hour, rows: Sequence[Row]) -> None:
        asked = [one for one in rows if one["kind"] == "host" and one["stratum"] == "steady"]
        served = turned = other = 0
        for one in asked:
            for status, count in json.loads(one["statuses"]).items():
                if status.startswith("2") or status == "101":
                    served += count
                elif status not in NO_SAY:
                    turned += count
                    other += count * (status != "400")
        seconds = max((one["seconds"] for one in asked), default=0.0)
        self._add(hour, SERVED, served, served + turned, seconds)
        self._add(hour, REFUSED, other, turned, seconds)

    def _gauges(self, hour: Hour, record: Record, rows: Sequence[Row], recovery: float) -> None:
        values = {one["name"]: one["value"] for one in record.tables["gauge"]}
        for name in ("writes.checked", "writes.lost", "writes.doubled"):
            self.wrote[name] = self.wrote.get(name, 0.0) + values.get(name, 0.0)
        hour.wrong += int(values.get("writes.lost", 0) + values.get("writes.doubled", 0))
        history, windows = record.history, record.tables["window"]
        assert history is not None
        if windows or any(one["stratum"] != "steady" for one in rows):
            self.quiet = max([self.quiet, *(one["healed"] or history["finished"] for one in windows)]) + recovery
        elif history["started"] >= self.quiet:
            failed, made = int(values.get("handshakes.failed", 0)), int(values.get("handshakes.made", 0))
            self._add(hour, SHAKEN, failed, max(made, failed), history["finished"] - history["started"])

    def _add(self, hour: Hour, gate: str, bad: int, n: int, seconds: float) -> None:
        if n > 0:
            self.rates.setdefault(gate, []).append((min(bad, n), n))
            self.lasting[gate] = self.lasting.get(gate, 0.0) + seconds
            counted = hour.counts.setdefault(gate, [0, 0])
            counted[0] += min(bad, n)
            counted[1] += n

    # -- out --------------------------------------------------------------------------------------------------------------------

    def colours(self, policy: Policy) -> list[tuple[str, float]]:
        """Of each hour from the first to the last; and of a grey one how many seconds nobody looked at."""
        return [self._colour(self.hours.get(number, Hour()), policy) for number in range(max(self.hours, default=-1) + 1)]

    def _colour(self, hour: Hour, policy: Policy) -> tuple[str, float]:
        limits = {**rates(policy), SERVED: 0.0}
        counts = {gate: count for gate, count in hour.counts.items() if not (self.hurried and gate in QUICK)}
        level = ALPHA / (WANTED * max(1, len(counts)))
        if any(below(bad, n, level) > limits[gate] for gate, (bad, n) in counts.items()) or hour.wrong:
            return "red", 0.0
        bad, n = hour.counts.get(AVAILABLE, (0, 0))
        if n * limits[AVAILABLE] >= 1 and bad / (limits[AVAILABLE] * n) > FAST_BURN:
            return "red", 0.0
        late = hour.lag is not None and hour.lag.get_total_count() and hour.lag.get_value_at_percentile(99.0) / 1e6 > LATE
        there = min(hour.seconds.values(), default=0.0) / HOUR
        if there < COVERED:
            return "grey", (1 - there) * HOUR
        return ("grey" if late else "green"), 0.0

    def longest(self, policy: Policy) -> int:
        """Green hours in a row: a red one begins anew, a grey one pauses, and at most a thousandth of the row may be unseen."""
        hours = self.colours(policy)
        greens, unseen, reds = ([0.0] for _ in range(3))  # sums up to each hour
        for colour, seconds in hours:
            greens.append(greens[-1] + (colour == "green"))
            unseen.append(unseen[-1] + seconds)
            reds.append(reds[-1] + (colour == "red"))
        rows = ((first, last) for last in range(len(hours) + 1) for first in range(last))
        return max(
            (
                int(greens[last] - greens[first])
                for first, last in rows
                if reds[last] == reds[first] and unseen[last] - unseen[first] <= HOUR / 1000 * (last - first) + 1e-6
            ),
            default=0,
        )

    def expected(self, policy: Policy) -> Iterator[Expected]:
        """What the findings of the whole run must hold."""
        if self.begin is None:
            return
        for check, gate in CHECKS.items():
            if blocks := self.rates.get(gate):
                bad, n = sum(one for one, _ in blocks), sum(one for _, one in blocks)
                if gate == REFUSED and not bad and n < math.log(ALPHA) / math.log1p(-rates(policy)[gate]):
                    yield Expected(check, n=0, bad=0)  # too few to speak for a class of input
                    continue
                yield Expected(check, n=n, bad=bad, upper=bursts(blocks) if gate != SERVED else None)
        if blocks := self.rates.get(AVAILABLE):
            bad, n = sum(one for one, _ in blocks), sum(one for _, one in blocks)
            month = n / self.lasting[AVAILABLE] * MONTH if self.lasting[AVAILABLE] else 0.0
            burned = bad / (rates(policy)[AVAILABLE] * month) if month else 0.0
            yield Expected("soak.budget", n=n, bad=bad, measured=burned, upper=bursts(blocks))
        checked = int(self.wrote.get("writes.checked", 0))
        wrong = int(self.wrote.get("writes.lost", 0)) + int(self.wrote.get("writes.doubled", 0))
        if checked + wrong:
            yield Expected("soak.writes", n=max(checked, wrong), bad=wrong, outcome="fail" if wrong else "pass")
        best, red = self.longest(policy), any(colour == "red" for colour, _ in self.colours(policy))
        outcome = ("fail" if red else "inconclusive") if best < WANTED else "pass" if self._whole(policy) else "not pass"
        yield Expected("soak.streak", n=0, measured=float(best), outcome=outcome)

    def _whole(self, policy: Policy) -> bool:
        """Whether the bounds of the whole run hold."""
        limits = rates(policy)
        return all(
            bursts(blocks) <= limits[gate] if limits.get(gate) else not any(bad for bad, _ in blocks)
            for gate, blocks in self.rates.items()
        )


CHECKS = {
    "soak.availability": AVAILABLE,
    "soak.p95": "rel.p95",
    "soak.p99": "rel.p99",
    "soak.handshakes": SHAKEN,
    "soak.hosts.2xx": SERVED,
    "soak.hosts.400": REFUSED,
}


def rates(policy: Policy) -> Mapping[str, float]:
    """Gate -> the share that may be bad."""
    return {one["id"]: one["limit"] for one in policy["gates"] if one["rule"] in {"rate", "budget", "worst_class"}}


def _histogram(texts: Any) -> Any:
    whole = HdrHistogram(1, 3_600_000_000, 3)
    for text in texts:
        if text:
            whole.decode_and_add(text.encode("ascii"))
    return whole


def _slower(one: Row, limit: float) -> int:
    """Answers that took longer: counted exactly for this limit, else by the histogram."""
    for key, count in json.loads(one["over"]).items():
        if math.isclose(float(key), limit, rel_tol=1e-6):
            return int(count)
    whole = _histogram([one["latency"]])
    index = whole.get_counts_array_index(min(3_600_000_000, max(1, round(limit * 1e6))))
    return int(sum(whole.counts[index + 1 :]))


def compare(run: LongRun, findings: Sequence[Row], policy: Policy, step: Step, *, whole: bool = True) -> list[str]:
    """Hold the findings of the whole run against its minutes; the gate of each whose counts were made again.

    `whole`: the run came to its end, so that none of them may be missing.
    """
    by_check = {one["check"]: one for one in findings if one["check"].startswith("soak.")}
    gates = []
    for one in run.expected(policy):
        found = by_check.get(one.check)
        where = f"the minutes of the soak, finding {one.check}"
        if found is None:
            if whole:
                step.wrong(where, "is missing, though the minutes it is made of are there")
            continue
        gates.append(found["gate"])
        for column, wanted in one.values(found, vacuous=False):
            if wanted == "not pass":
                wanted = found[column] if found[column] != "pass" else "inconclusive"  # noqa: PLW2901  (which of the two is the same to us)
            step.expect(f"{where}, {column}", found[column], wanted)
    return gates
