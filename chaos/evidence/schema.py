"""evidence.json as a model. docs/evidence.schema.json is generated from it (`python -m chaos.evidence.schema FILE`).

The keys are a contract with whoever reads the file (a pipeline, a dashboard, an admission controller): none is added, renamed or
removed without a new schema_version.
"""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from chaos.errors import UsageError
from chaos.evidence.redact import in_json, redact
from chaos.model import Finding, GateResult, Outcome

if TYPE_CHECKING:
    from chaos.evidence.record import Run

SCHEMA_VERSION: Literal[1] = 1

Judged = Literal["pass", "fail", "inconclusive", "not_applicable"]
Share = Annotated[float, Field(ge=0, le=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateRow(_Model):
    """One gate. `measured` is a count, a share of `n`, or seconds, as the gate's rule has it; null when nothing was measured."""

    id: Annotated[str, Field(description="requirement id, such as sec.verify_full")]
    verdict: Literal["pass", "fail", "inconclusive", "not_applicable", "waived"]
    measured: int | float | None
    threshold: Annotated[str, Field(description="what had to hold, such as '== 0' or '>= 99 %'")]
    n: Annotated[int, Field(ge=0, description="observations behind the verdict")]
    bound: Annotated[
        tuple[Share, Share] | None,
        Field(
            description="rates that the observations are compatible with, each end one-sided at `confidence` (Clopper-Pearson)"
        ),
    ]
    confidence: Share
    reason: str
    checks: list[str]


class CheckRow(_Model):
    """What one check made of one experiment."""

    id: Annotated[str, Field(description="as `chaos-gate run --only` takes it")]
    gate: str
    outcome: Judged
    detail: str
    fault: str
    took_effect: Annotated[
        bool | None, Field(description="whether the fault was seen to take effect; null: no fault, or not known")
    ]
    rerun: Annotated[str, Field(description="the one line that runs the check again")]


class Evidence(_Model):
    """evidence.json: the verdict of a run, its gates and its checks. Times are UTC, RFC 3339."""

    schema_version: Literal[1]
    verdict: Literal["GO", "CLEAR", "NO-GO", "INCONCLUSIVE"]
    scope: Literal["smoke", "soak"]
    profile: str
    target: str
    seed: int
    started: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    finished: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    gates: list[GateRow]
    checks: list[CheckRow]


def moment(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(value: float | None) -> float | None:
    """JSON has no NaN and no infinity; a count is written as one."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else value


def _gate(gate: GateResult) -> GateRow:
    return GateRow(
        id=gate.id,
        verdict=gate.outcome.value,
        measured=_number(gate.measured),
        threshold=gate.threshold,
        n=gate.n,
        bound=gate.bound,
        confidence=round(gate.confidence, 12),
        reason=gate.reason,
        checks=list(gate.checks),
    )


def result_of(row: GateRow) -> GateResult:
    """The inverse of what made the row."""
    return GateResult(
        id=row.id,
        outcome=Outcome(row.verdict),
        measured=row.measured,
        threshold=row.threshold,
        n=row.n,
        bound=row.bound,
        confidence=row.confidence,
        reason=row.reason,
        checks=tuple(row.checks),
    )


def _check(finding: Finding, run: Run) -> CheckRow:
    # only a gate can be waived: a check that says so has proven nothing
    outcome = Outcome.INCONCLUSIVE if finding.outcome is Outcome.WAIVED else finding.outcome
    return CheckRow(
        id=finding.check,
        gate=finding.gate,
        outcome=cast("Judged", outcome.value),
        detail=finding.detail,
        fault=finding.fault,
        took_effect=finding.took_effect,
        rerun=finding.rerun or f"chaos-gate run --only {finding.check} --seed {run.seed}",
    )


def evidence_of(run: Run) -> Evidence:
    """The contract's view of a run."""
    return Evidence(
        schema_version=SCHEMA_VERSION,
        verdict=run.verdict.value,
        scope="soak" if run.scope == "soak" else "smoke",
        profile=run.profile,
        target=run.target,
        seed=run.seed,
        started=moment(run.started),
        finished=moment(run.finished),
        gates=[_gate(gate) for gate in run.gates],
        checks=[_check(finding, run) for finding in run.findings],
    )


def evidence_json(run: Run, *, secrets: tuple[str, ...] = ()) -> str:
    """evidence.json's text, secrets redacted, with a line feed at its end."""
    data = in_json(evidence_of(run).model_dump(mode="json"), lambda text: redact(text, secrets))
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def read(path: Path) -> Evidence:
    """evidence.json, checked against the contract. Raises UsageError: not there, not JSON, or not of this version."""
    try:
        return Evidence.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = "this is no evidence of this version: " + str(error).splitlines()[0]
        raise UsageError(what, remedy="name a directory that `chaos-gate run` wrote", where=str(path)) from error


def json_schema() -> str:
    """The JSON Schema of evidence.json (draft 2020-12), as it stands in docs/evidence.schema.json."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Evidence.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json_schema(), encoding="utf-8")
