"""The account of a long run: fed a minute at a time, asked at any moment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.checks.longrun import delta, judging, oddities
from chaos.checks.longrun.delta import BASELINE, CANDIDATE
from chaos.checks.longrun.tally import (
    HEALTHY,
    HOUR,
    LANDING,
    Asked,
    Hourly,
    Rate,
    Spread,
    above,
    by_hour,
    hosts,
    is_read,
    looked,
    offered,
)
from chaos.histogram import Histogram
from chaos.hours import SLIPPED, Hour, Judged, Streak, judge, streak
from chaos.model import Kind
from chaos.statistics import burn

if TYPE_CHECKING:
    from chaos.checks.limits import Limits
    from chaos.checks.longrun.oddities import Anomaly
    from chaos.model import Finding, History, Interval

FAMILY = "soak"
AVAILABILITY, BUDGET, HANDSHAKES = "rel.availability", "rel.error_budget", "sec.tls_handshake"
LET_IN, REFUSED = "sec.unknown_host_2xx", "sec.unknown_host_400"
LATENCY = ("rel.p95", "rel.p99")
MONTH = 30 * 24 * HOUR
STEADY = "steady"
COUNTED = ("handshakes.made", "handshakes.failed", "writes.checked", "writes.lost", "writes.doubled")  # gauges that are counts


@dataclass(frozen=True, slots=True)
class Budget:
    """Of 30 days' errors: `bad` of `n` in `seconds`; at that rate `projected` events in 30 days, of which 0.1 % may fail.

    `burned` is the share of it that this run used up.
    """

    bad: int
    n: int
    seconds: float
    projected: float
    burned: float


@dataclass
class Account:
    """See the package. `begin` and `planned` (hours) are known from the first minute on; `seconds` are those looked at."""

    limits: Limits
    begin: float = -1.0
    planned: float = 0.0
    compressed: bool = False
    until: float = 0.0
    minutes: int = 0
    slipped: int = 0
    faulted: list[int] = field(default_factory=lambda: [0, 0])
    rates: dict[str, Rate] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    hourly: dict[int, Hourly] = field(default_factory=dict)
    latency: Histogram = field(default_factory=Histogram)
    arms: dict[str, delta.Arm] = field(default_factory=dict)
    recorded: bool = False
    _lag: Histogram = field(default_factory=Histogram)
    _now: Histogram = field(default_factory=Histogram)
    _now_lag: Histogram = field(default_factory=Histogram)
    _now_landing: Histogram = field(default_factory=Histogram)
    _values: dict[str, list[float]] = field(default_factory=dict)
    _hour: int = -1
    _quiet: float = -math.inf

    # -- in ---------------------------------------------------------------------------------------------------------------------

    def feed(self, history: History) -> None:
        """The next history, in order of time. Only the minutes of a soak are counted; other experiments have checks of their own."""
        family = history.facts.get("family")
        if family == delta.FAMILY:
            self.arms[BASELINE] = delta.arm(history.intervals)
            self.recorded = True
        if family != FAMILY:
            return
        if self.begin < 0:
            self.begin = float(history.facts.get("plan.started") or history.facts.get("started") or history.started)
            self.planned = float(history.facts.get("plan.hours") or history.facts.get("hours") or 0.0)
            self.compressed = "compressed" in history.facts
        self.minutes += 1
        self.until = max(self.until, history.finished)
        number = max(0, int((history.started - self.begin + 1e-6) // HOUR))
        if number != self._hour:
            self._close_hour()
            self._hour = number
        hour = self._of(number)
        mine = [one for one in history.intervals if one.release != BASELINE]
        self._compare(history)
        self._cover(mine)
        slipped = self._slipped(mine)
        self.slipped += slipped
        self._requests(hour, mine, slipped=slipped)
        self._strangers(hour, mine)
        self._read_gauges(hour, history, mine)

    def _of(self, number: int) -> Hourly:
        return self.hourly.setdefault(number, Hourly(number))

    def _compare(self, history: History) -> None:
        """Both releases, where both were asked; all of it, where there is a recorded run to compare it with."""
        for release in (BASELINE, CANDIDATE) if not self.recorded else (CANDIDATE,):
            wanted = {release} if not self.recorded else {CANDIDATE, ""}
            if mine := [one for one in history.intervals if one.release in wanted]:
                self.arms.setdefault(release, delta.Arm()).add(mine)

    def _cover(self, intervals: list[Interval]) -> None:
        for machine, stretches in looked(intervals).items():
            for start, end, share in stretches:
                for number, seconds in by_hour(start, end, self.begin):
                    covered = self._of(number).covered
                    covered[machine] = covered.get(machine, 0.0) + seconds * share

    def _slipped(self, intervals: list[Interval]) -> bool:
        """Whether whoever sent was late in this minute: then latencies are the sender's, and what it dropped is its own doing."""
        self._lag.clear()
        for one in intervals:
            self._lag.add_text(one.lag)
        self._now_lag.add(self._lag)
        return len(self._lag) > 0 and self._lag.quantile(0.99) > SLIPPED

    def _requests(self, hour: Hourly, intervals: list[Interval], *, slipped: bool) -> None:
        bad = n = reads = 0
        seconds = 0.0
        over = dict.fromkeys(LATENCY, 0)
        for one in intervals:
            if one.stratum == STEADY:
                hour.asked.setdefault(one.sample, Asked()).add(one)
            if one.kind not in HEALTHY:
                continue
            due = offered(one) - (one.dropped if slipped else 0)
            if one.stratum != STEADY:
                self.faulted[0] += max(0, due - one.good)
                self.faulted[1] += due
                continue
            bad, n, seconds = bad + max(0, due - one.good), n + due, max(seconds, one.seconds)
            if one.sample.startswith(LANDING) and not slipped:
                self._now_landing.add_text(one.latency)
            if is_read(one) and not slipped:
                reads += due
                self._now.add_text(one.latency)
                for gate in LATENCY:
                    over[gate] += above(one, self.limits.seconds[gate]) + one.dropped if gate in self.limits.seconds else 0
        self._rate(hour, AVAILABILITY, bad, n, seconds)
        for gate in LATENCY:
            self._rate(hour, gate, over[gate], reads, seconds)

    def _strangers(self, hour: Hourly, intervals: list[Interval]) -> None:
        """Requests to unknown hosts, outside of faults."""
        asked = [(hosts(one), one.seconds) for one in intervals if one.kind is Kind.HOST and one.stratum == STEADY]
        let_in, refused, other = (sum(each[i] for each, _ in asked) for i in range(3))
        seconds = max((one for _, one in asked), default=0.0)
        self._rate(hour, LET_IN, let_in, let_in + refused, seconds)
        self._rate(hour, REFUSED, other, refused, seconds)

    def _read_gauges(self, hour: Hourly, history: History, intervals: list[Interval]) -> None:
        values = {one.name: one.value for one in history.gauges}
        broken = bool(history.windows) or any(one.stratum != STEADY for one in intervals)
        if broken:
            healed = [one.healed or history.finished for one in history.windows]
            self._quiet = max([self._quiet, *healed]) + self.limits.recovery
        quiet = not broken and history.started >= self._quiet
        for name in COUNTED:
            if name in values:
                hour.sums[name] = hour.sums.get(name, 0.0) + values[name]
                self.totals[name] = self.totals.get(name, 0.0) + values[name]
        hour.wrong += int(values.get("writes.lost", 0) + values.get("writes.doubled", 0))
        for name, value in values.items():
            if name not in COUNTED and (quiet or not name.startswith(("target.", "database."))):
                self._values.setdefault(name, []).append(value)
        if quiet:
            failed, made = int(values.get("handshakes.failed", 0)), int(values.get("handshakes.made", 0))
            self._rate(hour, HANDSHAKES, failed, max(made, failed), history.finished - history.started)

    def _rate(self, hour: Hourly, gate: str, bad: int, n: int, seconds: float) -> None:
        if n:
            self.rates.setdefault(gate, Rate()).add(bad, n, seconds)
            hour.count(gate, bad, n)

    def _close_hour(self) -> None:
        """What its histograms and values come to; then they are empty for the next one."""
        if self._hour < 0:
            return
        hour = self._of(self._hour)
        self._sum_up(hour)
        self.latency.add(self._now)
        self._now.clear()
        self._now_lag.clear()
        self._now_landing.clear()
        self._values.clear()

    def _sum_up(self, hour: Hourly) -> None:
        hour.reads = len(self._now)
        if hour.reads:
            hour.p50, hour.p95 = self._now.quantile(0.5), self._now.quantile(0.95)
        hour.latency, hour.landing = self._now.text(), self._now_landing.text()
        hour.lag = self._now_lag.quantile(0.99) if len(self._now_lag) else 0.0
        hour.gauges = {name: Spread.of(values) for name, values in self._values.items()}

    # -- out --------------------------------------------------------------------------------------------------------------------

    def each_hour(self) -> list[Hourly]:
        """From the first to the last; one that nobody looked at is there, and empty."""
        if self._hour >= 0:
            self._sum_up(self._of(self._hour))
        return [self.hourly.get(number, Hourly(number)) for number in range(max(self.hourly, default=-1) + 1)]

    def hours(self) -> tuple[Judged, ...]:
        """Each hour's colour. One that is not over yet is GREY until it is."""
        return tuple(judge(self._judged(one)) for one in self.each_hour())

    def _judged(self, one: Hourly) -> Hour:
        limits = {**self.limits.rates, LET_IN: 0.0}
        bad, n = one.counts.get(AVAILABILITY, (0, 0))
        objective = self.limits.rates[AVAILABILITY]
        return Hour(
            number=one.number,
            counts={gate: (bad, n, limits[gate]) for gate, (bad, n) in one.counts.items() if gate in limits},
            covered=one.looked,
            lag=one.lag,
            wrong=one.wrong,
            # With so few requests that one failure is more than the budget, how fast it burns is noise: the bound alone decides.
            burn=burn(bad, n, objective=objective) if n * objective >= 1 else 0.0,
        )

    def streak(self) -> Streak:
        """Of green hours."""
        return streak(self.hours())

    def budget(self) -> Budget:
        """What of a month's errors this run has used up, in steady time."""
        rate = self.rates.get(AVAILABILITY, Rate())
        projected = rate.n / rate.seconds * MONTH if rate.seconds else 0.0
        burned = burn(rate.bad, projected, objective=self.limits.rates[AVAILABILITY])
        return Budget(rate.bad, rate.n, rate.seconds, projected, burned)

    def quantile(self, share: float) -> float:
        """Of the latency of all reads so far, in seconds; NaN without any."""
        whole = Histogram()
        whole.add(self.latency)
        whole.add(self._now)
        return whole.quantile(share)

    def anomalies(self) -> tuple[Anomaly, ...]:
        """Leaks, which are judged, and hours that stick out, which are only told."""
        return oddities.found(self.each_hour(), warm=oddities.warm_up(self.planned))

    def findings(self) -> tuple[Finding, ...]:
        """All findings of the whole run; () before its first minute."""
        return judging.findings(self) if self.minutes else ()
