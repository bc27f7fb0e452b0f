"""policy.json: by what a run will be judged, what it is going to do, and with which configuration - written before it does anything.

Every segment's hash chain begins with the digest of this file (`chaos.evidence.chain`), so a threshold that is changed afterwards
breaks all of them. It holds no secret: of what stands in the target's environment, headers and request bodies only the placeholders
are kept (`hidden`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from chaos.checks import hosts
from chaos.errors import UsageError
from chaos.evidence.chain import COVERED, FORM, POLICY
from chaos.evidence.disk import write_text
from chaos.evidence.redact import HIDDEN, in_json, redact
from chaos.evidence.schema import moment
from chaos.model import now
from chaos.statistics import ALPHA

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from chaos.checks import Limits
    from chaos.gates import Gate

SCHEMA_VERSION = 1
PLANS = ("schedule.json", "plan.json")  # what a run writes down of what it is going to do
FIXED = ("tool", "target", "gates", "overrides", "waivers", "policy", "limits", "record")  # a resumed run goes on under these
_PRIVATE = {"env", "headers", "form", "json", "body", "save"}
_PLACEHOLDER = re.compile(r"\{[a-z_:]+\}")

Json = Any
"""What `json` reads."""


def hidden(value: Json, *, private: bool = False) -> Json:
    """A configuration without its secrets: of environments, headers and bodies only placeholders stay, elsewhere what is harmless."""
    if isinstance(value, Mapping):
        return {str(key): hidden(item, private=private or key in _PRIVATE) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(item, private=private) for item in value]
    if isinstance(value, str):
        return _placeholders(value) if private else redact(value)
    return value if not private or value is None else HIDDEN


def _placeholders(text: str) -> str:
    kept = _PLACEHOLDER.findall(text)
    rest = _PLACEHOLDER.split(text)
    woven = [part for pair in zip(rest, [*kept, ""], strict=True) for part in (HIDDEN if pair[0] else "", pair[1])]
    return "".join(woven)


def plans(directory: Path) -> dict[str, str]:
    """The plans that are there, each with its SHA-256."""
    there = [directory / name for name in PLANS if (directory / name).is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


def compose(
    *,
    run: str,
    version: str,
    target: str,
    profile: str,
    seed: int,
    command: str,
    gates: Mapping[str, Gate],
    limits: Limits,
    selected: Iterable[str] | None,
    absent: Mapping[str, str],
    overrides: Mapping[str, float],
    waivers: Mapping[str, str],
    configuration: Json,
    secrets: Iterable[str],
    experiments: Iterable[tuple[str, int]],
    plan: Mapping[str, str],
) -> dict[str, Json]:
    """The file as a value. `selected`: the gates that this run has to prove (None: all that its profile must settle)."""
    known = tuple(secrets)
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "tool": {"name": "chaos-gate", "version": version},
        "fixed": moment(now()),
        "target": target,
        "profile": profile,
        "seed": seed,
        "command": redact(command, known),
        "selected": None if selected is None else sorted(selected),
        "gates": [asdict(gate) for gate in gates.values()],
        "due": [gate.id for gate in gates.values() if gate.due(profile)],
        "not_applicable": dict(absent),
        "overrides": dict(overrides),
        "waivers": dict(waivers),
        "policy": dict(limits.policy),
        "limits": {
            "confidence": 1 - ALPHA,
            "recovery": limits.recovery,
            "fail_fast": limits.fail_fast,
            "slack": limits.slack,
            "retention": limits.retention,
            "errors": limits.schema,
            "seconds": dict(limits.seconds),
        },
        "host_rows": {row.id: row.kind for row in hosts.rows() if row.kind},
        "experiments": [{"experiment": name, "times": times} for name, times in experiments],
        "plan": dict(plan),
        "configuration": in_json(hidden(configuration), partial(redact, secrets=known)),
        "record": {"form": FORM, "tables": {name: list(columns) for name, columns in COVERED.items()}},
    }


def fix(directory: Path, made: Mapping[str, Json], *, resumed: bool) -> None:
    """Write it; a resumed run keeps the file it began with. Raises UsageError: it would go on under other thresholds."""
    path = directory / POLICY
    if resumed and (earlier := read(directory)) is not None:
        differing = [name for name in FIXED if earlier.get(name) != json.loads(json.dumps(made[name]))]
        if differing:
            raise UsageError(
                f"this run began under another policy ({', '.join(differing)} differ)",
                remedy="go on with the chaos.toml and the chaos-gate that it began with, or begin a new run",
                where=str(path),
            )
        return
    write_text(path, json.dumps(made, indent=1, ensure_ascii=False) + "\n")


def read(directory: Path) -> dict[str, Json] | None:
    """None: not there. Raises UsageError for what is no policy of this version."""
    path = directory / POLICY
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {found['schema_version']}")  # noqa: TRY301  (one message for all that is wrong with it)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(
            f"this is no policy of this version: {error}", remedy="name a directory that `chaos-gate run` wrote", where=str(path)
        ) from error
    return dict(found)
