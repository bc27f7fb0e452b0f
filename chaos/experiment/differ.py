"""Two OpenAPI descriptions, compared by oasdiff: what differs, and at which of its levels."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.errors import PartMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.traffic.openapi import Description

PATIENCE = 90.0  # s; 200 routes take 0.1 s
MOST = 200  # changes that are kept, the gravest first
# Whoever documents an answer's member or field and then removes it takes away what clients read; most descriptions mark nothing as
# required, which oasdiff takes for a warning that one must not rely on it.
LEVELS = "response-optional-property-removed err\noptional-response-header-removed err\n"


def difference(before: Description, after: Description, *, room: Path, tool: Callable[[], Path]) -> dict[str, Any]:
    """As chaos.checks.contract reads it: 'same' and 'operations', 'changes', or 'unasked' with why. Any: JSON."""
    count = sum(1 for _ in before.operations())
    if _essence(before.document) == _essence(after.document):
        return {"same": True, "operations": count}
    if old := next((one.version for one in (before, after) if one.version.startswith("2")), ""):
        return {"unasked": f"OpenAPI {old} is not compared, only 3.x"}
    try:
        binary = tool()
    except PartMissing as error:
        return {"unasked": f"{error.where}: {error.what}; {error.remedy}"}
    with tempfile.TemporaryDirectory(dir=room, prefix="contract-") as name:
        return {**_run(binary, Path(name), before, after), "operations": count}


def _essence(document: dict[str, Any]) -> str:
    """Without what says nothing of the contract: title, release, addresses."""
    return json.dumps({key: one for key, one in document.items() if key not in {"info", "servers", "tags"}}, sort_keys=True)


def _run(binary: Path, room: Path, before: Description, after: Description) -> dict[str, Any]:
    for name, one in (("baseline.json", before), ("candidate.json", after)):
        (room / name).write_text(json.dumps(one.document), encoding="utf-8")
    (room / "levels.txt").write_text(LEVELS, encoding="utf-8")
    options = ["--format", "json", "--severity-levels", "levels.txt", "--allow-external-refs=false"]
    command = [str(binary), "changelog", "baseline.json", "candidate.json", *options]
    env = {key: value for key, value in os.environ.items() if not key.startswith("OASDIFF")} | {"HOME": str(room)}
    try:
        done = subprocess.run(command, cwd=room, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"unasked": f"oasdiff did not come to an end: {error}"}
    said = " ".join(done.stderr.split())[:300]
    if done.returncode:
        return {"unasked": f"oasdiff cannot read them: {said}"}
    try:
        changes = json.loads(done.stdout or "[]") or []
    except ValueError:
        return {"unasked": f"oasdiff said no JSON: {said}"}
    kept = [{key: one.get(key) for key in ("id", "text", "level", "operation", "path")} for one in changes]
    return {"changes": sorted(kept, key=lambda one: -int(one["level"] or 0))[:MOST]}
