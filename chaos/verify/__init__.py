"""`chaos-gate verify`: is a bundle what it says, whoever made it? Needs no trust in them, nor in what judged.

Nothing of this package imports another module of ours (a test keeps it so). It knows the documents: docs/attestation.md (the hash
chain, policy.json, the statement), docs/evidence.md (the store, evidence.json), the gates' rules and their sources. In order:

    signature   attestation.json: a DSSE envelope around an in-toto Statement, signed by the key that was given
    files       every file has the digest that the statement says; none is missing, none is there beside
    policy      policy.json is the one that every chain begins with, and the one the statement names
    chain       every record links to the one before it, and every row is in a record
    rows        k, n and outcome of findings, counted again from the raw rows
    coverage    everything that was planned was heard of
    gates       every k, n, bound and verdict, recomputed; evidence.json says the same
    statement   so does the statement's predicate
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.verify import envelope, shown
from chaos.verify.envelope import ATTESTATION, KeyUnusable
from chaos.verify.gates import OWN, Gate, judge, verdict
from chaos.verify.recording import Seen, read
from chaos.verify.records import Database, parsed, readable, segments
from chaos.verify.result import Problem, Report, Step, same

if TYPE_CHECKING:
    from collections.abc import Mapping

STORE, POLICY, EVIDENCE = "evidence.sqlite", "policy.json", "evidence.json"
FORM = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)  # what reading something malformed ends in
MEMBERS = {
    "schema_version", "run", "tool", "fixed", "target", "profile", "seed", "command", "selected", "gates", "due", "not_applicable",
    "overrides", "waivers", "policy", "limits", "host_rows", "experiments", "plan", "configuration", "record",
}  # fmt: skip


def verify(directory: Path, key: Path | None = None) -> Report:
    """Everything of a bundle, from its directory alone. `key` is a public key, or a certificate, in PEM. Raises KeyUnusable."""
    report = Report()
    try:
        _all(directory, key, report)
    except FORM as error:
        where = f"{directory.name}: {report.steps[-1].name if report.steps else 'reading'}"
        report.step("form").wrong(where, f"something is not of the form that it must have ({type(error).__name__}: {error})")
    return report


def _all(directory: Path, key: Path | None, report: Report) -> None:
    statement = envelope.opened(directory, key, report)
    _files(directory, statement, report.step("files"))
    policy, digest = _policy(directory, statement, report.step("policy"))
    if policy is None:
        return
    with ExitStack() as stack:
        seen, meta = _recorded(directory, policy, digest, report, stack)
        if seen is None:
            return
        whole = _whole(policy, digest, seen, meta)
        _coverage(directory, policy, seen, report.step("coverage"))
        _judged(directory, whole, meta, report)
        if statement is not None:
            _predicate(statement["predicate"], whole, report)


def recorded(directory: Path) -> tuple[Report, list[Gate], int]:
    """Of segments alone, before there is a bundle: what does not hold, each gate as recomputed, and how many links there are."""
    report = Report()
    policy, digest = _policy(directory, None, report.step("policy"))
    if policy is None:
        return report, [], 0
    with ExitStack() as stack:
        seen = _of_segments(directory, policy, digest, report, stack)
        return report, judge(seen.findings, policy), sum(link.number for link in seen.heads.values())


def _files(directory: Path, statement: Mapping[str, Any] | None, step: Step) -> None:
    if statement is None:
        step.wrong(ATTESTATION, "says nothing about the files")
        return
    named: dict[str, str] = {}
    for index, one in enumerate(statement["subject"]):
        try:
            if set(one) != {"name", "digest"} or set(one["digest"]) != {"sha256"} or one["name"] in named:
                raise ValueError("its members are others, or it stands twice")  # noqa: TRY301  (told below)
            named[str(one["name"])] = str(one["digest"]["sha256"])
        except (TypeError, KeyError, ValueError) as error:
            step.wrong(f"{ATTESTATION}, subject[{index}]", str(error))
    there = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if not path.is_dir()}
    there.pop(ATTESTATION, None)
    left_out = {name for name in named if name.startswith("segments/")} if not (directory / "segments").exists() else set[str]()
    for name in sorted(named.keys() - there.keys() - left_out):
        step.wrong(name, "is missing")
    for name in sorted(there.keys() - named.keys()):
        step.wrong(name, "is there, and the statement does not know it")
    for name in sorted(named.keys() & there.keys()):
        if _sha256(there[name]) != named[name]:
            step.wrong(name, "is not the file that was attested: its SHA-256 is another")
    step.said = f"{len(named) - len(left_out)} as attested" + (
        f"; {len(left_out)} segments were not handed over" if left_out else ""
    )


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _policy(directory: Path, statement: Mapping[str, Any] | None, step: Step) -> tuple[dict[str, Any] | None, str]:
    """policy.json (Any: JSON) and its digest; None when nothing can be judged by it."""
    try:
        digest = _sha256(directory / POLICY)
        found = envelope.strict(directory / POLICY)
        if not isinstance(found, dict) or set(found) != MEMBERS or found["schema_version"] != 1 or found["record"]["form"] != 1:
            raise ValueError("its members, or its version, are others")  # noqa: TRY301  (told below)
    except FileNotFoundError:
        step.wrong(POLICY, "is not there: nothing says by what this run was to be judged")
        return None, ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        step.wrong(POLICY, f"is no policy: {error}")
        return None, ""
    if statement is not None:
        for name in ("configuration", "chaosgate_run"):
            said = statement["predicate"].get(name)
            wanted = (
                said[0]["digest"]["sha256"] if name == "configuration" and said else (said or {}).get("policy", {}).get("sha256")
            )
            if wanted != digest:
                step.wrong(POLICY, f"is not the policy that {ATTESTATION} names ({name})")
    for name, wanted in found["plan"].items():
        if _sha256(directory / name) != wanted:
            step.wrong(name, "is not the plan that was written down before the start")
    step.said = f"{len(found['gates'])} gates, fixed {found['fixed']}"
    return found, digest


def _recorded(
    directory: Path, policy: Mapping[str, Any], digest: str, report: Report, stack: ExitStack
) -> tuple[Seen | None, dict[str, str]]:
    chain = report.step("chain")
    counts = Step("rows")
    if not (directory / STORE).is_file():
        chain.wrong(STORE, "is not there")
        report.steps.append(counts)
        if segments(directory):
            seen = _of_segments(directory, policy, digest, report, stack)
            report.notes.append(
                f"the run did not come to its end; its segments hold {sum(one.number for one in seen.heads.values())} links"
            )
        return None, {}
    tables = policy["record"]["tables"]
    try:
        store = stack.enter_context(closing(Database(directory / STORE, name=STORE, tables=tables)))
        originals = _originals(directory, tables, stack)
        store.integrity(chain)
        seen = read([store], policy, digest, chain=chain, counts=counts, originals=originals)
        meta = store.meta()
    except (sqlite3.Error, *FORM) as error:
        chain.wrong(STORE, f"cannot be read: {error}")
        return None, {}
    report.steps.append(counts)
    links = sum(one.number for one in seen.heads.values())
    chain.said = f"{links:,} links of {len(seen.heads)} segments, {sum(seen.rows.values()):,} rows, none outside"
    counts.said = f"{seen.raw.total():,} findings counted again from them"
    return seen, meta


def _originals(directory: Path, tables: Mapping[str, Any], stack: ExitStack) -> dict[str, Database]:
    """The segments that can be opened: they name the field that a merged store changed."""
    found: dict[str, Database] = {}
    for path in segments(directory):
        try:
            found[path.stem] = stack.enter_context(closing(Database(path, name=f"segments/{path.name}", tables=tables)))
        except sqlite3.Error:
            continue
    return found


def _of_segments(directory: Path, policy: Mapping[str, Any], digest: str, report: Report, stack: ExitStack) -> Seen:
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    chain, counts = report.step("segments"), report.step("rows")
    databases = []
    for path in segments(directory):
        try:
            name = f"segments/{path.name}"
            databases.append(
                stack.enter_context(closing(Database(readable(path, scratch), name=name, tables=policy["record"]["tables"])))
            )
            databases[-1].integrity(chain)
        except sqlite3.Error as error:
            chain.wrong(f"segments/{path.name}", f"cannot be read: {error}")
    return read(databases, policy, digest, chain=chain, counts=counts, originals={})


def _whole(policy: Mapping[str, Any], digest: str, seen: Seen, meta: Mapping[str, str]) -> shown.Whole:
    gates = judge(seen.findings, policy)
    last = verdict(gates, policy, ended=bool(seen.ended))
    run = parsed(meta.get("run")) or {}
    return shown.Whole(policy, digest, seen, gates, last, run, parsed(meta.get("damaged")))


def _judged(directory: Path, whole: shown.Whole, meta: Mapping[str, str], report: Report) -> None:
    seen, run, gates, last = whole.seen, whole.run, whole.gates, whole.last
    step = report.step("gates")
    if set(meta) != {"schema_version", "run", "damaged"}:
        step.wrong(f"{STORE}, table meta", f"holds {', '.join(sorted(meta))}")
    step.expect(f"{STORE}, table meta, schema_version", meta.get("schema_version"), "1")
    report.verdict = last
    judged = Counter(one["gate"] for one in seen.findings if one["outcome"] != "not_applicable")
    report.gates = {one.id: (min(seen.raw[one.id], judged[one.id]), judged[one.id]) for one in gates if judged[one.id]}
    step.expect(f"{STORE}, meta, run, verdict", run.get("verdict"), last)
    for one, row in zip(gates, run.get("gates", []), strict=False):
        wanted = (one.id, one.verdict, one.n)
        step.expect(f"{STORE}, meta, run, gates, {one.id}", (row.get("id"), row.get("outcome"), row.get("n")), wanted)
    try:
        shown.evidence(envelope.strict(directory / EVIDENCE), whole, step)
    except (OSError, ValueError) as error:
        step.wrong(EVIDENCE, f"cannot be read: {error}")
    step.said = f"{len(gates)} recomputed, verdict {last}"


def _predicate(found: Any, whole: shown.Whole, report: Report) -> None:
    step, wanted, run = report.step("statement"), shown.predicate(whole), whole.run
    ours = dict(found.get("chaosgate_run", {}))
    for name in ("started", "finished"):
        if not abs(shown.seconds(ours.pop(name, None)) - run.get(name, 0.0)) <= 0.001:
            step.wrong(f"{ATTESTATION}, chaosgate_run.{name}", "is not when the store's own record says")
    deviations = [{"kind": kind, "what": what} for kind, what in wanted["chaosgate_run"]["deviations"]]
    wanted["chaosgate_run"]["deviations"] = deviations
    shown.told(step, ATTESTATION, {**found, "chaosgate_run": ours}, wanted)
    step.said = f"{len(deviations)} deviations told" if deviations else "no deviation"


def _coverage(directory: Path, policy: Mapping[str, Any], seen: Seen, step: Step) -> None:
    """What was planned was heard of, unless something ended the run, which it then says itself."""
    names = [name for _, name in seen.phases]
    if "concluded" not in names:
        step.wrong(f"{STORE}, table phase", "nobody says that the run was concluded")
    for one in policy["experiments"]:
        heard = seen.heard[one["experiment"]]
        if heard < one["times"] and not seen.ended:
            step.wrong(
                f"{STORE}, table history", f"{one['experiment']} was planned {one['times']} times, and is there {heard} times"
            )
    for name, wanted in seen.plans.items():
        if _sha256(directory / name) != wanted:
            step.wrong(name, "is not the plan that was chained before the first record")
    sick = sum(bool(control) for _, control in seen.controls)
    planned = f"{len(policy['experiments'])} experiments planned, {len(seen.controls)} histories"
    step.said = f"{planned}, {sick} sick controls, {len(seen.faults)} faults"


__all__ = ["OWN", "Gate", "KeyUnusable", "Problem", "Report", "recorded", "same", "verify"]
