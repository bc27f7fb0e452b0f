"""The scorecard: one landscape page that an executive reads in a minute, as PDF and as HTML, of a run or before any.

    card(run)  /  blank(target, gates)   ->  Card   ->  pdf(card), page(card)

The PDF is typeset by typst from templates/scorecard.typ, with the fonts that the wheel holds and no others, without network. Texts
of a target's never become markup: they reach it as JSON, as data.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from chaos.evidence import words
from chaos.evidence.charts import short
from chaos.evidence.disk import write_bytes, write_text
from chaos.evidence.pages import TONES, VERDICT_TONES, tight, when
from chaos.evidence.pages import page as rendered
from chaos.evidence.redact import redact
from chaos.model import GateResult, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from chaos.evidence.record import Run
    from chaos.evidence.streak import Strip

GROUPS = (
    ("sec.", "Security"),
    ("rel.", "Reliability"),
    ("res.", "Resilience"),
    ("roll.", "Roll-out"),
    ("rep.", "Reporting"),
)
NAME = "scorecard"
MOST_ROWS = 40  # gates that fit on the page
MOST_NOTES = 6  # lines of a list
STANDARDS: tuple[Literal["ua-1"] | None, ...] = ("ua-1", None)  # tried in this order
BLANK = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Row:
    """One gate in one line."""

    id: str
    title: str
    threshold: str
    measured: str
    n: str
    word: str
    tone: str


@dataclass(frozen=True, slots=True)
class Card:
    """What is on the page. `template`: before any run; then there is room for what will be measured, and for signatures."""

    verdict: str
    tone: str
    sentence: str
    target: str
    facts: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    notes: tuple[tuple[str, tuple[str, ...]], ...]
    identity: str
    template: bool = False


def card(run: Run, *, strip: Strip | None = None, digest: str = "") -> Card:
    """Of a run. `strip` are its hours; `digest` the SHA-256 of its evidence.json, by which the attestation names it ('': not known)."""
    streak = strip.short if strip else "no hour was judged: only a soak has any"
    facts = (
        ("Streak", streak),
        ("Faults", run.cleanup or "none was injected"),
        ("Recovery", words.recovery(run) or "nothing to recover from"),
        ("Evidence (attestation.json covers it)", f"evidence.json, SHA-256 {_grouped(digest)}" if digest else "not known"),
    )
    identity = (
        f"{run.profile} run, seed {run.seed}, {when(run.started)}, {words.duration(run.finished - run.started)}; "
        f"chaos-gate {run.version}" + "".join(f", {name} {version}" for name, version in run.parts.items())
    )
    return Card(
        verdict=run.verdict.value,
        tone=VERDICT_TONES[run.verdict],
        sentence=" \N{MIDDLE DOT} ".join([words.sentence(run), *run.notes]),
        target=run.target,
        facts=facts,
        groups=_groups(run.gates, run.titles),
        notes=_notes(run),
        identity=identity,
    )


def _grouped(digest: str) -> str:
    """In eights, so that it can be compared by eye, and broken over lines."""
    return " ".join(digest[at : at + 8] for at in range(0, len(digest), 8))


def blank(target: str, results: Sequence[GateResult], titles: Mapping[str, str], *, version: str) -> Card:
    """The targets only: what has to be shown, with nothing measured yet."""
    open_ones = [one for one in results if one.outcome is Outcome.INCONCLUSIVE]
    by_prover: dict[str, int] = {}
    for gate in open_ones:
        by_prover[words.prover(gate.id)] = by_prover.get(words.prover(gate.id), 0) + 1
    lines = [f"{words.plural(count, 'gate')}: {who}" for who, count in by_prover.items() if who]
    reasons: dict[str, list[str]] = {}
    for gate in results:
        if gate.outcome is Outcome.NOT_APPLICABLE:
            reasons.setdefault(gate.reason, []).append(gate.id)
    out = [f"{why}: {', '.join(ids)}" for why, ids in reasons.items()]
    notes = (("Settled by", tuple(lines[:MOST_NOTES])), ("Does not apply", _cut(out)))
    signed = tuple(f"{who}: ____________________   {BLANK} date: __________" for who in ("Engineering", "Security", "Operations"))
    return Card(
        verdict="TARGETS",
        tone="none",
        sentence=f"{words.plural(len(open_ones), 'gate')} to be proven before production; nothing has been measured yet",
        target=target,
        facts=(("Verdict", "GO / NO-GO / INCONCLUSIVE"), ("Streak", f"____ of {words.plural(48, 'green hour')} in a row"),
               ("Faults", "____ of ____ healed"), ("Attestation", "____")),
        groups=_groups(results, titles, template=True),
        notes=(*((name, said) for name, said in notes if said), ("Signed", signed)),
        identity=f"template, chaos-gate {version}",
        template=True,
    )  # fmt: skip


def _groups(
    results: Iterable[GateResult], titles: Mapping[str, str], *, template: bool = False
) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    gates = list(results)
    known = {prefix: [one for one in gates if one.id.startswith(prefix)] for prefix, _ in GROUPS}
    others = [one for one in gates if not any(one.id.startswith(prefix) for prefix, _ in GROUPS)]
    named = [(name, known[prefix]) for prefix, name in GROUPS] + [("Further gates", others)]
    left = MOST_ROWS
    found = []
    for name, members in named:
        shown = words.worst_first(members)[: max(0, left)]
        left -= len(shown)
        rows = tuple(_row(one, titles, template=template) for one in (shown if not template else members))
        if rows:
            found.append((name, rows))
    return tuple(found)


def _row(gate: GateResult, titles: Mapping[str, str], *, template: bool) -> Row:
    open_one = template and gate.outcome is Outcome.INCONCLUSIVE
    return Row(
        id=gate.id,
        title=short(titles.get(gate.id) or words.catalogued(gate.id), 46),
        threshold=short(gate.threshold, 24),
        measured="" if template else words.measured(gate),
        n=f"{gate.n:,}" if gate.n else "",
        word="____" if open_one else words.LABELS[gate.outcome],
        tone="none" if open_one else TONES[gate.outcome],
    )


def _notes(run: Run) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What failed, what was not proven, and what somebody signed for."""
    failed = [f"{one.id}: {words.reason(one)}" for one in run.of(Outcome.FAIL)]
    must = {one.id for one in words.due(run)}
    ordered = sorted(run.not_proven, key=lambda one: one.id not in must)
    missing = [f"{one.id}: {words.lacks(one) or one.reason}" + (f" ({words.prover(one.id)})" if words.prover(one.id) else "")
               for one in ordered]  # fmt: skip
    waived = [f"{one.id}: {one.reason}" for one in run.of(Outcome.WAIVED)]
    notes = [("Failed", failed), ("Not proven", missing), ("Waived", waived)]
    return tuple((name, _cut(lines)) for name, lines in notes if lines)


def _cut(lines: Sequence[str]) -> tuple[str, ...]:
    shown = [short(" ".join(line.split()), 150) for line in lines[:MOST_NOTES]]
    return (*shown, f"and {len(lines) - MOST_NOTES} more: see the report") if len(lines) > MOST_NOTES else tuple(shown)


# -- shown -------------------------------------------------------------------------------------------------------------------------


def page(made: Card, *, secrets: Sequence[str] = ()) -> str:
    """The scorecard as a page of its own."""
    return rendered("scorecard.html.j2", secrets=secrets, card=made)


def write(directory: Path, made: Card, *, name: str = NAME, secrets: Sequence[str] = ()) -> tuple[Path, Path]:
    """Both, in a directory: (the PDF, the page). Raises EvidenceUnwritable."""
    places = directory / f"{name}.pdf", directory / f"{name}.html"
    write_bytes(places[0], pdf(made, secrets=secrets))
    write_text(places[1], page(made, secrets=secrets))
    return places


def pdf(made: Card, *, secrets: Sequence[str] = ()) -> bytes:
    """One page, A4 landscape, tagged for screen readers; the same bytes for the same card.

    It is PDF/UA-1 but where a text of the target's has characters that none of typst's own fonts has: then it is drawn all the same.
    """
    import typst  # noqa: PLC0415  (a library of 60 MB, and only here)

    data = json.dumps(_cleaned(asdict(made), tuple(secrets)))
    source = files("chaos.evidence").joinpath("templates/scorecard.typ").read_bytes()
    for standard in STANDARDS:
        try:
            sheet = typst.compile(
                source, format="pdf", ignore_system_fonts=True, font_paths=[], sys_inputs={"card": data}, pdf_standards=standard
            )
        except typst.TypstError:
            if standard is None:
                raise
        else:
            break
    assert isinstance(sheet, bytes)
    return sheet


def _cleaned(value: object, secrets: Sequence[str]) -> object:
    if isinstance(value, str):
        return tight(redact(value, secrets))
    if isinstance(value, list | tuple):
        return [_cleaned(item, secrets) for item in value]
    return {key: _cleaned(item, secrets) for key, item in value.items()} if isinstance(value, dict) else value
