"""The series of a target that is well, and of one that is not, in promtool's notation: what the rules' tests feed to them.

One sample a minute for two hours; alerts are looked at after one. The names are those that the rules read, whatever the target calls
them, so that a wrong selector shows as an alert that does not fire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.export.rules import counter, gauge
from chaos.export.signals import Matcher, Signal, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chaos.export.policy import Policy
    from chaos.export.signals import Signals

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
LENGTH = 120  # minutes
RATE = 100.0  # requests a second


@dataclass(frozen=True, slots=True)
class Trials:
    """States of one target."""

    policy: Policy

    @property
    def _some(self) -> Signals:
        assert self.policy.metrics is not None
        return self.policy.metrics

    def name(self, one: Signal, *more: Matcher, suffix: str = "") -> str:
        """A series that the signal selects."""
        spelt = one.spellings[1] if len(one.spellings) > 1 else one.name  # as prometheus-client would serve a declared counter
        own = [matcher for matcher in one.labels if matcher.op == "="]
        own += [matcher for matcher in more if matcher.label not in {had.label for had in own}]
        labels = {"instance": Matcher(label="instance", value="a:1"), **{matcher.label: matcher for matcher in own}}
        inside = ",".join(map(str, labels.values()))
        spelt += suffix
        return f"{spelt}{{{inside}}}" if re.fullmatch(r"[A-Za-z_:][\w:]*", spelt) else f"{{{quoted(spelt)},{inside}}}"

    def _status(self, one: Signal, status: str) -> tuple[Matcher, ...]:
        return (Matcher(label=one.status[0], value=status),) if one.status else ()

    @property
    def up_series(self) -> str:
        """Prometheus' own word for a scrape that went well."""
        return f'up{{job={quoted(self.policy.job)},instance="a:1"}}'

    @property
    def up(self) -> str:
        """All instances of the target."""
        return f"up{{job={quoted(self.policy.job)}}}"

    @property
    def well(self) -> dict[str, str]:
        """All that the rules read, of a target that is well."""
        return {
            **self._requests(counter(RATE * (1 - self.policy.budget / 4)), counter(RATE * self.policy.budget / 4)),
            **self.slow(since=LENGTH),
            **self.counts("unknown_host", usual=0.01, then=0.01, since=0),
            **self.counts("tls_errors", usual=0.0, then=0.0, since=0),
            **self.counts("attempts", usual=1.0, then=1.0, since=0),
            **self.counts("retries", usual=0.0, then=0.0, since=0),
            **self.pool(busy=2),
            **self.crawlers(refused=0.0),
            **({self.name(days): gauge(999)} if (days := self._some["certificate_days"]) else {}),
            **({self.up_series: gauge(1)} if self.policy.job else {}),
        }

    def _requests(self, good: str, failed: str) -> dict[str, str]:
        errors = self._some["errors_5xx"]
        if errors is None:
            return {}
        if self._some.requests is None:
            return {self.name(errors): failed}
        return {
            self.name(self._some.requests, *self._own_status(errors, "200")): good,
            self.name(errors, *self._status(errors, "503")): failed,
        }

    def _own_status(self, one: Signal, status: str) -> tuple[Matcher, ...]:
        """Under the label that the signal itself selects by, else under the first that may say it."""
        from chaos.checks.panels import STATUS  # noqa: PLC0415  (a set of names)

        own = next((matcher.label for matcher in one.labels if matcher.label.lower() in STATUS), "")
        return (Matcher(label=own, value=status),) if own else self._status(one, status)

    def failing(self, share: float) -> dict[str, str]:
        """So many of all requests fail, all the time."""
        return self._requests(counter(RATE * (1 - share)), counter(RATE * share))

    def failed(self, *, until: int) -> dict[str, str]:
        """All requests failed until that minute, and none after it."""
        most = RATE * 60 * until
        good = f"0x{until - 1} 0+{RATE * 60:g}x{LENGTH - until}"
        return self._requests(good, f"0+{RATE * 60:g}x{until - 1} {most - RATE * 60:g}x{LENGTH - until}")

    def slow(self, *, since: int = 0) -> dict[str, str]:
        """Every request takes longer than either limit, from that minute on."""
        latency = self._some["latency"]
        if latency is None:
            return {}
        limits = [self.policy.gates[key].seconds * latency.unit for key in ("rel.p95", "rel.p99")]
        if latency.quantiles:
            values = f"{min(limits) / 2:g}x{since} {max(limits) * 5:g}x{LENGTH - since}"
            return {self.name(latency, Matcher(label="quantile", value=one)): values for one in latency.quantiles}
        edges = sorted({min(limits) / 2, *limits, max(limits) * 10})
        per = RATE * 60
        quick = f"0+{per:g}x{since} {per * since:g}x{LENGTH - since}"
        every = f"0+{per:g}x{LENGTH}"
        made = {
            self.name(latency, Matcher(label="le", value=f"{edge:g}"), suffix="_bucket"): every if edge == edges[-1] else quick
            for edge in edges
        }
        made[self.name(latency, Matcher(label="le", value="+Inf"), suffix="_bucket")] = every
        return made

    def counts(self, role: str, *, usual: float, then: float, since: int) -> dict[str, str]:
        """So many a second, and so many from that minute on."""
        one = self._some[role]
        if one is None:
            return {}
        return {self.name(one): f"0+{usual * 60:g}x{since} {usual * 60 * since:g}+{then * 60:g}x{LENGTH - since}"}

    def born(self, role: str, value: int, *, since: int) -> dict[str, str]:
        """A counter that comes to life in that minute, with so much in it."""
        one = self._some[role]
        return {self.name(one): f"_x{since} {value}x{LENGTH - since}"} if one else {}

    def pool(self, *, busy: int) -> dict[str, str]:
        """So many of ten connections are in use."""
        made = {}
        if used := self._some["pool_busy"]:
            made[self.name(used)] = gauge(busy)
        if size := self._some["pool_size"]:
            made[self.name(size)] = gauge(10)
        return made

    def crawlers(self, *, refused: float, since: int = 0) -> dict[str, str]:
        """A crawler's visits; from that minute on a share of them is refused."""
        seo = self._some["seo"]
        if seo is None:
            return {}
        if not seo.status:
            return {self.name(seo): counter(1)}
        return {
            self.name(seo, *self._status(seo, "200")): counter(1),
            self.name(seo, *self._status(seo, "400")): f"0x{since} 0+{refused / (1 - refused) * 60:g}x{LENGTH - since}",
        }

    def few_crawlers(self) -> dict[str, str]:
        """A visit every two minutes, of which one was refused."""
        seo = self._some["seo"]
        if seo is None or not seo.status:
            return {}
        series = [self.name(seo, *self._status(seo, status)) for status in ("200", "400")]
        return {series[0]: counter(1 / 120), series[1]: f"0x50 1x{LENGTH - 50}"}

    def gone(self, role: str, *, since: int = 0) -> dict[str, str]:
        """Every series of the role is gone, from that minute on."""
        made: dict[str, Callable[[], Mapping[str, str]]] = {
            "requests": lambda: self._requests("", ""),
            "latency": self.slow,
            "pool_busy": lambda: self.pool(busy=2),
        }
        return dict.fromkeys(made[role](), f"1x{since - 1} stale" if since else "")
