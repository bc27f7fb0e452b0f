"""evidence.json and the statement, member by member, against what was recomputed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from chaos.verify.gates import as_json_number
from chaos.verify.result import same

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.verify.gates import Gate, Policy
    from chaos.verify.recording import Seen
    from chaos.verify.records import Row
    from chaos.verify.result import Step

HIDDEN = "***"
RESULTS = {"GO": "PASSED", "CLEAR": "PASSED", "NO-GO": "FAILED", "INCONCLUSIVE": "WARNED"}
EVIDENCE = "evidence.json"
SLACK = 1.0  # s

Json = Any
"""What `json` reads."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A bundle as recomputed. `run` is the run's own record in the store, which holds what no row does (times, reasons)."""

    policy: Policy
    digest: str
    seen: Seen
    gates: Sequence[Gate]
    last: str
    run: Json
    damaged: Json


def differences(found: Json, wanted: Json, where: str) -> Iterator[tuple[str, Json, Json]]:
    """(member, what it is, what it must be), as deep as both go."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            yield from differences(found.get(key, "(absent)"), wanted.get(key, "(absent)"), f"{where}.{key}")
    elif isinstance(found, list) and isinstance(wanted, list | tuple) and len(found) == len(wanted):
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, f"{where}[{index}]")
    elif not same(found, wanted):
        yield where, found, wanted


def told(step: Step, file: str, found: Json, wanted: Json) -> None:
    """All differences as problems."""
    for where, one, other in differences(found, wanted, ""):
        step.expect(f"{file}, {where.lstrip('.') or 'as a whole'}", one, other)


def covers(shown: str, text: str) -> bool:
    """Whether `shown` is `text` with nothing done to it but hiding: '***' for a secret, U+FFFD for what no terminal may get."""
    if shown == text:
        return True
    parts = re.split(r"(\*\*\*|\N{REPLACEMENT CHARACTER})", shown)
    pattern = "".join(
        ".*" if part == HIDDEN else ".?.?" if part == "\N{REPLACEMENT CHARACTER}" else re.escape(part) for part in parts
    )
    plain = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])", "", text.replace("\r\n", "\n"))
    return any(re.fullmatch(pattern, one, re.DOTALL) for one in (text, plain))


def seconds(text: object) -> float:
    """Of an RFC 3339 moment; NaN when it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return float("nan")


def evidence(found: Json, whole: Whole, step: Step) -> None:
    """evidence.json."""
    policy, gates, run = whole.policy, whole.gates, whole.run
    if not isinstance(found, dict):
        step.wrong(EVIDENCE, "is no object")
        return
    rules = {one["id"]: one for one in policy["gates"]}
    kept = {one.get("id"): one for one in run.get("gates", [])}
    wanted = {
        "schema_version": 1,
        "verdict": whole.last,
        "scope": "soak" if policy["profile"] == "soak" else "smoke",
        "profile": policy["profile"],
        "target": _target(run, policy),
        "seed": run.get("seed"),
        "gates": [
            {
                "id": one.id,
                "verdict": one.verdict,
                "measured": as_json_number(one.measured),
                "threshold": rules[one.id]["threshold"],
                "n": one.n,
                "bound": list(one.bound) if one.bound else None,
                "confidence": policy["limits"]["confidence"],
            }
            for one in gates
        ],
    }
    rows = found.get("gates", [])
    plain = [_without(one, ("reason", "checks")) for one in rows]
    told(step, EVIDENCE, {**_without(found, ("checks", "started", "finished")), "gates": plain}, wanted)
    for one, row in zip(gates, rows, strict=False):
        where = f"{EVIDENCE}, gates, {one.id}"
        step.expect(f"{where}, checks", sorted(row.get("checks", [])), sorted(one.checks))
        reason = kept.get(one.id, {}).get("reason", "")
        if not covers(str(row.get("reason")), reason):
            step.expect(f"{where}, reason", row.get("reason"), reason)
    _checks(found.get("checks", []), whole.seen.findings, step)
    for name in ("started", "finished"):
        if not abs(seconds(found.get(name)) - run.get(name, 0.0)) <= 0.001:
            step.wrong(f"{EVIDENCE}, {name}", f"is {found.get(name)!r}, the store's own record says otherwise")
    _times(found, whole.seen, policy, step)


def _target(run: Json, policy: Policy) -> str:
    """The run's own name of its target, where it is that of chaos.toml with more said beside it (a model, a simulated clock)."""
    said, configured = str(run.get("target")), str(policy["target"])
    return said if configured in said or said.startswith("model: ") else configured


def _times(found: Json, seen: Seen, policy: Policy, step: Step) -> None:
    """Nothing was recorded before the policy was fixed, nor after the end."""
    fixed, finished = seconds(policy["fixed"]), seconds(found.get("finished"))
    if not fixed - SLACK <= seen.first:
        step.wrong("policy.json, fixed", "is after the first record: the policy was fixed too late")
    if not seen.last <= finished + SLACK or not seconds(found.get("started")) <= finished:
        step.wrong(f"{EVIDENCE}, finished", "is before the last record")


def _without(one: Json, names: Sequence[str]) -> Json:
    return {key: value for key, value in one.items() if key not in names} if isinstance(one, dict) else one


def _checks(shown: Json, findings: Sequence[Row], step: Step) -> None:
    """The same checks, as often, and each with its own words."""
    left: dict[tuple[object, ...], list[Row]] = {}
    for one in findings:
        left.setdefault(_key(one["check"], one["gate"], one["outcome"], one["took_effect"]), []).append(one)
    for index, row in enumerate(shown):
        where = f"{EVIDENCE}, checks[{index}] ({row.get('id')})"
        key = _key(row.get("id"), row.get("gate"), row.get("outcome"), row.get("took_effect"))
        candidates = left.get(key, [])
        match = next((one for one in candidates if _said(row, one)), None)
        if match is None:
            step.wrong(where, "no finding in the store says this" if not candidates else "its words are not those of the finding")
        else:
            candidates.remove(match)
        if set(row) != {"id", "gate", "outcome", "detail", "fault", "took_effect", "rerun"}:
            step.wrong(where, "its members are others")
    missing = Counter(one["check"] for rest in left.values() for one in rest)
    for check, count in missing.items():
        step.wrong(f"{EVIDENCE}, checks", f"{check} is missing ({count} times)")


def _key(check: object, gate: object, outcome: object, took: object) -> tuple[object, ...]:
    return check, gate, "inconclusive" if outcome == "waived" else outcome, None if took is None else bool(took)


def _said(row: Json, one: Row) -> bool:
    words = (("detail", one["detail"]), ("fault", one["fault"]), ("rerun", one["rerun"] or row.get("rerun", "")))
    return all(covers(str(row.get(name)), text) for name, text in words)


def predicate(whole: Whole) -> dict[str, Json]:
    """The predicate that the statement must have."""
    gates, last, seen, policy, run = whole.gates, whole.last, whole.seen, whole.policy, whole.run
    digest, damaged = whole.digest, whole.damaged
    rules = {one["id"]: one for one in policy["gates"]}
    scope = "soak" if policy["profile"] == "soak" else "smoke"
    planned = policy["experiments"]
    sick = [name for name, control in seen.controls if control]
    return {
        "result": RESULTS[last],
        "configuration": [{"name": "policy.json", "digest": {"sha256": digest}}],
        "passedTests": [one.id for one in gates if one.verdict == "pass"],
        "warnedTests": [one.id for one in gates if one.verdict in {"inconclusive", "waived"}],
        "failedTests": [one.id for one in gates if one.verdict == "fail"],
        "chaosgate_run": {
            "schema_version": 1,
            "run": policy["run"],
            "tool": {"name": "chaos-gate", "version": run.get("version")},
            "target": _target(run, policy),
            "profile": policy["profile"],
            "scope": scope,
            "seed": run.get("seed"),
            "verdict": last,
            "environment": {
                "parts": run.get("parts"),
                "host": {"cores": 0, "kernel": "", "python": "", "machine": "", **run.get("host", {})},
                "workers": run.get("workers"),
            },
            "policy": {"sha256": digest},
            "segments": [
                {"name": name, "links": link.number, "head": link.digest, "histories": seen.histories.get(name, 0)}
                for name, link in sorted(seen.heads.items())
            ],
            "rows": dict(seen.rows),
            "gates": [_numbers(one, rules[one.id], policy, scope) for one in gates],
            "faults": seen.faults,
            "controls": {
                "healthy": len(seen.controls) - len(sick),
                "sick": len(sick),
                "faults": len(seen.faults),
                "took_effect": sum(one["took_effect"] for one in seen.faults),
            },
            "coverage": {
                "planned": sum(one["times"] for one in planned),
                "heard": sum(min(one["times"], seen.heard[one["experiment"]]) for one in planned),
                "seconds": sum(length for length, _ in seen.spans.values()),
                "covered": sum(length * covered for length, covered in seen.spans.values()),
            },
            "deviations": _deviations(gates, seen, sick, damaged),
        },
    }


def _numbers(one: Gate, rule: Mapping[str, Json], policy: Policy, scope: str) -> dict[str, Json]:
    return {
        "id": one.id,
        "verdict": one.verdict,
        "rule": rule["rule"],
        "k": None if rule["rule"] == "duration" else one.k,
        "n": one.n,
        "deff": one.deff,
        "measured": one.measured,
        "bound": list(one.bound) if one.bound else None,
        "confidence": policy["limits"]["confidence"],
        "threshold": rule["threshold"],
        "limit": rule["limit"],
        "scope": scope,
    }


def _deviations(gates: Sequence[Gate], seen: Seen, sick: Sequence[str], damaged: Json) -> list[tuple[str, str]]:
    found = [("waiver", one.id) for one in gates if one.verdict == "waived"]
    found += [("ended", one) for one in seen.ended] + [("damaged", one) for one in damaged or ()]
    found += [("control", one) for one in sick]
    found += [("no-effect", f"{one['experiment']}: {one['fault']}") for one in seen.faults if not one["took_effect"]]
    found += [("unclean", f"{one['experiment']}: {one['cleanup']}") for one in seen.faults if one["cleanup"] != "clean"]
    return found
