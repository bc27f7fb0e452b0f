"""rep.kpis: the numbers that people follow from day to day, from what was recorded. One without data says so, and why."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from chaos.checks.longrun.tally import HOUR, LANDING, Asked
from chaos.histogram import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chaos.checks.longrun.tally import Hourly
    from chaos.evidence.record import Run

SCHEMA_VERSION = 1
RETRIED = (
    "res.backoff",
    "res.pool",
    "res.network",
)  # gates whose findings count outages, and after how many of them it served again
PERCENT, MS, DAYS, A_DAY, RATIO = "%", "ms", "days", "a day", "x"
SOAK_ONLY = "nothing of it was recorded: only a soak asks for it all the time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One number. `value` is in `unit` (None: no data, and `why`); `n` observations are behind it; `of` says what is counted."""

    id: str
    title: str
    unit: str
    of: str
    value: float | None = None
    n: int = 0
    why: str = ""

    @property
    def said(self) -> str:
        """'99.98 %', '12 ms', or 'no data'."""
        if self.value is None:
            return "no data"
        if self.unit == PERCENT:
            return f"{self.value:.4f}".rstrip("0").rstrip(".") + " %"
        if self.unit == A_DAY:
            return f"{self.value:,.0f} a day"
        if self.unit == RATIO:
            return f"x {self.value:.2f}"
        return f"{self.value:,.{0 if self.value >= 10 else 1}f} {self.unit}"


def kpis(hours: Sequence[Hourly], run: Run) -> tuple[Kpi, ...]:
    """All of them, in the order of the requirement, of these hours (a day's, or all of a run's)."""
    made, failed = (sum(one.sums.get(f"handshakes.{what}", 0.0) for one in hours) for what in ("made", "failed"))
    api, landing, strangers = _asked(hours, ("read", "write")), _asked(hours, (LANDING,)), _asked(hours, ("unknown-host",))
    looked = sum(one.looked for one in hours) * HOUR
    return (
        _known(
            Kpi(id="unknown_host_400s", title="unknown hosts refused with 400", unit=A_DAY, of="requests with such a host"),
            _a_day(strangers.refused, looked),
            strangers.n,
        ),
        _share("tls_failure_rate", "TLS handshakes that failed", "handshakes, fault windows included", failed, max(made, failed)),
        _certificate(hours),
        _share("availability", "availability", "requests outside of faults", *_good(hours, "rel.availability")),
        _quantile("latency_p95", "P95 of the reads", hours, 0.95),
        _quantile("latency_p99", "P99 of the reads", hours, 0.99),
        _share("rate_5xx", "answers with 5xx", "API requests outside of faults", api.servers, api.n),
        _retries(run),
        _share("seo_crawl_success", "landing pages served", "pages asked for outside of faults", landing.good, landing.n),
        _share("provider_api_success", "API requests served", "API requests outside of faults", api.good, api.n),
        _shift(hours),
    )


def _asked(hours: Iterable[Hourly], names: tuple[str, ...]) -> Asked:
    whole = Asked()
    for hour in hours:
        for sample, one in hour.asked.items():
            if sample.startswith(names):
                for name in ("n", "good", "clients", "servers", "none", "refused"):
                    setattr(whole, name, getattr(whole, name) + getattr(one, name))
    return whole


def _a_day(count: float, seconds: float) -> float | None:
    return count / seconds * 24 * HOUR if seconds else None


def _good(hours: Iterable[Hourly], gate: str) -> tuple[int, int]:
    counts = [one.counts[gate] for one in hours if gate in one.counts]
    n = sum(one[1] for one in counts)
    return n - sum(one[0] for one in counts), n


def _known(kpi: Kpi, value: float | None, n: float) -> Kpi:
    """With its value, where there is one."""
    if value is None or not n:
        return replace(kpi, why=SOAK_ONLY)
    return replace(kpi, value=value, n=int(n))


def _share(name: str, title: str, of: str, part: float, n: float) -> Kpi:
    return _known(Kpi(id=name, title=title, unit=PERCENT, of=of), 100 * part / n if n else None, n)


def _certificate(hours: Sequence[Hourly]) -> Kpi:
    days = [one.gauges["certificate.days"].last for one in hours if "certificate.days" in one.gauges]
    kpi = Kpi(id="certificate_days", title="certificate: days to expiry", unit=DAYS, of="hours in which it was looked at")
    return _known(kpi, days[-1] if days else None, len(days))


def _quantile(name: str, title: str, hours: Sequence[Hourly], share: float) -> Kpi:
    whole = merged(one.latency for one in hours)
    value = whole.quantile(share) * 1000 if len(whole) else None
    return _known(Kpi(id=name, title=title, unit=MS, of="reads outside of faults"), value, len(whole))


def _retries(run: Run) -> Kpi:
    found = [one for one in run.findings if one.gate in RETRIED and one.took_effect and one.n]
    n = sum(one.n for one in found)
    served = n - sum(one.bad for one in found)
    kpi = _share("retry_success_rate", "served again after an outage", "outages of the database", served, n)
    return kpi if n else replace(kpi, why="nothing that it recovers from was broken")


def _shift(hours: Sequence[Hourly]) -> Kpi:
    """The P95 of landing pages in the last third of these hours against the first one."""
    known = [merged([one.landing]).quantile(0.95) for one in hours if one.landing]
    third = len(known) // 3
    value = median(known[-third:]) / median(known[:third]) if third and median(known[:third]) > 0 else math.nan
    kpi = Kpi(
        id="landing_p95_shift", title="landing pages: shift of the P95", unit=RATIO, of="hours: the last third against the first"
    )
    return _known(kpi, value if math.isfinite(value) else None, len(known))


def as_json(run: Run, whole: Sequence[Kpi], days: Iterable[tuple[str, Sequence[Kpi]]], clean: Callable[[str], str]) -> str:
    """kpis.json: {"schema_version", "target", "verdict", "kpis": [...], "days": {"2026-11-27": [...]}}, with a line feed at its end."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "target": clean(run.target),
        "verdict": run.verdict.value,
        "kpis": [_row(one) for one in whole],
        "days": {day: [_row(one) for one in found] for day, found in days},
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _row(one: Kpi) -> dict[str, object]:
    return {**asdict(one), "value": None if one.value is None else round(one.value, 6), "said": one.said}
