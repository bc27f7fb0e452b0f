"""attestation.json: an in-toto Statement about every file of an evidence directory, with the numbers of the run.

The predicate is in-toto's `test-result`, with one member of our own beside (`chaosgate_run`), which consumers that do not know it
ignore. docs/attestation.schema.json is generated from the models here (`python -m chaos.evidence.statement FILE`).

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and .../spec/predicates/test-result.md
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chaos.evidence.chain import POLICY
from chaos.evidence.schema import moment
from chaos.model import Finding, GateResult, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.evidence.record import Run
    from chaos.evidence.store import Store

ATTESTATION = "attestation.json"
SCHEMA_VERSION: Literal[1] = 1
STATEMENT: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE: Literal["https://in-toto.io/attestation/test-result/v0.1"] = "https://in-toto.io/attestation/test-result/v0.1"
RESULTS = {Verdict.GO: "PASSED", Verdict.CLEAR: "PASSED", Verdict.NO_GO: "FAILED", Verdict.INCONCLUSIVE: "WARNED"}

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sha256(_Model):
    """A digest, in hexadecimal."""

    sha256: Digest


class Subject(_Model):
    """A file of the directory; `name` is its path in it, with '/'."""

    name: str
    digest: Sha256


class Tool(_Model):
    """What made it."""

    name: Literal["chaos-gate"]
    version: str


class Host(_Model):
    """The machine, as far as it explains numbers."""

    cores: Count
    kernel: str
    python: str
    machine: str


class Environment(_Model):
    """`parts` maps a part, such as PostgreSQL, to its version."""

    parts: dict[str, str]
    host: Host
    workers: Count


class SegmentRow(_Model):
    """One hash chain: how many links it has, and the digest of its last one."""

    name: str
    links: Count
    head: Digest
    histories: Count


class GateNumbers(_Model):
    """One gate. `k` of `n` were bad (null: nothing bad is counted), `deff` by how much observations hang together."""

    id: str
    verdict: Literal["pass", "fail", "inconclusive", "not_applicable", "waived"]
    rule: str
    k: Count | None
    n: Count
    deff: Annotated[float, Field(ge=1)]
    measured: float | None
    bound: tuple[Share, Share] | None
    confidence: Share
    threshold: str
    limit: float
    scope: Literal["smoke", "soak"]


class FaultRow(_Model):
    """Something that was broken. Times are seconds since the epoch, of the run's clock."""

    segment: str
    experiment: str
    fault: str
    scope: str
    injected: float
    healed: float
    took_effect: bool
    cleanup: str


class Controls(_Model):
    """Experiments whose steady state was healthy or sick, and faults that were seen to take effect."""

    healthy: Count
    sick: Count
    faults: Count
    took_effect: Count


class Coverage(_Model):
    """Experiments that were planned and that were heard of; seconds of a long run, and how many of them were looked at."""

    planned: Count
    heard: Count
    seconds: Annotated[float, Field(ge=0)]
    covered: Annotated[float, Field(ge=0)]


class Deviation(_Model):
    """What was not as it should have been."""

    kind: Literal["waiver", "ended", "damaged", "control", "no-effect", "unclean"]
    what: str


class RunPredicate(_Model):
    """What a run came to, with all that is needed to hold it against the raw rows."""

    schema_version: Literal[1]
    run: str
    tool: Tool
    target: str
    profile: str
    scope: Literal["smoke", "soak"]
    seed: int
    verdict: Literal["GO", "CLEAR", "NO-GO", "INCONCLUSIVE"]
    started: str
    finished: str
    environment: Environment
    policy: Sha256
    segments: list[SegmentRow]
    rows: dict[str, Count]
    gates: list[GateNumbers]
    faults: list[FaultRow]
    controls: Controls
    coverage: Coverage
    deviations: list[Deviation]


class Predicate(_Model):
    """In-toto's test-result, and ours beside it."""

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: list[Subject]
    passedTests: list[str]  # noqa: N815  (in-toto's names)
    warnedTests: list[str]  # noqa: N815
    failedTests: list[str]  # noqa: N815
    chaosgate_run: RunPredicate


class Statement(_Model):
    """The payload of the DSSE envelope."""

    type_: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(serialization_alias="_type")]
    subject: list[Subject]
    predicateType: Literal["https://in-toto.io/attestation/test-result/v0.1"]  # noqa: N815
    predicate: Predicate


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def subjects(directory: Path) -> list[Subject]:
    """Every file of the directory but the attestation itself, by name."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / ATTESTATION)
    return [Subject(name=path.relative_to(directory).as_posix(), digest=Sha256(sha256=sha256(path))) for path in files]


def statement(directory: Path, run: Run, store: Store, policy: Mapping[str, Any]) -> str:
    """The statement's text. Everything else that is to be in the directory has been written. `policy` is policy.json (Any: JSON)."""
    named: dict[str, list[str]] = {
        name: [gate.id for gate in run.of(*outcomes)]
        for name, outcomes in (
            ("passedTests", (Outcome.PASS,)),
            ("warnedTests", (Outcome.INCONCLUSIVE, Outcome.WAIVED)),
            ("failedTests", (Outcome.FAIL,)),
        )
    }
    fixed = Sha256(sha256=sha256(directory / POLICY))
    made = Statement(
        type_=STATEMENT,
        subject=subjects(directory),
        predicateType=PREDICATE,
        predicate=Predicate(
            result=RESULTS[run.verdict],  # type: ignore[arg-type]  # the table's values are the literal's
            configuration=[Subject(name=POLICY, digest=fixed)],
            **named,
            chaosgate_run=_run(run, store, policy, fixed),
        ),
    )
    return made.model_dump_json(by_alias=True, indent=1) + "\n"


def _run(run: Run, store: Store, policy: Mapping[str, Any], fixed: Sha256) -> RunPredicate:
    seen = store.attested()
    host = run.host
    return RunPredicate(
        schema_version=SCHEMA_VERSION,
        run=policy["run"],
        tool=Tool(name="chaos-gate", version=run.version),
        target=run.target,
        profile=run.profile,
        scope="soak" if run.scope == "soak" else "smoke",
        seed=run.seed,
        verdict=run.verdict.value,
        started=moment(run.started),
        finished=moment(run.finished),
        environment=Environment(
            parts=dict(run.parts),
            host=Host(cores=host.cores, kernel=host.kernel, python=host.python, machine=host.machine),
            workers=run.workers,
        ),
        policy=fixed,
        segments=[
            SegmentRow(name=name, links=links, head=head, histories=histories) for name, links, head, histories in seen.segments
        ],
        rows=dict(seen.rows),
        gates=[_gate(gate, run, policy) for gate in run.gates],
        faults=[FaultRow(**row) for row in seen.faults],
        controls=Controls(
            healthy=seen.healthy,
            sick=len(seen.sick),
            faults=len(seen.faults),
            took_effect=sum(row["took_effect"] for row in seen.faults),
        ),
        coverage=Coverage(
            planned=sum(one["times"] for one in policy["experiments"]),
            heard=sum(min(one["times"], seen.heard.get(one["experiment"], 0)) for one in policy["experiments"]),
            seconds=seen.seconds,
            covered=seen.covered,
        ),
        deviations=_deviations(run, store, seen.sick, seen.faults),
    )


def _gate(gate: GateResult, run: Run, policy: Mapping[str, Any]) -> GateNumbers:
    row = next(one for one in policy["gates"] if one["id"] == gate.id)
    k, deff = _counted(row["rule"], gate, [one for one in run.findings if one.gate == gate.id])
    return GateNumbers(
        id=gate.id,
        verdict=gate.outcome.value,
        rule=row["rule"],
        k=k,
        n=gate.n,
        deff=deff,
        measured=gate.measured,
        bound=gate.bound,
        confidence=gate.confidence,
        threshold=gate.threshold,
        limit=row["limit"],
        scope="soak" if run.scope == "soak" else "smoke",
    )


def _counted(rule: str, gate: GateResult, found: Sequence[Finding]) -> tuple[int | None, float]:
    """How many were bad, and the design effect of all of them together."""
    used = [one for one in found if one.outcome is not Outcome.NOT_APPLICABLE and one.n]
    if rule == "duration" or gate.measured is None:
        return None, 1.0
    if rule in {"zero", "demonstrated"}:
        return round(gate.measured), 1.0
    deff = sum(one.n for one in used) / sum(one.n / one.deff for one in used) if rule in {"rate", "budget"} else 1.0
    return sum(one.bad for one in used), max(1.0, deff)


def _deviations(run: Run, store: Store, sick: Sequence[str], faults: Sequence[Mapping[str, Any]]) -> list[Deviation]:
    found = [Deviation(kind="waiver", what=gate.id) for gate in run.of(Outcome.WAIVED)]
    found += [Deviation(kind="ended", what=one) for one in store.ended()]
    found += [Deviation(kind="damaged", what=one) for one in store.damaged]
    found += [Deviation(kind="control", what=one) for one in sick]
    found += [
        Deviation(kind="no-effect", what=f"{row['experiment']}: {row['fault']}") for row in faults if not row["took_effect"]
    ]
    found += [
        Deviation(kind="unclean", what=f"{row['experiment']}: {row['cleanup']}") for row in faults if row["cleanup"] != "clean"
    ]
    return found


def json_schema() -> str:
    """The JSON Schema of the statement (draft 2020-12), as it stands in docs/attestation.schema.json."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Statement.model_json_schema(mode="serialization", by_alias=True),
    }
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json_schema(), encoding="utf-8")
