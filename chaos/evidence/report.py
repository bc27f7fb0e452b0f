"""report.html: one file that needs nothing else - no script, no font, no request - and reads verdict first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.checks.limits import RATES, Limits
from chaos.checks.longrun import Account
from chaos.evidence import words
from chaos.evidence.drawings import drawings
from chaos.evidence.pages import TONES, VERDICT_TONES, page, when
from chaos.evidence.redact import redact
from chaos.evidence.schema import result_of
from chaos.evidence.series import Series, Step, collect
from chaos.evidence.streak import strip
from chaos.gates import grouped
from chaos.model import Finding, GateResult, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.evidence.record import Run
    from chaos.evidence.schema import Evidence
    from chaos.model import History

LONG = {"soak", "smoke"}  # profiles of a soak
FULL, EXAMPLES = 60, 8  # failures told in full, and examples of each: beyond that a report is not read any more


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
    was: str = ""


@dataclass(frozen=True, slots=True)
class StepView:
    """A row of the roll-out's table."""

    weight: str
    decision: str
    tone: str
    after: str
    why: str


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


def read(run: Run, *, secrets: Sequence[str] = ()) -> Series:
    """What the page draws, from all of the run's recordings, read once; `secrets` are values to hide."""
    hidden = tuple(secrets)

    def clean(text: str) -> str:
        return redact(text, hidden)

    account = Account(_limits(run))
    started, finished = _span(run)
    series = collect(_fed(run, account), started=started, finished=finished, clean=clean)
    series.hours = account.hours()
    return series


def _span(run: Run) -> tuple[float, float]:
    """When it began and ended, on the run's clock: a soak's own may be a simulated one, which the plan in its minutes tells."""
    if run.profile in LONG:
        for history in run.histories():
            facts = history.facts
            if "hours" in facts and "started" in facts:
                began = float(facts["started"])
                return began, max(began + float(facts["hours"]) * 3600, run.finished)
    return run.started, run.finished


def _limits(run: Run) -> Limits:
    """What this run's hours were judged by."""
    known = words.catalogue().values()
    seconds = {gate.id: gate.seconds for gate in known if gate.seconds} | dict(run.seconds)
    return Limits(recovery=run.recovery_limit, seconds=seconds, rates=RATES | dict(run.rates))


def _fed(run: Run, account: Account) -> Iterator[tuple[str, History]]:
    """The recordings, which the account of a long run is fed on the way."""
    for worker, history in run.recordings():
        account.feed(history)
        yield worker, history


def report(
    run: Run,
    *,
    series: Series | None = None,
    before: Evidence | None = None,
    damaged: Sequence[str] = (),
    secrets: Sequence[str] = (),
) -> str:
    """The page. `series` is what was read of the recordings (None: they are read now).

    `before` is the last run of the same target; `damaged` what could not be read of this one; `secrets` are values to hide.
    """
    hidden = tuple(secrets)
    series = series if series is not None else read(run, secrets=hidden)
    aside = _aside(run)
    then = {row.id: result_of(row) for row in before.gates} if before else None
    shown = words.worst_first(run.gates)
    return page(
        "report.html.j2",
        secrets=hidden,
        run=run,
        tone=VERDICT_TONES[run.verdict],
        sentence=words.sentence(run),
        ended=words.ended(run),
        tally=_tally(run),
        facts=_facts(run),
        gates=[_gate(run, gate, then) for gate in shown if gate.id not in aside],
        aside=[_gate(run, gate, then) for gate in shown if gate.id in aside],
        failures=[_failure(run, series, one, number) for number, one in enumerate(run.failures[:FULL], 1)],
        more_failures=run.failures[FULL:],
        streak=strip(series.hours),
        steps=[_step(run, one) for one in series.steps],
        drawings=drawings(run, series),
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
        settle=_settle(run),
    )


# -- numbers ---------------------------------------------------------------------------------------------------------------------


def _facts(run: Run) -> list[tuple[str, str]]:
    return [
        ("Target", run.target),
        ("Profile", f"{run.profile} ({'soak' if run.scope == 'soak' else 'short run'})"),
        ("Seed", str(run.seed)),
        ("Started", when(run.started)),
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


def _gate(run: Run, gate: GateResult, then: Mapping[str, GateResult] | None = None) -> GateView:
    """`then`: the gates of the run before (None: there is none)."""
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
        was=_was(gate, then.get(gate.id)) if then is not None else "",
    )


def _was(gate: GateResult, then: GateResult | None) -> str:
    """What became of a gate since the last run: its verdict, else its number."""
    if then is None:
        return "new"
    if then.outcome is not gate.outcome:
        return f"was {words.LABELS[then.outcome]}"
    old = words.measured(then)
    return "as before" if old == words.measured(gate) or not old else f"was {old}"


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


def _step(run: Run, step: Step) -> StepView:
    """With the reason that the check gave, where the step itself holds none."""
    found = next((one for one in run.findings if one.experiment == step.experiment), None)
    tone = TONES[found.outcome] if found else {"promote": "pass", "pause": "fail"}.get(step.decision, "open")
    why = step.why or (found.detail if found else "")
    return StepView(f"{step.weight:g}", step.decision.upper(), tone, words.duration(step.lasted), why)


def _unproven(run: Run) -> list[tuple[str, bool, list[GateView]]]:
    """(who can settle it, whether this run should have, gates), what this run should have settled first."""
    must = {gate.id for gate in words.due(run)}
    groups: dict[tuple[bool, str], list[GateView]] = {}
    for gate in run.not_proven:
        groups.setdefault((gate.id not in must, words.prover(gate.id)), []).append(_gate(run, gate))
    return [(who, not later, views) for (later, who), views in sorted(groups.items(), key=lambda item: item[0][0])]


def _settle(run: Run) -> dict[str, list[Finding]]:
    """By gate that this run had to settle: the findings that could not be judged, each with the line that tries again."""
    must = {gate.id for gate in words.due(run)}
    found: dict[str, list[Finding]] = {}
    for one in run.findings:
        if one.gate in must and one.outcome is Outcome.INCONCLUSIVE and len(found.setdefault(one.gate, [])) < EXAMPLES:
            found[one.gate].append(one)
    return found


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
