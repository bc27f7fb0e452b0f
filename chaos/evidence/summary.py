"""rep.daily: what a day came to - pass or fail by gate, hours, what stood out, what to do - as Markdown and as a page; and the KPIs.

    summary.md, summary.html            the whole run, day by day
    summaries/2026-11-27.md, .html      each UTC day by itself
    kpis.json                           chaos.evidence.kpis

All is made from the recorded histories by the same account that judges them (`chaos.checks.longrun`). An hour belongs to the day that
it begins in.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from chaos.checks import Limits
from chaos.checks.longrun import Account
from chaos.checks.longrun.tally import HOUR
from chaos.evidence import kpis as numbers
from chaos.evidence import words
from chaos.evidence.disk import write_text
from chaos.evidence.pages import TONES, VERDICT_TONES, page
from chaos.evidence.redact import redact
from chaos.hours import Colour
from chaos.model import Finding, Outcome
from chaos.statistics import judge_rate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from chaos.checks.longrun import Anomaly
    from chaos.checks.longrun.tally import Hourly
    from chaos.evidence.kpis import Kpi
    from chaos.evidence.record import Run
    from chaos.hours import Judged
    from chaos.model import GateResult

EXPERIMENT = "soak"
TOLD = 12  # hours that are not green, and anomalies, told one by one


@dataclass(frozen=True, slots=True)
class Held:
    """What one gate's own observations of a day, or a gate of the whole run, came to."""

    id: str
    title: str
    label: str
    tone: str
    said: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day. `strip` is a word an hour; `why` the hours that are not green; `odd` (what, what to do)."""

    name: str
    colours: str
    strip: tuple[tuple[int, str, str], ...]
    why: tuple[str, ...]
    gates: tuple[Held, ...]
    odd: tuple[tuple[str, str], ...]
    kpis: tuple[Kpi, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """All that the documents are made of."""

    run: Run
    tone: str
    sentence: str
    streak: str
    gates: tuple[Held, ...]
    odd: tuple[tuple[str, str], ...]
    kpis: tuple[Kpi, ...]
    days: tuple[Day, ...]


@cache
def remedies() -> dict[str, str]:
    """Gate id, 'leak' or 'hour' -> what to do first."""
    text = files("chaos").joinpath("evidence", "remedies.toml").read_text(encoding="utf-8")
    found: dict[str, str] = tomllib.loads(text)["remedies"]
    return found


def is_long(run: Run) -> bool:
    """Whether the run was a soak: only then are summaries part of its evidence by themselves."""
    return any(one.experiment == EXPERIMENT for one in run.findings)


def limits_of(run: Run) -> Limits:
    """The thresholds of gates.toml, for whoever has no chaos.toml at hand."""
    del run
    gates = words.catalogue().values()
    return Limits(
        seconds={one.id: one.seconds for one in gates if one.seconds},
        rates={one.id: one.limit for one in gates if one.rule in {"rate", "budget", "worst_class"}},
    )


def summarise(run: Run, limits: Limits | None = None) -> Summary:
    """Reads the run's recordings once, where it was a soak."""
    account = Account(limits or limits_of(run))
    for history in run.histories() if is_long(run) else ():
        account.feed(history)
    hours, judged, odd = account.each_hour(), account.hours(), account.anomalies()
    counted = account.streak()
    streak = f"{counted.longest} green hours in a row, 48 wanted: {counted.green} green, {counted.grey} grey, {counted.red} red"
    return Summary(
        run=run,
        tone=VERDICT_TONES[run.verdict],
        sentence=words.sentence(run),
        streak=streak if hours else "",
        gates=tuple(_held(run, gate) for gate in words.worst_first(run.gates) if gate.outcome is not Outcome.NOT_APPLICABLE),
        odd=tuple(_odd(one) for one in odd[:TOLD]),
        kpis=numbers.kpis(hours, run),
        days=_days(run, account, hours, judged, odd),
    )


def _held(run: Run, gate: GateResult) -> Held:
    remedy = remedies().get(gate.id, "") if gate.outcome is Outcome.FAIL else ""
    return Held(gate.id, words.title(run, gate.id), words.LABELS[gate.outcome], TONES[gate.outcome], words.reason(gate), remedy)


def _odd(one: Anomaly) -> tuple[str, str]:
    return one.detail, remedies()[one.kind]


def _days(
    run: Run, account: Account, hours: Sequence[Hourly], judged: Sequence[Judged], odd: Sequence[Anomaly]
) -> tuple[Day, ...]:
    by_day: dict[str, list[int]] = {}
    for one in hours:
        day = datetime.fromtimestamp(account.begin + one.number * HOUR, UTC).strftime("%Y-%m-%d")
        by_day.setdefault(day, []).append(one.number)
    found = []
    for name, mine in by_day.items():
        colours = [judged[number] for number in mine]
        count = {colour: sum(one.colour is colour for one in colours) for colour in Colour}
        found.append(
            Day(
                name=name,
                colours=", ".join(f"{count[colour]} {colour.value}" for colour in Colour if count[colour]),
                strip=tuple((one.number, one.colour.value.upper(), one.why) for one in colours),
                why=tuple(f"hour {one.number}: {one.colour.value}, {one.why}" for one in colours if one.why)[:TOLD],
                gates=tuple(_of_the_day(run, account, [hours[number] for number in mine])),
                odd=tuple(_odd(one) for one in odd if not one.hours or set(one.hours) & set(mine))[:TOLD],
                kpis=numbers.kpis([hours[number] for number in mine], _nothing_broken(run)),
            )
        )
    return tuple(found)


def _nothing_broken(run: Run) -> Run:
    """A day's own KPIs know nothing of the whole run's outages, which are counted once."""
    return replace(run, findings=tuple[Finding, ...]())


def _of_the_day(run: Run, account: Account, hours: Sequence[Hourly]) -> list[Held]:
    """Each gate that was observed all the time, by this day's observations alone."""
    found = []
    for gate in dict.fromkeys(gate for one in hours for gate in one.counts):
        bad, n = (sum(one.counts[gate][i] for one in hours if gate in one.counts) for i in range(2))
        limit = account.limits.rates.get(gate, 0.0)
        outcome = judge_rate(bad, n, limit) if limit else Outcome.FAIL if bad else Outcome.PASS
        remedy = remedies().get(gate, "") if outcome is Outcome.FAIL else ""
        said = f"{bad:,} of {n:,} ({words.percent(bad / n)})"
        found.append(Held(gate, words.title(run, gate), words.LABELS[outcome], TONES[outcome], said, remedy))
    wrong = sum(one.wrong for one in hours)
    if checked := int(sum(one.sums.get("writes.checked", 0.0) for one in hours)):
        outcome = Outcome.FAIL if wrong else Outcome.PASS
        said, remedy = f"{wrong:,} of {checked:,}", remedies()["res.durability"] if wrong else ""
        found.append(
            Held("res.durability", words.title(run, "res.durability"), words.LABELS[outcome], TONES[outcome], said, remedy)
        )
    return found


# -- as documents ----------------------------------------------------------------------------------------------------------------


def write(directory: Path, run: Run, *, limits: Limits | None = None, secrets: Sequence[str] = ()) -> Summary:
    """All files; what they were made of. Raises EvidenceUnwritable."""
    hidden = tuple(secrets)

    def clean(text: str) -> str:
        return redact(text, hidden)

    whole = summarise(run, limits)
    days = [(one.name, one.kpis) for one in whole.days]
    write_text(directory / "kpis.json", numbers.as_json(run, whole.kpis, days, clean))
    write_text(directory / "summary.md", render("summary.md.j2", whole, hidden))
    write_text(directory / "summary.html", render("summary.html.j2", whole, hidden))
    for day in whole.days:
        alone = replace(whole, days=(day,), kpis=day.kpis, odd=day.odd)
        write_text(directory / "summaries" / f"{day.name}.md", render("summary.md.j2", alone, hidden, day=day))
        write_text(directory / "summaries" / f"{day.name}.html", render("summary.html.j2", alone, hidden, day=day))
    return whole


def render(template: str, summary: Summary, secrets: Sequence[str], *, day: Day | None = None) -> str:
    """The text of one document; `day`: of that day alone."""
    return page(template, secrets=secrets, summary=summary, run=summary.run, day=day, labels=words.LABELS)


def markdown(summary: Summary, *, secrets: Sequence[str] = ()) -> str:
    """summary.md's text."""
    return render("summary.md.j2", summary, secrets)
