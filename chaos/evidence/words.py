"""Numbers and verdicts as people read them: the same words on the terminal, in the report and in the JUnit file."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING

from chaos import gates
from chaos.model import GateResult, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.evidence.record import Run

LABELS = {
    Outcome.FAIL: "FAIL",
    Outcome.INCONCLUSIVE: "NOT PROVEN",
    Outcome.PASS: "PASS",
    Outcome.WAIVED: "WAIVED",
    Outcome.NOT_APPLICABLE: "N/A",
}

# What the bad observations of a gate did; `observed` puts the counts before it. Only gates whose bad ones are counted.
BAD = {
    "sec.unknown_host_2xx": "unknown hosts served",
    "sec.host_allowlist": "listed hosts turned away",
    "sec.verify_full": "wrong servers accepted",
    "sec.tls_handshake": "TLS handshakes failed",
    "sec.pentest": "attacks got through",
    "rel.availability": "requests failed",
    "rel.error_budget": "requests failed",
    "rel.p95": "reads slower than the P95 limit",
    "rel.p99": "reads slower than the P99 limit",
    "rel.no_400_to_500": "client errors answered 5xx",
    "rel.error_schema": "error answers not in the schema",
    "res.durability": "acknowledged writes lost or doubled",
}

# Who can settle what this run could not, by the `proof` of the gate.
PROVERS = {
    "quick": "chaos-gate run",
    "nightly": "chaos-gate run --profile nightly",
    "soak": "chaos-gate soak",
    "canary": "chaos-gate canary",
    "review": "the Go/No-Go review",
}


@cache
def catalogue() -> dict[str, gates.Gate]:
    """gates.toml, read once."""
    return gates.load()


def title(run: Run, gate: str) -> str:
    """What a gate is about, in a few words: the run's own, else gates.toml's."""
    return run.titles.get(gate) or catalogued(gate)


def catalogued(gate: str) -> str:
    """What gates.toml says that a gate is about; '' for one that it does not know."""
    known = catalogue().get(gate)
    return known.title if known else ""


def percent(share: float) -> str:
    """0.039 -> '3.9 %', 0.99983 -> '99.983 %': two significant digits of what is nearer, the share or what is missing to all of it.

    '0 %' and '100 %' stand for exactly that, and for nothing near it.
    """
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    value = share * 100
    rest = min(value, 100 - value)
    if rest < 0.0001:
        return "< 0.0001 %" if value < 50 else "> 99.9999 %"
    digits = max(0, 1 - math.floor(math.log10(rest)))
    return f"{value:.{digits}f} %"


def duration(seconds: float) -> str:
    """0.0061 -> '6 ms', 1.84 -> '1.8 s', 250 -> '4 min 10 s', 9000 -> '2 h 30 min'."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.5:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


ABORTED = "[environment] abort"  # where an error of this kind says that it comes from
RECOVERY = ("res.backoff", "res.pool", "res.network")  # gates whose findings measure how long a target took to serve again


def plural(number: int, one: str, many: str = "") -> str:
    """'1 gate', '2 gates', '1,200 gates'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def recovery(run: Run) -> str:
    """'serving again after 27 of 28 faults, slowest 1.8 s (limit 10 s)'; '' when nothing was broken that a target recovers from."""
    shown = [
        one
        for one in run.findings
        if one.gate in RECOVERY and one.took_effect and one.check == one.experiment and not one.check.startswith("backoff.")
    ]  # backoff.* looks at how a target knocks, not at how long it takes
    back = [one.measured for one in shown if one.measured is not None]
    if not shown:
        return ""
    slowest = f", slowest {duration(max(back))}" if back else ""
    limit = f" (limit {duration(run.recovery_limit)})" if run.recovery_limit else ""
    faults = sum(one.n for one in shown)
    return f"serving again after {faults - sum(one.bad for one in shown)} of {plural(faults, 'fault')}{slowest}{limit}"


def ended(run: Run) -> tuple[str, str]:
    """A heading and a sentence about what ended the run early: an abort condition, or an environment that failed."""
    if run.environment_error.startswith(ABORTED):
        return (
            "Stopped by an abort condition",
            "What was broken was healed at once. What is below stands as far as it was recorded.",
        )
    return (
        "The environment failed, not the target",
        "Something around the target broke that this run had not broken. What is below stands as far as it was recorded.",
    )


def bad_count(gate: GateResult) -> int | None:
    """How many observations were bad, when the gate counts them.

    `measured` is a count (rule 'zero') or a share (rule 'rate'); a share lies within its own bound, a count of n does not, and
    where both would (1 of 1, or none) they say the same.
    """
    if gate.bound is None or gate.measured is None or not gate.n:
        return None
    low, high = gate.bound
    share = low - 1e-12 <= gate.measured <= high + 1e-12
    return round(gate.measured * gate.n) if share else round(gate.measured)


def observed(gate: GateResult) -> str:
    """What was seen: '0 of 75 wrong servers accepted'; the gate's own reason where nothing is counted."""
    if gate.outcome in {Outcome.NOT_APPLICABLE, Outcome.WAIVED}:
        return gate.reason
    bad = bad_count(gate)
    if gate.id in BAD and bad is not None:
        return f"{bad:,} of {gate.n:,} {BAD[gate.id]}"
    return _head(gate.reason)


def measured(gate: GateResult) -> str:
    """The bare number, in its unit: '0', '0.3 %', '4.2 s', '11 of 12'; '' when nothing was measured."""
    if gate.measured is None or not gate.n:
        return ""
    known = catalogue().get(gate.id)
    if known and known.rule == "duration":
        return duration(gate.measured)
    if known and known.rule == "demonstrated":
        return f"{gate.n - round(gate.measured)} of {gate.n}"
    if known and known.rule in {"rate", "budget", "worst_class"}:
        return percent(1 - gate.measured if good(gate) else gate.measured) + (" slower" if known.seconds else "")
    return f"{gate.measured:,g}" if not good(gate) else percent(1 - gate.measured / gate.n)


def good(gate: GateResult) -> bool:
    """Whether the threshold is about the good share ('>= 99.9 %'), though what is counted is always the bad one."""
    return gate.threshold.startswith(">=") or gate.threshold == "100 %"


def bound(gate: GateResult) -> str:
    """The bound in the threshold's own direction: 'at most 3.9 %', 'at least 99.98 %', '2.0 % to 5.7 %'; '' without one."""
    if gate.bound is None or not gate.n:
        return ""
    low, high = gate.bound
    if good(gate):
        return f"at least {percent(1 - high)}" if low <= 0 else f"{percent(1 - high)} to {percent(1 - low)}"
    return f"at most {percent(high)}" if low <= 0 else f"{percent(low)} to {percent(high)}"


def reason(gate: GateResult) -> str:
    """The gate's reason, with its counts in the words of `observed`, and without the bound, which is said beside it."""
    bad = bad_count(gate)
    if gate.outcome in {Outcome.NOT_APPLICABLE, Outcome.WAIVED} or gate.id not in BAD or bad is None:
        return gate.reason
    if not re.match(rf"{bad:,} of {gate.n:,} ", gate.reason):
        return gate.reason
    return observed(gate) + re.sub(r"^: bound [\d.]+ ?%, ", ": ", gate.reason[len(_head(gate.reason)) :])


def _head(text: str) -> str:
    return re.split(r": bound |; ", text, maxsplit=1)[0]


def bounded(gate: GateResult) -> str:
    """How far the numbers reach: 'bound 3.9 %' (one-sided), and for a gate that is not proven what it lacks."""
    parts = []
    if gate.bound is not None and gate.n:
        low, high = gate.bound
        parts.append(f"bound {percent(high)}" if low <= 0 else f"bounds {percent(low)} to {percent(high)}")
    if lacking := lacks(gate):
        parts.append(lacking)
    return ", ".join(parts)


_NEEDS = re.compile(
    r"needs [\d,]+(?: more(?: (?!for )[a-z ]+?(?=,| for |$))?(?:, about [\d,]+ [a-z]+ at this rate)?|(?! more) [^;,]+)"
)


def lacks(gate: GateResult) -> str:
    """What keeps a gate from being proven: 'needs 2,583 more handshakes, about 26 s at this rate', or the part of its reason that
    `observed` does not say.
    """
    if gate.outcome is not Outcome.INCONCLUSIVE:
        return ""
    if found := _NEEDS.search(gate.reason):
        return found.group()
    head = _head(gate.reason)
    told = observed(gate) == head or re.match(r"[\d,]+ of [\d,]+ ", gate.reason)
    return gate.reason[len(head) :].lstrip(":; ") if told else gate.reason


def prover(gate: str) -> str:
    """The command (or the meeting) that can settle a gate that this run could not."""
    known = catalogue().get(gate)
    return PROVERS.get(known.proof, "") if known else ""


def due(run: Run) -> tuple[GateResult, ...]:
    """The gates that this run had to settle and could not: they make a run INCONCLUSIVE."""
    if run.verdict in {Verdict.GO, Verdict.CLEAR}:
        return ()
    known = catalogue()
    chosen = run.selected or known
    return tuple(gate for gate in run.not_proven if gate.id in chosen and gate.id in known and known[gate.id].due(run.profile))


def sentence(run: Run, *, dot: str = " \N{MIDDLE DOT} ") -> str:
    """What stands behind the verdict in its own line."""
    failed, proven, open_ones = (len(run.of(kind)) for kind in (Outcome.FAIL, Outcome.PASS, Outcome.INCONCLUSIVE))
    waived, out = (len(run.of(kind)) for kind in (Outcome.WAIVED, Outcome.NOT_APPLICABLE))
    parts = [f"{plural(failed, 'gate')} failed" if failed else "nothing failed", f"{plural(proven, 'gate')} proven"]
    must = due(run)
    if run.environment_error and run.verdict is not Verdict.NO_GO:
        parts = [ended(run)[0].lower() if not failed else parts[0], parts[1]]
    if run.verdict is Verdict.INCONCLUSIVE and must:
        names = ", ".join(gate.id for gate in must[:3]) + (f" and {len(must) - 3} more" if len(must) > 3 else "")
        parts.append(f"{len(must)} not proven that this run must prove ({names})")
        open_ones -= len(must)
    if open_ones:
        parts.append(f"{open_ones} {'more ' if len(parts) > 2 else ''}not proven here{_promise(run, open_ones)}")
    parts += [f"{waived} waived"] if waived else []
    parts += [f"{out} not applicable"] if out else []
    return dot.join(parts)


def _promise(run: Run, open_ones: int) -> str:
    """What a soak can do about it: no more is promised of one than it can settle."""
    must, known = set(due(run)), catalogue()
    can = sum(gate.id in known and known[gate.id].due("soak") for gate in run.not_proven if gate not in must)
    if not can or run.profile == "soak":
        return ""
    return " (a soak can: chaos-gate soak)" if can == open_ones else f" (a soak can settle {can}: chaos-gate soak)"


def worst_first(results: Iterable[GateResult]) -> list[GateResult]:
    """Failures first, then what was not proven, passed, waived, not applicable; within each as they came."""
    order = list(Outcome)
    return sorted(results, key=lambda gate: order.index(gate.outcome))


def reported(run: Run) -> str:
    """What no gate counts and [policy] may decide, worst first: 'A2 (high), C6 (low)'; '' when there is nothing."""
    order = ("high", "medium", "low")
    found = {
        (order.index(one.severity), re.sub(r"\.(start|reconnect)$", "", one.check))
        for one in run.findings
        if one.severity in order
    }
    return ", ".join(f"{row} ({order[rank]})" for rank, row in sorted(found))
