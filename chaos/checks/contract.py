"""Does the candidate keep the contract of the baseline? Three findings for rel.api_contract, from what the experiment recorded.

document  what a comparer of OpenAPI descriptions finds that breaks a client (chaos.environments.local.oasdiff)
answers   what real answers to the same requests have in common: status, media type, headers, and the shape of their JSON
claims    real answers against the release's own description: that a release contradicts itself is reported, and fails only where
          the baseline did not

What a client can rely on was learned from several answers of the baseline, and where these differ from one another nothing is
expected. Additions are listed: a client has to ignore what it does not know (RFC 9110, 5.1 for fields; RFC 9457, 3.2 for members).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chaos.checks.shapes import Break, compare, control
from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos.checks.limits import Limits

GATE = "rel.api_contract"
BREAKS = 3  # oasdiff's level ERR; WARN (2) is what only people can judge
SHOWN = 8
EXPECTED = {
    "document": "nothing that a client relies on is removed, narrowed or newly required (oasdiff, level ERR)",
    "answers": "the same request has the same status, media type, headers and members of the same types as on the baseline",
    "claims": "answers are as the release's own description says (OpenAPI, Responses Object)",
}


def check(history: History, limits: Limits) -> Iterator[Finding]:
    """'document.contract', 'answers.contract', 'claims.contract'; those of descriptions only where there is one."""
    del limits
    facts = history.facts
    if "document" in facts:
        yield _document(json.loads(facts["document"]))
    yield answers(json.loads(facts["shapes"]))
    if "claims" in facts:
        yield _claims(json.loads(facts["claims"]))


def _finding(name: str, outcome: Outcome, detail: str, *, n: int, bad: Sequence[str] = (), severity: str = "") -> Finding:
    return Finding(
        check=name,
        gate=GATE,
        outcome=outcome,
        detail=detail,
        n=n,
        bad=len(bad),
        expected=EXPECTED[name.partition(".")[0]],
        examples=tuple(bad[:SHOWN]),
        severity=severity,
    )


def _some(texts: Sequence[str], most: int = 4) -> str:
    more = f"; and {len(texts) - most} more" if len(texts) > most else ""
    return "; ".join(texts[:most]) + more


# -- the descriptions ------------------------------------------------------------------------------------------------------------


def _document(told: dict[str, Any]) -> Finding:  # Any: JSON, as the experiment wrote it
    """`told`: 'same', or 'changes' (oasdiff's own list), or why there is nothing to compare: 'broken', 'lost', 'unasked'."""
    if told.get("lost"):
        what = f"the candidate's description cannot be used: {told['lost']}"
        return _finding("document.contract", Outcome.FAIL, what, n=1, bad=[told["lost"]])
    if told.get("broken"):
        what = f"the description cannot be used, so nothing can be compared with it: {told['broken']}"
        return _finding("document.contract", Outcome.INCONCLUSIVE, what, n=0)
    if told.get("unasked"):
        return _finding(
            "document.contract",
            Outcome.INCONCLUSIVE,
            f"the two descriptions differ, and were not compared: {told['unasked']}",
            n=0,
        )
    count = int(told.get("operations", 1))
    if told.get("same"):
        return _finding("document.contract", Outcome.PASS, f"the same description of {count} operations", n=count)
    changes = told["changes"]
    breaking = [_change(one) for one in changes if one["level"] >= BREAKS]
    doubtful = [_change(one) for one in changes if one["level"] == BREAKS - 1]
    rest = [_change(one) for one in changes if one["level"] < BREAKS - 1]
    if breaking:
        detail = f"{len(breaking)} breaking changes in the description: {_some(breaking)}"
        return _finding("document.contract", Outcome.FAIL, detail, n=max(count, len(breaking)), bad=breaking)
    detail = f"no breaking change in the description of {count} operations"
    detail += f". For people to judge: {_some(doubtful)}" if doubtful else ""
    detail += f". Changed or added, without breaking anything: {_some(rest)}" if rest else ""
    return _finding("document.contract", Outcome.PASS, detail, n=count, severity="medium" if doubtful else "low" if rest else "")


def _change(one: dict[str, Any]) -> str:
    where = " ".join(str(one.get(key) or "") for key in ("operation", "path")).strip()
    return f"{where}: {one['text']} [{one['id']}]" if where else f"{one['text']} [{one['id']}]"


# -- the answers -----------------------------------------------------------------------------------------------------------------


def answers(shapes: dict[str, Any], *, name: str = "answers.contract") -> Finding:
    """`shapes`: request -> {'baseline', 'first', 'second', 'candidate'} -> shapes by status (chaos.checks.shapes)."""
    breaking, listed, compared, noisy = [], [], 0, 0
    for request, sides in shapes.items():
        if not sides["baseline"]:
            noisy += 1
            continue
        compared += 1
        unsteady = control(sides["first"], sides["second"])
        found = [one for one in compare(sides["baseline"], sides["candidate"]) if not one.within(unsteady)]
        breaking += [_told(request, one) for one in found if one.breaking]
        listed += [_told(request, one) for one in found if not one.breaking]
    if not compared:
        return _finding(name, Outcome.INCONCLUSIVE, "the baseline answered nothing that could be compared", n=0)
    if breaking:
        detail = f"{len(breaking)} breaking differences in the answers to {compared} requests: {_some(breaking)}"
        return _finding(name, Outcome.FAIL, detail, n=max(compared, len(breaking)), bad=breaking)
    detail = f"answers to {compared} requests have the same shapes"
    detail += f" (of {noisy} more the baseline gave none)" if noisy else ""
    detail += f". Added, or changed without breaking anything: {_some(listed)}" if listed else ""
    return _finding(name, Outcome.PASS, detail, n=compared, severity="low" if listed else "")


def _told(request: str, one: Break) -> str:
    return f"{request}: {one.text}"


# -- what a release says about itself ----------------------------------------------------------------------------------------------


def _claims(told: dict[str, Any]) -> Finding:
    """`told`: 'checked' (how many answers had a schema), 'baseline' and 'candidate': what is not as described -> an example."""
    before, after = told["baseline"], told["candidate"]
    new = [f"{where} ({after[where]})" for where in after if where not in before]
    old = [f"{where} ({after[where]})" for where in after if where in before]
    gone = [where for where in before if where not in after]
    count = int(told["checked"])
    if new:
        detail = f"the candidate contradicts its own description where the baseline did not: {_some(new)}"
        return _finding("claims.contract", Outcome.FAIL, detail, n=max(count, len(new)), bad=new)
    if not count:
        return _finding(
            "claims.contract", Outcome.NOT_APPLICABLE, "the description has no schema for any answer that was seen", n=0
        )
    detail = f"{count} answers checked against the release's own description"
    detail += f". Both releases contradict theirs: {_some(old)}" if old else ", none contradicts it" if not gone else ""
    detail += f". No longer contradicted: {_some(gone)}" if gone else ""
    return _finding("claims.contract", Outcome.PASS, detail, n=count, severity="medium" if old else "")
