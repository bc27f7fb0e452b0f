"""No 400 that turns into a 500, over the whole corpus: `chaos.experiment.corpus` recorded it, this judges it.

That a request deserves a 4xx is known in three ways only: its owner says so ([[target.invalid]]); the target's own description, or what
PostgreSQL can hold, rules it out; or the target itself refuses it without a look at its database. Each observation carries in `row`
which of them it is, whether it needs the database, and how it is answered with nothing broken: 'schema/none/422'.

A request whose 4xx needs the database (404 of an id, 401 by a session) cannot be told from a good one while there is none: an honest
503 is right, and is never counted. If its description forbids the request all the same, any other 5xx is a crash over it, and counts.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.checks.recovery import describe
from chaos.model import Finding, History, Operation, Outcome, worst

if TYPE_CHECKING:
    from chaos.checks.limits import Limits

GATE = "rel.no_400_to_500"
EXPECTED = (
    "what the client did wrong stays the client's error (RFC 9110, 15.5), whatever is wrong behind the server, in every release"
)
CERTAIN = {"listed", "schema", "unstorable"}
UNKNOWN = {501, 505}  # what the server does not know at all: no failure of its own (RFC 9110, 15.6.2 and 15.6.6)


def check(history: History, limits: Limits) -> list[Finding]:
    """The finding of a `corpus.*` experiment; and one about a description that cannot be used, where the steady state is looked at."""
    family = history.facts["family"]
    judged = {"corpus-steady": steady, "corpus-candidate": candidate, "corpus-sample": sample, "corpus-fault": under_fault}[
        family
    ]
    found = [judged(history, limits)]
    if "openapi" in history.facts and family in {"corpus-steady", "corpus-sample"}:
        found.append(_finding(f"openapi.{history.experiment}", Outcome.INCONCLUSIVE, [history.facts["openapi"]], n=0, bad=()))
    return found


def sample(history: History, limits: Limits) -> Finding:
    """A short run: the steady state and one fault in one finding, the worse outcome and what was seen of both."""
    quiet = {name: value for name, value in history.facts.items() if name not in {"notes", "shadow"}}  # which are told once
    calm, broken = steady(history, limits), under_fault(replace(history, facts=quiet), limits)
    first, second = (broken, calm) if worst((calm.outcome, broken.outcome)) is not calm.outcome else (calm, broken)
    if not history.windows:
        return calm
    return replace(
        first,
        detail=f"{first.detail}; {second.detail}",
        n=max(calm.n, broken.n),
        bad=calm.bad + broken.bad,
        examples=first.examples or second.examples,
    )


# -- nothing broken --------------------------------------------------------------------------------------------------------------


def steady(history: History, limits: Limits) -> Finding:
    """With nothing broken: what certainly deserves a 4xx gets no 5xx, and an answer; three times over, with reads and writes well."""
    del limits
    looks = _by_sample(history, "steady 1", "steady 2", "again")
    twins = {one.sample: one for one in history.operations if one.client == "twin"}
    bad: list[Operation] = []
    doubtful: list[Operation] = []
    for key, those in looks.items():
        if len(those) < 3 or not all(_failed(one) for one in those):
            continue
        why = _row(those[0])[0]
        twin = twins.get(key)
        sure = why in {"listed", "schema"} or (why == "unstorable" and twin is not None and (twin.status or 500) < 500)
        (bad if sure and not history.facts.get("control") else doubtful).append(those[-1])
    answered = {key for key, those in looks.items() if any(400 <= (one.status or 0) < 500 for one in those)}
    served = [
        those[0] for those in looks.values() if _row(those[0])[0] == "schema" and all((one.status or 500) < 400 for one in those)
    ]
    said = (
        [f"{len(bad)} of {len(answered) + len(bad)} requests that deserve a 4xx got {_answers(bad)} with nothing broken"]
        if bad
        else []
    )
    said.append(
        f"{len(looks)} requests, {len(answered)} of them refused ({history.facts.get('corpus', '')}; {history.facts.get('needs', '')})"
    )
    if doubtful:
        said.append(f"{len(doubtful)} more got {_answers(doubtful)}, and may be valid or met a target that was not well")
    if served:
        said.append(
            f"{len(served)} that the description calls invalid were served, such as {served[0].method} {served[0].path[:80]}"
        )
    if history.facts.get("ghosts"):
        said.append(f"declared, but nothing there ever answered otherwise than 404 or 405: {history.facts['ghosts'][:300]}")
    outcome = Outcome.FAIL if bad else Outcome.PASS if answered else Outcome.INCONCLUSIVE
    return _finding(history.experiment, outcome, [*said, *_notes(history)], n=len(answered) + len(bad), bad=bad, history=history)


# -- under a fault ---------------------------------------------------------------------------------------------------------------


def under_fault(history: History, limits: Limits) -> Finding:
    """Under a fault: what deserves a 4xx gets one, or no answer, or, when it needs the database, an honest 503."""
    during = [one for one in history.operations if one.client == "fault"]
    again = [one for one in history.operations if one.client == "repeat"]
    deserving = [one for one in during if _deserves(one)]
    flips = [one for one in deserving if _flipped(one)]
    confirmed = {one.sample for one in again if _flipped(one)}
    # A 503 that was seen once and not again is a moment's (a key, a session that was just then fetched): told, not counted.
    bad = [one for one in flips if confirmed or one.status != 503 or _row(one)[0] == "listed"]
    once = [one for one in flips if one not in bad]
    answered = [one for one in deserving if one.status is not None]
    where = f"under {history.windows[0].fault}" if history.windows else "under no fault"
    said = []
    if bad:
        kinds = Counter(f"{one.method} {one.path.partition('?')[0][:60]} {_row(one)[2]} -> {one.status}" for one in bad)
        said.append(
            f"{len(bad)} of {len(answered)} requests that deserve a 4xx got a 5xx {where}: "
            + "; ".join(f"{n} x {text}" for text, n in kinds.most_common(3))
        )
    else:
        said.append(f"{len(answered)} requests that deserve a 4xx, none got a 5xx {where}")
    said += _beside(during, once, limits)
    outcome = Outcome.FAIL if bad else Outcome.PASS if answered else Outcome.INCONCLUSIVE
    return _finding(history.experiment, outcome, [*said, *_notes(history)], n=len(answered), bad=bad, history=history)


def _deserves(one: Operation) -> bool:
    why, needs, _ = _row(one)
    return why in CERTAIN or needs == "none"


def _flipped(one: Operation) -> bool:
    """A 5xx that is not the honest 'I cannot know at the moment' of a request whose refusal needs the database."""
    if not _deserves(one) or not _crashed(one):
        return False
    why, needs, _ = _row(one)
    return needs == "none" or why == "listed" or one.status != 503


def _beside(during: list[Operation], once: list[Operation], limits: Limits) -> list[str]:
    """What is told and not counted."""
    honest = [one for one in during if one.status == 503]
    bound = [one for one in during if (one.status or 0) >= 500 and one.status != 503 and not _deserves(one)]
    counts = {
        "that need the database were answered 503": len([one for one in honest if _row(one)[1] != "none"]),
        "of these without Retry-After": len([one for one in honest if not one.retry_after]),
        f"answered later than fail_fast = {limits.fail_fast:g} s": len(
            [one for one in during if one.status is not None and one.seconds > limits.fail_fast + limits.slack]
        ),
        "whose 4xx needs the database got another 5xx (medium: 503 would say what is wrong)": len(bound),
        "got no answer": len([one for one in during if one.status is None]),
        "became a 2xx": len([one for one in during if 200 <= (one.status or 0) < 300]),
        "got a 503 once, and not again": len(once),
    }
    return [f"{count} {text}" for text, count in counts.items() if count]


# -- the candidate ---------------------------------------------------------------------------------------------------------------


def candidate(history: History, limits: Limits) -> Finding:
    """A request that the baseline refuses, before and after, and to which the candidate fails, twice."""
    del limits
    first = {one.sample: one for one in history.operations if one.client == "candidate"}
    again = {one.sample: one for one in history.operations if one.client == "candidate again"}
    after = {one.sample: one for one in history.operations if one.client == "baseline again"}
    bad, told = [], Counter[str]()
    for key, one in first.items():
        why, _, before = _row(one)
        if key not in again or key not in after or _kind(after[key]) != before[:1] or _kind(one) != _kind(again[key]):
            continue
        kind = _kind(one)
        failed = all(each.error == "timeout" if each.status is None else _crashed(each) for each in (one, again[key]))
        if before[:1] == "4" and (failed or (why == "listed" and kind in "23")):
            bad.append(again[key])
        told[f"{before[:1]}xx that became {'no answer' if kind == '0' else f'a {kind}xx'}"] += 1
    asked = [one for one in first.values() if _row(one)[2][:1] == "4"]
    said = []
    if bad:
        said.append(f"{len(bad)} of {len(asked)} requests that the baseline refuses got {_answers(bad)} from the candidate")
    else:
        said.append(f"{len(asked)} requests that the baseline refuses, and the candidate fails at none")
    said += [f"{count} {text}" for text, count in told.items()]
    outcome = Outcome.FAIL if bad else Outcome.PASS if asked else Outcome.INCONCLUSIVE
    return _finding(history.experiment, outcome, [*said, *_notes(history)], n=len(asked), bad=bad, history=history)


# -- shared ----------------------------------------------------------------------------------------------------------------------


def _row(one: Operation) -> tuple[str, str, str]:
    why, _, rest = one.row.partition("/")
    needs, _, before = rest.partition("/")
    return why, needs, before


def _kind(one: Operation) -> str:
    return str(one.status or 0)[:1]


def _crashed(one: Operation) -> bool:
    """Any 5xx but those that are no failure of the server's."""
    return one.status is not None and one.status >= 500 and one.status not in UNKNOWN


def _failed(one: Operation) -> bool:
    """A 5xx for what the server read, or no end of waiting. 503 says 'not now', and a closed connection is how some refuse."""
    if one.status is None:
        return one.error == "timeout"
    return _crashed(one) and one.status != 503


def _by_sample(history: History, *phases: str) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = defaultdict(list)
    for one in history.operations:
        if one.client in phases:
            found[one.sample].append(one)
    return found


def _answers(those: list[Operation]) -> str:
    """'500 (7), no answer (1)'."""
    counts = Counter(str(one.status) if one.status is not None else "no answer" for one in those)
    return ", ".join(f"{answer} ({count})" for answer, count in counts.most_common(4))


def _notes(history: History) -> list[str]:
    facts = history.facts
    stopped = [f"{name.removeprefix('stopped ')}: {why}" for name, why in facts.items() if name.startswith("stopped ")]
    told = [facts[name] for name in ("shadow", "notes") if facts.get(name)]
    return [*(f"not all were asked, {text}" for text in stopped), *told]


def _finding(
    check: str, outcome: Outcome, said: list[str], *, n: int, bad: list[Operation] | tuple[()], history: History | None = None
) -> Finding:
    reduced = json.loads(history.facts.get("reduced", "[]")) if history is not None and bad else []
    examples = [
        f"{one['request']} -> {one['status']}"
        + (f" ({one['why'][:80]})" if one["why"] else "")
        + (f"; {one['fault']}" if one.get("fault") else "")
        + f"; made smaller: {one['smaller']}"
        + (f"; request id {one['request_id']}" if one["request_id"] else "")
        + (f"; log: {one['log']}" if one["log"] else "")
        + f"; {one['curl']}"
        for one in reduced
    ]
    return Finding(
        check=check,
        gate=GATE,
        outcome=outcome,
        detail="; ".join(said),
        n=n,
        bad=len(bad),
        expected=EXPECTED,
        examples=tuple(examples or [describe(one) for one in bad[:3]]),
    )
