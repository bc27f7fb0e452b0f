"""What is asked of Prometheus, once for all that is exported: rules, dashboards, roll-outs and SLOs read the same expressions.

Each function gives PromQL, or None when the target has no metric for it. Windows are PromQL durations ('5m').
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.export.signals import Matcher

if TYPE_CHECKING:
    from chaos.export.signals import Signal, Signals

FAILED = "5.."  # matches '500' and '5xx' alike
REFUSED = "5..|400|421"  # to a crawler: broken, or refused for its host


def bad(some: Signals, window: str, *, status: str = FAILED) -> str | None:
    """Failed requests a second; 0 when there was none yet, for a counter may come to life with its first error."""
    errors = some["errors_5xx"]
    return f"sum({errors.ranged('rate', window, status=status)})" if errors else None


def total(some: Signals, window: str) -> str | None:
    """All requests a second."""
    return f"sum({some.requests.ranged('rate', window)})" if some.requests else None


def error_ratio(some: Signals, window: str) -> str | None:
    """The share of requests that failed."""
    return _ratio(bad(some, window), total(some, window))


def _ratio(part: str | None, whole: str | None) -> str | None:
    return f"({part} or vector(0)) / {whole}" if part and whole else None


def quantile(some: Signals, q: float, window: str) -> str | None:
    """A quantile of the request duration, in seconds; of a summary the worst instance's."""
    latency = some["latency"]
    if latency is None:
        return None
    scale = "" if latency.unit == 1.0 else f" / {latency.unit:g}"
    if latency.quantiles:
        value = next((one for one in latency.quantiles if float(one) == q), None)
        return f"max({_at_quantile(latency, value)}){scale}" if value else None
    return f"histogram_quantile({q:g}, sum by (le) ({latency.ranged('rate', window, suffix='_bucket')})){scale}"


def _at_quantile(latency: Signal, value: str) -> str:
    return latency.select(Matcher(label="quantile", value=value))


def unknown_hosts(some: Signals, window: str) -> str | None:
    """Requests refused for their Host, within a window; 0 when there was none yet."""
    return _count(some["unknown_host"], "increase", window)


def unknown_hosts_born(some: Signals, window: str) -> str | None:
    """The same for an alert: also those with which a counter came to life, of which `increase` knows nothing.

    A counter is new when its instance was scraped before the window, and it was not there.
    """
    one = some["unknown_host"]
    if one is None:
        return None
    scraped = "up" + (f"{{{own}}}" if (own := ", ".join(str(label) for label in one.labels if label.label == "job")) else "")
    born = f"({one.select()} unless {one.select()} offset {window}) and on (job, instance) {scraped} offset {window}"
    return f"sum(({born}) or {one.ranged('increase', window)}) or vector(0)"


def tls_failures(some: Signals, window: str) -> str | None:
    """Database connections that failed in TLS, a second."""
    return _count(some["tls_errors"], "rate", window)


def _count(one: Signal | None, function: str, window: str) -> str | None:
    return f"sum({one.ranged(function, window)}) or vector(0)" if one else None


def tls_ratio(some: Signals, window: str) -> str | None:
    """The share of attempted connections to the database that failed in TLS."""
    attempts = some["attempts"]
    failed = some["tls_errors"]
    if failed is None or attempts is None:
        return None
    return _ratio(f"sum({failed.ranged('rate', window)})", f"sum({attempts.ranged('rate', window)})")


def retries(some: Signals, window: str) -> str | None:
    """Database retries a second."""
    return _count(some["retries"], "rate", window)


def retry_ratio(some: Signals, window: str) -> str | None:
    """Database retries a request."""
    repeated = some["retries"]
    return _ratio(f"sum({repeated.ranged('rate', window)})" if repeated else None, total(some, window))


def saturation(some: Signals) -> str | None:
    """How much of its pool the fullest instance uses, 0 to 1."""
    busy, size = some["pool_busy"], some["pool_size"]
    if busy is None or size is None:
        return None
    return f"max(sum by (job, instance) ({busy.select()}) / sum by (job, instance) ({size.select()}))"


def crawlers_refused(some: Signals, window: str) -> str | None:
    """The share of crawlers' requests to SEO hosts that were not served; None when the metric does not say with which status."""
    seo = some["seo"]
    if seo is None or not seo.status:
        return None
    served = seo.without_status()
    return _ratio(f"sum({seo.ranged('rate', window, status=REFUSED)})", f"sum({served.ranged('rate', window)})")


def crawlers_refused_count(some: Signals, window: str) -> str | None:
    """How many requests of crawlers were not served, within a window."""
    seo = some["seo"]
    return f"sum({seo.ranged('increase', window, status=REFUSED)})" if seo and seo.status else None


def by(some: Signals, role: str, window: str, *, status: str) -> str | None:
    """Requests a second by route (where a label says it) and status: a panel's, for people to look at."""
    signal = some[role]
    if signal is None:
        return None
    labels = ", ".join((*signal.route[:1], *signal.status[:1])) if len(signal.route) <= 1 else ", ".join(signal.route)
    return f"sum by ({labels}) ({signal.ranged('rate', window, status=status)})" if labels else bad(some, window, status=status)
