"""Pages for customers, from evidence that verifies: security posture, one-pager, FAQ. Nothing is said that no gate proves.

What may be said, and on which gates it stands, is data (trust.toml). The numbers are those of evidence.json; times of response are
those of the status-page runbook, and only where its check passed. That the bundle verifies is for the caller to see to.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from chaos.evidence import schema
from chaos.evidence.disk import write_text
from chaos.evidence.pages import page
from chaos.evidence.store import STORE, Store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chaos.evidence.schema import Evidence, GateRow

PAGES = ("posture", "one-pager", "faq")
TITLES = {"posture": "Security posture", "one-pager": "At a glance", "faq": "Questions and answers"}
RUNBOOK = "status-page-runbook"
RESPONSES = (
    ("acknowledge_minutes", "First word about an incident", "minutes"),
    ("update_minutes", "Further words, at least every", "minutes"),
    ("report_days", "Report on an incident", "working days"),
)


@dataclass(frozen=True, slots=True)
class Objective:
    """A service level: what is aimed at, and what was measured ('' where it was not proven)."""

    name: str
    objective: str
    measured: str


@cache
def _said() -> dict[str, Any]:  # TOML
    return tomllib.loads(files("chaos.export").joinpath("trust.toml").read_text(encoding="utf-8"))


def write(directory: Path, output: Path, *, origin: str) -> tuple[Path, ...]:
    """The three pages of a bundle. `origin` says whose it is, as `chaos-gate verify` found. Raises UsageError, EvidenceUnwritable."""
    evidence = schema.read(directory / "evidence.json")
    digest = hashlib.sha256((directory / "evidence.json").read_bytes()).hexdigest()
    gates = {gate.id: gate for gate in evidence.gates}
    values: dict[str, Any] = {
        "topics": topics(gates),
        "open": unsaid(gates),
        "objectives": objectives(gates),
        "responses": responses(directory, evidence),
        "questions": questions(gates),
    }
    output.mkdir(parents=True, exist_ok=True)
    made = []
    for name in PAGES:
        place = output / f"{name}.html"
        values |= {"name": name, "title": TITLES[name], "titles": TITLES}
        write_text(place, page("trust.html.j2", evidence=evidence, digest=digest, origin=origin, **values))
        made.append(place)
    return tuple(made)


def proven(gates: Mapping[str, GateRow], names: Sequence[str]) -> bool:
    """Whether each of them passed; what is waived, or does not apply, proves nothing."""
    return all(name in gates and gates[name].verdict == "pass" for name in names)


def topics(gates: Mapping[str, GateRow]) -> list[tuple[str, list[str]]]:
    """(topic, sentences that are proven), those with any."""
    found: dict[str, list[str]] = {}
    for one in _said()["statement"]:
        if proven(gates, one["gates"]):
            found.setdefault(one["topic"], []).append(_filled(one["text"], gates[one["gates"][0]]))
    return list(found.items())


def unsaid(gates: Mapping[str, GateRow]) -> list[str]:
    """Topics of which nothing is proven, and gates that keep a sentence from being said."""
    return list(dict.fromkeys(f"{one['topic']}: {', '.join(_lacking(gates, one['gates']))}" for one in _said()["statement"]
                              if not proven(gates, one["gates"])))  # fmt: skip


def _lacking(gates: Mapping[str, GateRow], names: Sequence[str]) -> list[str]:
    return [f"{name} ({gates[name].verdict.replace('_', ' ') if name in gates else 'not in this run'})" for name in names
            if not proven(gates, (name,))]  # fmt: skip


def objectives(gates: Mapping[str, GateRow]) -> list[Objective]:
    """The service levels; measured only where the gate passed."""
    return [
        Objective(one["name"], gate.threshold, gate.reason if proven(gates, (gate.id,)) else "")
        for one in _said()["slo"]
        if (gate := gates.get(one["gate"])) is not None
    ]


def questions(gates: Mapping[str, GateRow]) -> list[tuple[str, str]]:
    """(question, answer); one that is not proven is answered so."""
    return [
        (one["ask"], _filled(one["yes"], gates[one["gates"][0]]) if proven(gates, one["gates"]) else _open(gates, one["gates"]))
        for one in _said()["question"]
    ]


def _open(gates: Mapping[str, GateRow], names: Sequence[str]) -> str:
    return f"This run does not show it: {', '.join(_lacking(gates, names))}."


def _filled(text: str, gate: GateRow) -> str:
    bound = f"{gate.bound[1]:.2%}" if gate.bound else "an unknown share"
    measured = "?" if gate.measured is None else f"{gate.measured:.3g}"
    return text.format(n=f"{gate.n:,}", threshold=gate.threshold, bound=bound, measured=measured)


def responses(directory: Path, evidence: Evidence) -> list[tuple[str, str]]:
    """Times of response as the status-page runbook promises them; none where its check did not pass."""
    if not any(one.id == f"{RUNBOOK}.documents" and one.outcome == "pass" for one in evidence.checks):
        return []
    with Store(directory / STORE) as store:
        heads = [
            one["head"]
            for history in store.histories()
            for one in json.loads(history.facts.get("documents", "[]"))
            if one["id"] == RUNBOOK
        ]
    return [(what, f"{heads[-1][key]} {unit}") for key, what, unit in RESPONSES if heads and key in heads[-1]]
