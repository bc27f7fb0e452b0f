"""The findings of the pen-test delta as a file of their own (pentest.json), and which of them somebody has accepted.

`chaos-gate accept DIR` keeps the keys of a run's findings beside chaos.toml, in chaos.accepted.json; from then on each finding is
'new' or 'known', and what is gone is 'fixed'. Nothing critical can be accepted: that is what the gate is for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chaos.checks.pentest import SEVERITIES
from chaos.errors import UsageError
from chaos.evidence.disk import write_text
from chaos.evidence.redact import redact
from chaos.evidence.schema import moment

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.evidence.record import Run

PENTEST = "pentest.json"
SCHEMA_VERSION = 1
DELTA = "pentest.delta"


def write(directory: Path, run: Run, *, secrets: tuple[str, ...] = ()) -> None:
    """pentest.json, worst first, secrets redacted; nothing where the run asked no pen-test. Raises EvidenceUnwritable."""
    delta = next((one for one in run.findings if one.check == DELTA), None)
    if delta is None:
        return
    found = [json.loads(redact(one, secrets)) for one in delta.examples]
    data = {
        "schema_version": SCHEMA_VERSION,
        "target": run.target,
        "started": moment(run.started),
        "summary": delta.detail,
        "findings": sorted(found, key=lambda one: SEVERITIES.index(one["severity"])),
    }
    write_text(directory / PENTEST, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def beside(config: Path) -> Path:
    """Where the accepted findings of a chaos.toml are: chaos.accepted.json."""
    return config.with_name(f"{config.stem}.accepted.json")


def known(config: Path) -> frozenset[str] | None:
    """The keys that were accepted; None when none ever were. Raises UsageError for a file that is not ours."""
    place = beside(config)
    return frozenset(_read(place, "findings")) if place.is_file() else None


def accept(directory: Path, config: Path) -> tuple[Path, list[str], list[str]]:
    """Accept what a run found: (the file, the keys in it, the critical ones that are not). UsageError without a pen-test."""
    place = directory / PENTEST
    if not place.is_file():
        raise UsageError(
            "no pen-test was run here", remedy="chaos-gate run --only sec.pentest, then chaos-gate accept", where=str(directory)
        )
    found = _read(place, "findings")
    severities = {str(one["key"]): str(one["severity"]) for one in found}
    kept = {key: severity for key, severity in sorted(severities.items()) if severity != "critical"}
    data = {"schema_version": SCHEMA_VERSION, "from": directory.resolve().name, "findings": kept}
    write_text(beside(config), json.dumps(data, indent=2) + "\n")
    return beside(config), list(kept), sorted(set(severities) - set(kept))


def _read(place: Path, key: str) -> Any:
    """Any: JSON. One member of a file of ours."""
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
        found = data[key] if data["schema_version"] == SCHEMA_VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict | list):
        raise UsageError(
            "this is no file of pen-test findings of this version", remedy="remove it, and accept a run again", where=str(place)
        )
    return found
