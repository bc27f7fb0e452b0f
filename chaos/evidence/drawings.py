"""What happened, in drawings: which ones a run gets, what each says in a sentence, and the key to its colours."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.evidence import charts, raster, timelines, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chaos.evidence.record import Run
    from chaos.evidence.series import Fault, Series

WIRE_KEY = (("good", "session with the real server"), ("refused", "no session with it"), ("hostile", "met a hostile server"))
BROKEN_KEY = ("shade", "something was broken")
MOST_FAULTS = 400  # rows of the table of what was broken
MOST_GAUGES = 8


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart: `html` is ours and goes into the page as it is; `said` is what it shows, in a sentence."""

    title: str
    html: str
    said: str
    key: tuple[tuple[str, str], ...] = ()
    rows: tuple[Fault, ...] = field(default=())
    more: int = 0


def drawings(run: Run, series: Series) -> list[Drawing]:
    """Those that there is something to draw for; one that cannot be drawn says so in its place."""
    makers: Iterable[tuple[str, Callable[[], Drawing | None]]] = (
        ("Latency", lambda: _latency_of_stretches(run, series)),
        ("Requests that came to no good", lambda: _failures(series)),
        ("Gauges", lambda: _gauges(series)),
        ("Latency and faults", lambda: _latency(series)),
        ("Errors", lambda: _errors(series)),
        ("Recovery over time", lambda: _recovery(run, series)),
        ("Time to recover, by fault", lambda: _recoveries(run, series)),
        ("Handshakes and retries on the wire", lambda: _connections(series)),
        ("Attempts by client", lambda: _attempts(series)),
    )
    made = []
    for title, make in makers:
        try:
            drawing = make()
        except Exception as error:  # noqa: BLE001  (a chart that cannot be drawn must not cost the report its verdict)
            drawing = Drawing(title, "", f"This chart could not be drawn ({type(error).__name__}: {error}).")
        if drawing is not None:
            made.append(drawing)
    return made


# -- each request ------------------------------------------------------------------------------------------------------------------


def _latency(series: Series) -> Drawing | None:
    counts = series.counts
    if not counts["requests"]:
        return None
    said = f"{words.plural(counts['requests'], 'request')} by {words.plural(len(series.lanes), 'worker')}"
    failed = counts["refused"] + counts["silent"]
    said += f": {failed:,} failed, {counts['failed inside']:,} of them while something was broken. "
    said += f"{counts['silent']:,} got no whole answer. " if counts["silent"] else ""
    half, slow = series.quantile(0.5), series.quantile(0.95)
    if half is not None and slow is not None:
        said += f"Reads before a fault: median {words.duration(half)}, P95 {words.duration(slow)}. "
    if len(series.lanes) > charts.MOST_LANES:
        said += f"Shown are the first {charts.MOST_LANES} of {len(series.lanes)} workers."
    key = [("good", "answered as expected"), ("refused", "answered with an error"), ("silent", "no whole answer")]
    key += [("shade", "something was broken (number: table below)")] if series.faults else []
    if any(not one.took for one in series.faults):
        key.append(("hatch", "a fault that did not take effect"))
    html = charts.drawn("latency", f"Latency of every request over time. {said}", charts.latency(series))
    faults = series.faults
    more = max(0, len(faults) - MOST_FAULTS)
    return Drawing("Latency and faults", html, said, tuple(key), tuple(faults[:MOST_FAULTS]), more)


def _errors(series: Series) -> Drawing | None:
    counts = series.counts
    bad = counts["refused"] + counts["silent"]
    if not bad:
        return None
    said = (
        f"{words.plural(counts['refused'], 'answer')} with an error and {counts['silent']:,} without any, "
        f"{counts['failed outside']:,} of both while nothing was broken."
    )
    key = (("refused-bar", "answered with an error"), ("silent-bar", "no whole answer"), BROKEN_KEY)
    html = charts.drawn("errors", f"Bad answers per second. {said}", timelines.errors(series))
    return Drawing("Errors", html, said, key)


def _recovery(run: Run, series: Series) -> Drawing | None:
    seen = [one for one in series.faults if one.took and one.healed]
    if len(seen) < 2:
        return None
    said = f"Each of {words.plural(len(seen), 'fault')} by when it had gone, and how long after that the target served again."
    key = (("good-dot", "seconds to the first success that held"), ("silent-dot", "over the limit, or never (cross)"), BROKEN_KEY)
    html = charts.drawn("recovery-time", said, timelines.recovery(series, run.recovery_limit))
    return Drawing("Recovery over time", html, said, key)


def _recoveries(run: Run, series: Series) -> Drawing | None:
    rows = charts.recovery_rows(series)
    if not rows:
        return None
    values = [value for _, row in rows for value in row]
    known = sorted(value for value in values if value is not None)
    said = f"Serving again after {len(known)} of {words.plural(len(values), 'fault')}"
    said += (
        f", half of them within {words.duration(known[len(known) // 2])}, the slowest after {words.duration(known[-1])}"
        if known
        else ""
    )
    said += f". The limit is {words.duration(run.recovery_limit)}." if run.recovery_limit else "."
    if len(rows) > charts.MOST_ROWS:
        said += f" Shown are the slowest {charts.MOST_ROWS} of {len(rows)}."
    key = [("good-dot", "seconds from the end of the fault to the first success that held")]
    if len(known) < len(values) or (run.recovery_limit and known and known[-1] > run.recovery_limit):
        key.append(("silent-dot", "over the limit, or never (cross)"))
    html = charts.drawn("recovery", said, charts.recoveries(series, run.recovery_limit))
    return Drawing("Time to recover, by fault", html, said, tuple(key))


def _connections(series: Series) -> Drawing | None:
    if not series.sessions:
        return None
    kinds = [kind for _, kind in series.sessions]
    said = (
        f"{words.plural(len(kinds), 'connection')} seen on the wire: {kinds.count('relay'):,} got a session with the real server, "
        f"{kinds.count('failed'):,} did not, {kinds.count('hostile'):,} met a hostile server. The target retries whenever an "
        "attempt fails: a storm is a wall, a back-off a thinning row."
    )
    html = charts.drawn("wire", said, charts.connections(series))
    return Drawing("Handshakes and retries on the wire", html, said, (*WIRE_KEY, BROKEN_KEY))


def _attempts(series: Series) -> Drawing | None:
    """The last of them: a nightly run repeats nothing here, and one shows what there is."""
    found = [one for history in series.histories[-1:] for one in raster.rasters(history)]
    if not found:
        return None
    said = found[0].said()
    html = charts.drawn("attempts", f"Attempts to connect, by client. {said}", raster.drawing(found[0]))
    return Drawing("Attempts by client", html, said, (("hostile", "an attempt that failed"), ("good", "one that got a session")))


# -- what a long run keeps ---------------------------------------------------------------------------------------------------------


def _stretches(series: Series) -> list[charts.Stretch]:
    return charts.shaded(series.faults, series.long.span, offset=series.long.first - series.started)


def _length(width: int) -> str:
    return words.plural(width // 3600, "hour") if width >= 3600 else words.duration(width)


def _limits(run: Run) -> list[tuple[float, str]]:
    """(seconds, words) of the latency gates, from their thresholds as this run had them: 'P95 <= 120 ms'."""
    found = (
        (gate.threshold, re.search(r"<= ([\d.]+) ms", gate.threshold)) for gate in run.gates if gate.id in {"rel.p95", "rel.p99"}
    )
    return [(float(match[1]) / 1000, text) for text, match in found if match]


def _latency_of_stretches(run: Run, series: Series) -> Drawing | None:
    long = series.long
    found = {release: long.quantiles(release) for release in sorted(long.releases)}
    if not any(found.values()):
        return None
    lines = []
    for release, points in found.items():
        if points:
            worst = max(points, key=lambda point: point[1][1])
            name = f"{release}: " if release else ""
            middle = sorted(quantiles[1] for _, quantiles in points)[len(points) // 2]
            lines.append(f"{name}P95 {words.duration(middle)} in the middle stretch, {words.duration(worst[1][1])} in the worst")
    said = f"Reads while nothing was broken, by stretches of {_length(long.asked.width)}. {'; '.join(lines)}."
    key = [("good", "P50"), ("refused", "P95"), ("silent-dot", "P99"), BROKEN_KEY]
    key += [("line", "candidate"), ("dashes", "baseline")] if "candidate" in long.releases else []
    html = charts.drawn("latency-long", f"Latency over time. {said}", timelines.latency(long, _stretches(series), _limits(run)))
    return Drawing("Latency", html, said, tuple(key))


def _failures(series: Series) -> Drawing | None:
    long, counts = series.long, series.long.counts
    if not counts["planned"]:
        return None
    bad = counts["bad"] + counts["dropped"]
    said = (
        f"{bad:,} of {words.plural(counts['planned'], 'request')} that were due came to no good, {counts['bad while broken']:,} "
        f"of them while something was broken; {counts['dropped']:,} were never sent."
    )
    if long.statuses:
        said += (
            " Of reads and writes: " + ", ".join(f"{what} {count:,} times" for what, count in long.statuses.most_common(5)) + "."
        )
    key = (
        ("silent-bar", "while nothing was broken"),
        ("hostile-bar", "never sent"),
        ("refused-bar", "while something was"),
        BROKEN_KEY,
    )
    html = charts.drawn("failures", f"Share of bad requests over time. {said}", timelines.failures(long, _stretches(series)))
    return Drawing("Requests that came to no good", html, said, key)


def _gauges(series: Series) -> Drawing | None:
    """Memory and sessions first: that is where leaks are seen."""
    found = sorted(
        ((name, bins) for name, bins in series.long.gauges.items() if len(bins) > 1),
        key=lambda item: ("memory" not in item[0], "session" not in item[0], item[0]),
    )
    if not found:
        return None
    said = f"What was read off the target and its database, {words.plural(len(found), 'gauge')}"
    said += f", shown are {MOST_GAUGES}" if len(found) > MOST_GAUGES else ""
    changes = []
    for name, bins in found[:MOST_GAUGES]:
        held = [one for _, one in bins.items()]
        changes.append(f"{name} {timelines.amount(name, held[0].mean)} at first, {timelines.amount(name, held[-1].mean)} at last")
    said += ": " + "; ".join(changes) + "."
    html = charts.drawn("gauges", said, timelines.gauges(found[:MOST_GAUGES], series.long, _stretches(series)))
    return Drawing("Gauges", html, said, (("good", "mean, and a band from the smallest to the largest"), BROKEN_KEY))
