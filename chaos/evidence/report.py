"""report.html: one file that needs nothing else - no script, no font, no request - and reads verdict first."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chaos.evidence import charts, raster, words
from chaos.evidence.redact import redact
from chaos.evidence.series import Fault, Series, collect
from chaos.gates import grouped
from chaos.model import Finding, GateResult, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chaos.evidence.record import Run
    from chaos.evidence.schema import Evidence

FULL, EXAMPLES = 60, 8  # failures told in full, and examples of each: beyond that a report is not read any more

WIRE_KEY = (("good", "session with the real server"), ("refused", "no session with it"), ("hostile", "met a hostile server"))
TONES = {
    Outcome.FAIL: "fail",
    Outcome.INCONCLUSIVE: "open",
    Outcome.PASS: "pass",
    Outcome.WAIVED: "waived",
    Outcome.NOT_APPLICABLE: "none",
}
VERDICT_TONES = {Verdict.GO: "pass", Verdict.CLEAR: "pass", Verdict.NO_GO: "fail", Verdict.INCONCLUSIVE: "open"}


@dataclass(frozen=True, slots=True)
class GateView:
    """A row of the gate table."""

    id: str
    title: str
    label: str
    tone: str
    measured: str
    threshold: str
    n: str
    bound: str
    reason: str
    prover: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure as a bug report."""

    anchor: str
    check: str
    gate: str
    headline: str
    broken: str
    took: str
    expected: str
    seen: str
    count: str
    examples: tuple[str, ...]
    more: int
    rerun: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart: `html` is ours and goes into the page as it is; `said` is what it shows, in a sentence."""

    title: str
    html: str
    said: str
    key: tuple[tuple[str, str], ...] = ()
    rows: tuple[Fault, ...] = field(default=())


def report(run: Run, *, before: Evidence | None = None, damaged: Sequence[str] = (), secrets: Sequence[str] = ()) -> str:
    """The page. Reads all of the run's recordings once.

    `before` is the last run of the same target; `damaged` what could not be read of this one; `secrets` are values to hide.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (0.1 s, and only here)

    hidden = tuple(secrets)

    def clean(text: str) -> str:
        return redact(text, hidden)

    series = collect(run.recordings(), started=run.started, finished=run.finished, clean=clean)
    aside = _aside(run)
    environment = Environment(
        loader=PackageLoader("chaos.evidence", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # every text that the template puts out goes through it; what is marked safe is our own drawing
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters["tight"] = _tight
    return environment.get_template("report.html.j2").render(
        run=run,
        tone=VERDICT_TONES[run.verdict],
        sentence=words.sentence(run),
        ended=words.ended(run),
        tally=_tally(run),
        facts=_facts(run),
        gates=[_gate(run, gate) for gate in words.worst_first(run.gates) if gate.id not in aside],
        aside=[_gate(run, gate) for gate in words.worst_first(run.gates) if gate.id in aside],
        failures=[_failure(run, series, one, number) for number, one in enumerate(run.failures[:FULL], 1)],
        more_failures=run.failures[FULL:],
        drawings=_drawings(run, series),
        unproven=_unproven(run),
        waived=[_gate(run, gate) for gate in run.of(Outcome.WAIVED)],
        error_groups=grouped(run.findings, "rel.error_schema")[:FULL],
        checks=sorted(run.findings, key=lambda one: list(Outcome).index(one.outcome)),
        labels=words.LABELS,
        tones=TONES,
        changes=_changes(run, before),
        before=before,
        damaged=damaged,
        environment=_environment(run),
        again=_again(run),
    )


# -- numbers ---------------------------------------------------------------------------------------------------------------------


def _tight(text: str) -> str:
    """No line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(?:ms|s|min|h|%)(?!\w))", "\N{NO-BREAK SPACE}", text)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M:%S UTC").lstrip("0")


def _facts(run: Run) -> list[tuple[str, str]]:
    return [
        ("Target", run.target),
        ("Profile", f"{run.profile} ({'soak' if run.scope == 'soak' else 'short run'})"),
        ("Seed", str(run.seed)),
        ("Started", _when(run.started)),
        ("Took", words.duration(run.finished - run.started)),
        ("Workers", str(run.workers)),
        *((name, text) for name, text in (("Recovery", words.recovery(run)), ("Clean-up", run.cleanup)) if text),
    ]


def _tally(run: Run) -> list[tuple[str, str, int, float]]:
    """(tone, words, how many, share in per cent) for the bar under the verdict."""
    names = {
        Outcome.FAIL: "failed",
        Outcome.INCONCLUSIVE: "not proven",
        Outcome.PASS: "proven",
        Outcome.WAIVED: "waived",
        Outcome.NOT_APPLICABLE: "not applicable",
    }
    total = max(1, len(run.gates))
    found = [(TONES[outcome], name, len(run.of(outcome))) for outcome, name in names.items()]
    return [(tone, name, count, round(100 * count / total, 2)) for tone, name, count in found if count]


def _aside(run: Run) -> frozenset[str]:
    """Gates that this run has nothing to say about: not applicable, or not looked into and another run's business."""
    must = {gate.id for gate in words.due(run)}
    out = {gate.id for gate in run.of(Outcome.NOT_APPLICABLE)}
    return frozenset(out | {gate.id for gate in run.not_proven if not gate.n and not gate.checks and gate.id not in must})


def _gate(run: Run, gate: GateResult) -> GateView:
    return GateView(
        id=gate.id,
        title=words.title(run, gate.id),
        label=words.LABELS[gate.outcome],
        tone=TONES[gate.outcome],
        measured=words.measured(gate),
        threshold=gate.threshold,
        n=f"{gate.n:,}" if gate.n else "",
        bound=words.bound(gate),
        reason=words.reason(gate),
        prover=words.prover(gate.id),
    )


def _failure(run: Run, series: Series, one: Finding, number: int) -> Failure:
    title = series.titles.get(one.experiment, "")
    broken = one.fault or title or one.experiment
    count = f"{one.bad:,} of {one.n:,}"
    took = {True: "It was seen to take effect.", False: "It was not seen to take effect.", None: ""}[one.took_effect]
    return Failure(
        anchor=f"failure-{number}",
        check=one.check,
        gate=one.gate,
        headline=words.title(run, one.gate) or one.gate,
        broken=broken if not title or title == broken else f"{title} ({broken})",
        took=took,
        expected=one.expected,
        seen=one.detail,
        count=f"{count} observations" if one.bad and one.n > 1 and count not in one.detail else "",
        examples=one.examples[:EXAMPLES],
        more=max(0, len(one.examples) - EXAMPLES),
        rerun=one.rerun or f"chaos-gate run --only {one.check} --seed {run.seed}",
    )


def _unproven(run: Run) -> list[tuple[str, bool, list[GateView]]]:
    """(who can settle it, whether this run should have, gates), what this run should have settled first."""
    must = {gate.id for gate in words.due(run)}
    groups: dict[tuple[bool, str], list[GateView]] = {}
    for gate in run.not_proven:
        groups.setdefault((gate.id not in must, words.prover(gate.id)), []).append(_gate(run, gate))
    return [(who, not later, views) for (later, who), views in sorted(groups.items(), key=lambda item: item[0][0])]


def _changes(run: Run, before: Evidence | None) -> list[tuple[str, str, str, str, str]]:
    """(gate, label and tone then, label and tone now) of the gates whose verdict is another than last time."""
    if before is None:
        return []
    then = {row.id: Outcome(row.verdict) for row in before.gates}
    changed = [
        (gate, then[gate.id]) for gate in words.worst_first(run.gates) if then.get(gate.id, gate.outcome) is not gate.outcome
    ]
    return [(gate.id, words.LABELS[old], TONES[old], words.LABELS[gate.outcome], TONES[gate.outcome]) for gate, old in changed]


def _environment(run: Run) -> list[tuple[str, str]]:
    host = run.host
    machine = ", ".join(
        part for part in (words.plural(host.cores, "core") if host.cores else "", host.kernel, host.machine) if part
    )
    rows = [("chaos-gate", run.version), *run.parts.items(), ("Python", host.python), ("Machine", machine)]
    return [(name, value) for name, value in rows if value]


def _again(run: Run) -> list[tuple[str, str]]:
    rows = [("The same run", run.command or f"chaos-gate run --profile {run.profile} --seed {run.seed}")]
    if run.command and "--seed" not in run.command and run.command.startswith("chaos-gate run"):
        rows.append(("With the same seed", f"{run.command} --seed {run.seed}"))
    return [
        *rows,
        ("Judge what was recorded again", "chaos-gate recheck DIRECTORY"),
        ("Why a gate exists", "chaos-gate explain GATE"),
    ]


# -- drawings --------------------------------------------------------------------------------------------------------------------


def _drawings(run: Run, series: Series) -> list[Drawing]:
    makers: Iterable[tuple[str, Callable[[], Drawing | None]]] = (
        ("Latency and faults", lambda: _latency(series)),
        ("Time to recover", lambda: _recoveries(run, series)),
        ("Connections to the database", lambda: _connections(series)),
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
    return Drawing("Latency and faults", html, said, tuple(key), tuple(series.faults))


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
    return Drawing("Time to recover", html, said, tuple(key))


def _connections(series: Series) -> Drawing | None:
    if not series.sessions:
        return None
    kinds = [kind for _, kind in series.sessions]
    said = (
        f"{words.plural(len(kinds), 'connection')} seen on the wire: {kinds.count('relay'):,} got a session with the real server, "
        f"{kinds.count('failed'):,} did not, {kinds.count('hostile'):,} met a hostile server."
    )
    return Drawing("Connections to the database", charts.drawn("wire", said, charts.connections(series)), said, WIRE_KEY)


def _attempts(series: Series) -> Drawing | None:
    """The last of them: a nightly run repeats nothing here, and one shows what there is."""
    found = [one for history in series.histories[-1:] for one in raster.rasters(history)]
    if not found:
        return None
    said = found[0].said()
    html = charts.drawn("attempts", f"Attempts to connect, by client. {said}", raster.drawing(found[0]))
    return Drawing("Attempts by client", html, said, (("hostile", "an attempt that failed"), ("good", "one that got a session")))
