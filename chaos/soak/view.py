"""How a soak stands, for whoever looks on: one snapshot, made anew with each minute, that screen, status page and /metrics show.

It is made in the thread that records, and only read by others. Nothing is judged here: colours, streak and gates are the judging's own.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from chaos import gates as gating
from chaos.collector import absent
from chaos.evidence import words
from chaos.histogram import Histogram, merged
from chaos.hours import HOUR, Colour, Judged, streak
from chaos.ledger import NAME, account
from chaos.model import Kind, Outcome, Verdict
from chaos.soak.minutes import EXPERIMENT
from chaos.statistics import burn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from chaos.cases import Case
    from chaos.collector import Collector
    from chaos.model import Finding, GateResult, History, Interval
    from chaos.soak.plan import Plan
    from chaos.terminal import Screen

PAINTED = 0.5  # s between two changes of the live line
SHOWN = 6  # of what went wrong, on the page
DAYS_30 = 30 * 24.0  # h


class Judged48(Protocol):
    """What the view asks of the judging."""

    def findings(self) -> tuple[Finding, ...]:
        """So far."""

    def hours(self) -> tuple[Judged, ...]:
        """Of those that are over, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How it stands at one moment. Times are hours of the run's clock, latencies seconds (None: nothing was asked)."""

    target: str = ""
    verdict: str = Verdict.INCONCLUSIVE.value
    notes: tuple[str, ...] = ()
    elapsed: float = 0.0
    planned: float = 0.0
    rate: float = 0.0
    streak: int = 0
    longest: int = 0
    colours: tuple[str, ...] = ()
    requests: int = 0
    failed: int = 0
    asked_in_faults: int = 0
    failed_in_faults: int = 0
    p95: float | None = None
    p99: float | None = None
    hour_p95: float | None = None
    burn: float = 0.0
    injected: int = 0
    healed: int = 0
    now: str = "nothing is broken"
    faults: tuple[tuple[float, str, str], ...] = ()
    wrong: tuple[str, ...] = ()
    gates: tuple[tuple[str, str, str, str], ...] = ()
    at: float = 0.0
    ended: bool = False

    @property
    def hours(self) -> dict[str, int]:
        """Colour -> how many hours."""
        counts = Counter(self.colours)
        return {colour.value: counts[colour.value] for colour in Colour}


@dataclass
class View:
    """Fed by the recording thread; `snapshot` may be read by any."""

    plan: Plan
    collector: Collector
    judging: Judged48
    screen: Screen
    snapshot: Snapshot = field(default_factory=Snapshot)
    round: str = ""
    _case: Case | None = None
    _whole: Histogram = field(default_factory=Histogram)
    _hour: Histogram = field(default_factory=Histogram)
    _number: int = -1
    _counts: Counter[str] = field(default_factory=Counter)
    _wrong: list[str] = field(default_factory=list)
    _faults: list[tuple[float, str, str]] = field(default_factory=list)
    _painted: float = float("-inf")

    @property
    def ledger(self) -> Path:
        """Of the faults."""
        return self.collector.directory / NAME

    # -- what comes in ------------------------------------------------------------------------------------------------------------

    def feed(self, history: History) -> None:
        """One more history of the soak."""
        if history.experiment != EXPERIMENT:
            return
        number = int((history.started - self.plan.started + 1e-6) // HOUR)
        if number != self._number:
            self._number, self._hour = number, Histogram()
        for one in history.intervals:
            self._count(one)
        reads = merged(one.latency for one in history.intervals if one.kind is Kind.READ and one.stratum == "steady")
        self._hour.add(reads)
        self._whole.add(reads)

    def _count(self, one: Interval) -> None:
        self._counts[f"{one.stratum}.asked"] += one.planned
        self._counts[f"{one.stratum}.failed"] += one.planned - one.good

    def found(self, findings: Iterable[Finding]) -> None:
        """What a fault or a round came to."""
        for one in findings:
            if one.outcome is Outcome.FAIL:
                self.told(f"{one.check}: {one.detail}")
                self.screen.failure(one)

    def told(self, text: str) -> None:
        """Something that went wrong."""
        self._wrong = [*self._wrong, text][-SHOWN:]

    def breaks(self, case: Case | None) -> None:
        """What is being broken now; None: nothing any more."""
        if case is not None:
            at = self.snapshot.elapsed
            self._faults = [*self._faults, (at, case.id, case.title)][-SHOWN:]
        self._case = case
        self.snapshot = replace(self.snapshot, now=self.doing)
        self._painted = float("-inf")
        self.paint()

    @property
    def doing(self) -> str:
        """Now, in words."""
        parts = [f"breaking: {self._case.title}" if self._case else "", self.round]
        return "; ".join(filter(None, parts)) or "nothing is broken"

    # -- what goes out --------------------------------------------------------------------------------------------------------------

    def tick(self, at: float) -> None:
        """The clock goes on."""
        if time.monotonic() - self._painted < PAINTED:
            return
        self.snapshot = replace(self.snapshot, elapsed=(at - self.plan.started) / HOUR, now=self.doing, at=time.time())
        self.paint()

    def refresh(self, at: float, *, ended: bool = False) -> None:
        """Judge what there is so far, and show it."""
        judged = self.judging.hours()
        told = streak(judged)
        results, verdict = self._gates()
        counts = self._counts
        asked, failed = counts["steady.asked"], counts["steady.failed"]
        elapsed = (at - self.plan.started) / HOUR
        broken = account(self.ledger)
        self.snapshot = Snapshot(
            target=self.plan.called,
            verdict=verdict.value,
            notes=tuple(self.collector.notes),
            elapsed=elapsed,
            planned=self.plan.hours,
            rate=self.plan.rate,
            streak=told.now,
            longest=told.longest,
            colours=_coloured(judged),
            requests=asked,
            failed=failed,
            asked_in_faults=sum(counts[f"{name}.asked"] for name in _strata(counts) if name != "steady"),
            failed_in_faults=sum(counts[f"{name}.failed"] for name in _strata(counts) if name != "steady"),
            p95=_quantile(self._whole, 0.95),
            p99=_quantile(self._whole, 0.99),
            hour_p95=_quantile(self._hour, 0.95),
            burn=burn(failed, asked / elapsed * DAYS_30) if elapsed > 0 else 0.0,
            injected=broken.injected,
            healed=broken.injected - len(broken.open),
            now="ended" if ended else self.doing,
            faults=tuple(self._faults),
            wrong=tuple(self._wrong),
            gates=tuple((one.id, words.LABELS[one.outcome], one.threshold, one.reason) for one in words.worst_first(results)),
            at=time.time(),
            ended=ended,
        )

    def _gates(self) -> tuple[tuple[GateResult, ...], Verdict]:
        collector = self.collector
        found = [*collector.findings, *self.judging.findings()]
        results = gating.judge(
            found, collector.gates, absent=absent(collector.config, collector.gates), waivers=dict(collector.config.waivers)
        )
        return results, gating.verdict(results, collector.gates, profile=collector.request.profile)

    def paint(self) -> None:
        """The live line: hour, streak, rate, P95, what is broken, time left."""
        self._painted = time.monotonic()
        now = self.snapshot
        plan = self.plan
        parts = [_place(min(now.elapsed, plan.hours), plan.hours), f"streak {now.streak}", f"{plan.rate:g}/s"]
        parts += [f"P95 {words.duration(now.hour_p95)}"] if now.hour_p95 is not None else []
        parts += [now.now] if now.now != "nothing is broken" else []
        left = (self.plan.hours - now.elapsed) * HOUR / self.plan.factor
        mark = f"{int(now.elapsed)} {int(20 * now.elapsed / self.plan.hours)} {now.now}"
        self.screen.going("soak", " \N{MIDDLE DOT} ".join(parts), max(0.0, left) if not self.plan.model else None, mark=mark)


def _place(elapsed: float, planned: float) -> str:
    """'hour 3.25 of 72', 'minute 1.5 of 3'."""
    return f"minute {elapsed * 60:.1f} of {planned * 60:g}" if planned < 1 else f"hour {elapsed:.2f} of {planned:g}"


def _strata(counts: Counter[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in counts}


def _coloured(judged: Sequence[Judged]) -> tuple[str, ...]:
    """One an hour from 0 on; one that nobody looked at is grey."""
    by_number = {one.number: one.colour for one in judged}
    return tuple(by_number.get(number, Colour.GREY).value for number in range(max(by_number, default=-1) + 1))


def _quantile(filled: Histogram, share: float) -> float | None:
    return filled.quantile(share) if len(filled) else None
