"""A run's gates by the criteria that they support: a table for auditors to file (CSV), and a page for people.

Which gate supports what is data (controls.toml); verdicts and numbers are those of evidence.json, whose digest is in each row.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from chaos.evidence import schema
from chaos.evidence.disk import write_text
from chaos.evidence.pages import TONES, page
from chaos.evidence.redact import redact
from chaos.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chaos.evidence.schema import Evidence, GateRow
    from chaos.gates import Gate

NAME = "soc2"
COLUMNS = (
    *("framework", "control", "criterion", "statement", "gate", "how", "threshold", "verdict", "measured", "n"),
    *("bound_low", "bound_high", "confidence", "reason", "target", "profile", "started", "finished", "evidence_sha256"),
)
SAID = {
    "pass": "supports",
    "fail": "does not support: the gate failed",
    "inconclusive": "not proven in this run",
    "not_applicable": "not applicable",
    "waived": "waived: does not support",
}
SHOWN = {
    "pass": "supports",
    "fail": "failed",
    "inconclusive": "not proven",
    "not_applicable": "does not apply",
    "waived": "waived",
}
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would carry out (CWE-1236)


@dataclass(frozen=True, slots=True)
class Control:
    """One criterion. `gates`: gate id -> how it supports the criterion."""

    framework: str
    id: str
    title: str
    gates: Mapping[str, str]


@cache
def controls() -> tuple[Control, ...]:
    """All of controls.toml."""
    rows = tomllib.loads(files("chaos.export").joinpath("controls.toml").read_text(encoding="utf-8"))["control"]
    return tuple(Control(**row) for row in rows)


def write(directory: Path, output: Path, gates: Mapping[str, Gate]) -> tuple[Path, Path]:
    """soc2.csv and soc2.html of the evidence in `directory`. Raises UsageError, EvidenceUnwritable."""
    evidence = schema.read(directory / "evidence.json")
    digest = hashlib.sha256((directory / "evidence.json").read_bytes()).hexdigest()
    output.mkdir(parents=True, exist_ok=True)
    table, shown = output / f"{NAME}.csv", output / f"{NAME}.html"
    write_text(table, as_csv(evidence, digest))
    write_text(shown, as_page(evidence, digest, gates))
    return table, shown


def as_csv(evidence: Evidence, digest: str) -> str:
    """RFC 4180, UTF-8, one row a control and gate; nothing in it is taken for a formula."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\r\n")
    rows.writerow(COLUMNS)
    known = {gate.id: gate for gate in evidence.gates}
    run = (evidence.target, evidence.profile, evidence.started, evidence.finished, digest)
    for control in controls():
        for name, how in control.gates.items():
            row = (control.framework, control.id, control.title, *_gate(name, how, known.get(name)), *run)
            rows.writerow([_cell(one) for one in row])
    return text.getvalue()


def _gate(name: str, how: str, gate: GateRow | None) -> tuple[object, ...]:
    """From 'statement' to 'reason'."""
    if gate is None:
        return ("not in this run", name, how, "", "", "", "", "", "", "", "")
    low, high = gate.bound or ("", "")
    measured = "" if gate.measured is None else gate.measured
    numbers = (gate.threshold, gate.verdict, measured, gate.n, low, high, gate.confidence, gate.reason)
    return (SAID[gate.verdict], name, how, *numbers)


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = redact(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def as_page(evidence: Evidence, digest: str, gates: Mapping[str, Gate]) -> str:
    """The same as a page: each criterion with its gates."""
    known = {gate.id: gate for gate in evidence.gates}
    listed = [
        (
            control,
            [
                (name, gates[name].title, how, SHOWN[gate.verdict], TONES[Outcome(gate.verdict)], gate)
                for name, how in control.gates.items()
                if (gate := known.get(name)) is not None
            ],
        )
        for control in controls()
    ]
    frameworks = list(dict.fromkeys(control.framework for control in controls()))
    grouped = [(name, [one for one in listed if one[0].framework == name]) for name in frameworks]
    return page("soc2.html.j2", evidence=evidence, digest=digest, grouped=grouped)
