"""One run as a value: everything that evidence.json, the JUnit file, the report and the terminal's last words are made of."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from chaos.evidence.rows import plain, revive
from chaos.model import Finding, GateResult, History, Outcome, Verdict

Recordings = Callable[[], Iterable[tuple[str, History]]]
"""Worker and history, again from the start with every call: histories are large and are read one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The machine that the run took place on, as far as it explains numbers. No host name: it identifies people, not results."""

    cores: int = 0
    kernel: str = ""
    python: str = ""
    machine: str = ""

    @classmethod
    def here(cls) -> HostFacts:
        """Of this machine; `cores` are those that this process may use."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
        return cls(
            cores=usable,
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            machine=platform.machine(),
        )


def _nothing() -> Iterator[tuple[str, History]]:
    return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was run, on what, and what came of it.

    `started` and `finished` are seconds since the epoch. `parts` maps a part ('PostgreSQL') to its version. `command` is the
    command line as it was given, `only` its --only, separated by spaces. `environment_error` is the sentence and remedy of an
    environment error that ended the run ('' when none did). `titles` replace the gates' own (gates.toml). `recovery_limit` is
    [target.database].recovery in seconds (0.0: unknown). `selected` are the gates that a run narrowed by --only has to prove
    (empty: all). `notes` are sentences that belong beside the verdict ('compressed: ...'). `rates` and `seconds` are the limits that
    hours are judged by, by gate (empty: those of gates.toml). `cleanup` sums up the ledger of faults ('31 of 31 faults healed'; '':
    there is none). `recordings` gives the histories, and is the one field that is not kept with the rest.
    """

    version: str
    target: str
    profile: str
    seed: int
    verdict: Verdict
    started: float
    finished: float
    scope: str = "smoke"
    workers: int = 1
    parts: Mapping[str, str] = field(default_factory=dict)
    gates: tuple[GateResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    command: str = ""
    only: str = ""
    environment_error: str = ""
    host: HostFacts = field(default_factory=HostFacts)
    titles: Mapping[str, str] = field(default_factory=dict)
    recovery_limit: float = 0.0
    cleanup: str = ""
    selected: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    recordings: Recordings = field(default=_nothing, compare=False, repr=False)

    def histories(self) -> Iterator[History]:
        """What was recorded, one experiment at a time."""
        return (history for _, history in self.recordings())

    def of(self, *outcomes: Outcome) -> tuple[GateResult, ...]:
        """The gates with one of these verdicts, in the order of the run."""
        return tuple(gate for gate in self.gates if gate.outcome in outcomes)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Findings that failed and whose gate is not waived."""
        waived = {gate.id for gate in self.of(Outcome.WAIVED)}
        return tuple(item for item in self.findings if item.outcome is Outcome.FAIL and item.gate not in waived)

    @property
    def not_proven(self) -> tuple[GateResult, ...]:
        """Gates that neither passed nor failed; each one's `reason` says what would prove it."""
        return self.of(Outcome.INCONCLUSIVE)


_OTHER = {"verdict", "gates", "findings", "host", "recordings", "parts", "titles"}
_SIMPLE = tuple(item.name for item in fields(Run) if item.name not in _OTHER)


def dumps(run: Run) -> str:
    """The run without its recordings, as JSON (the store keeps it)."""
    data = {name: getattr(run, name) for name in _SIMPLE}
    data |= {
        "verdict": run.verdict.value,
        "parts": dict(run.parts),
        "titles": dict(run.titles),
        "rates": dict(run.rates),
        "seconds": dict(run.seconds),
        "host": plain(run.host),
        "gates": [plain(gate) for gate in run.gates],
        "findings": [plain(finding) for finding in run.findings],
    }
    return json.dumps(data)


def loads(text: str, recordings: Recordings = _nothing) -> Run:
    """The inverse of `dumps`; keys of a later version are left out."""
    data: dict[str, Any] = json.loads(text)  # Any: JSON, as `dumps` wrote it
    data |= {name: tuple(data.get(name, ())) for name in ("selected", "notes")}
    return Run(
        **{name: data[name] for name in _SIMPLE if name in data},
        verdict=Verdict(data["verdict"]),
        parts=data.get("parts", {}),
        titles=data.get("titles", {}),
        host=revive(HostFacts, data.get("host", {})),
        gates=tuple(revive(GateResult, item) for item in data.get("gates", ())),
        findings=tuple(revive(Finding, item) for item in data.get("findings", ())),
        recordings=recordings,
    )
