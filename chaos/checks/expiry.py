"""Is there an alert before a certificate ends: sec.cert_expiry. One finding for each kind of thing that ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.checks.limits import Limits

WORDS = {
    "leaf": "a server's certificate",
    "intermediate": "an intermediate authority",
    "root": "a root in the clients' bundle",
    "crl": "a revocation list",
}
GATE = "sec.cert_expiry"


def check(history: History, limits: Limits) -> list[Finding]:
    """The alert fires at the limit and a day below it, and not a day above; promtool and a Prometheus server both say so."""
    del limits
    facts = history.facts
    expected = f"it fires at {facts['limit']} days left and at one less, and not at one more (chaos-gate gates: {GATE})"
    if "missing" in facts:
        return [_unknown(f"the rules could not be evaluated: {facts['missing']}", expected)]
    if facts.get("rules.read") != "True":
        text = (
            f"{facts.get('rules')} reads other metrics than `chaos-gate export certificates` serves, so it cannot be tried here"
        )
        return [_unknown(text, expected)]
    states = json.loads(facts["states"])
    found = [_role([one for one in states if one["role"] == role], role, facts, expected) for role in WORDS]
    if "served" in facts:
        found.append(_served(facts, expected))
    return found


def _unknown(detail: str, expected: str) -> Finding:
    return Finding(check="expiry", gate=GATE, outcome=Outcome.INCONCLUSIVE, detail=detail, expected=expected)


def _role(states: Sequence[dict[str, Any]], role: str, facts: dict[str, str], expected: str) -> Finding:
    wrong = [
        one for one in states if any(one[by] is not None and one[by] != one["expected"] for by in ("promtool", "prometheus"))
    ]
    open_ones = [one for one in states if one["promtool"] is None]
    outcome = Outcome.FAIL if wrong else Outcome.INCONCLUSIVE if open_ones or len(states) < 3 else Outcome.PASS
    said = ", ".join(f"{one['days']:g} days: {_word(one)}" for one in states)
    return Finding(
        check=f"expiry.{role}",
        gate=GATE,
        outcome=outcome,
        detail=f"{WORDS[role]}, by {facts['rules']} in Prometheus {facts['tools']}: {said}",
        n=len(states),
        bad=len(wrong),
        expected=expected,
        examples=tuple(f"{one['days']:g} days left: {one['said']}" for one in (wrong + open_ones)[:3] if one["said"]),
    )


def _word(one: dict[str, Any]) -> str:
    if one["left"] is None:
        return "not exported"
    if one["promtool"] is None:
        return "promtool could not tell"
    if one["promtool"] != one["prometheus"]:
        return f"promtool says {_fires(one['promtool'])}, a server {_fires(one['prometheus'])}"
    return _fires(one["promtool"])


def _fires(fired: bool) -> str:
    return "fires" if fired else "silent"


def _served(facts: dict[str, str], expected: str) -> Finding:
    before, after = facts["served.before"] == "True", facts["served"] == "True"
    return Finding(
        check="expiry.served",
        gate=GATE,
        outcome=Outcome.PASS if after and not before else Outcome.FAIL,
        detail=f"PostgreSQL itself: {_fires(before)} with its own certificate, {_fires(after)} once it served one that ends too soon",
        n=2,
        bad=int(before) + int(not after),
        expected=expected,
    )
