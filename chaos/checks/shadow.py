"""Recorded production reads, sent again: were they answered, and does the candidate answer as the baseline does?

What production answered is told and not judged: another database holds other things. Between the two releases, on one database, the
same request has the same status and an answer of the same shape (chaos.checks.contract); the candidate has no 5xx where the baseline
has a 4xx; and its P95 is judged only where there is enough of it (rel.delta, chaos.comparison).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chaos.checks import contract
from chaos.comparison import Ratio, quantile_ratio
from chaos.model import Finding, Outcome
from chaos.statistics import judge_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos.checks.limits import Limits
    from chaos.model import History

LIMIT = 0.001  # rel.availability; the gate itself counts these with all others
SLOWER = 1.05  # rel.delta
SURE = 0.01  # alpha: a machine that is busy with something else is not the candidate's fault
ENOUGH = 8_000  # answers an arm for a P95 within 5 % (statistics.md, Rates)
SHOWN = 8


def check(history: History, limits: Limits) -> Iterator[Finding]:
    """'reads.shadow' (rel.availability); with a candidate also 'answers.shadow', 'statuses.shadow', and a proven 'latency.shadow'."""
    del limits
    told = json.loads(history.facts["replayed"])
    words = (
        f"{history.facts['shadow']}; {told['asked']} sent again"
        + (f", {told['faster']:g} times as fast as they came" if told["faster"] > 1 else ", at their own pace")
        + f", {told['as recorded']} answered as production did"
    )
    yield _reads(history, words)
    if "statuses" not in history.facts:
        return
    differing = json.loads(history.facts["statuses"])
    yield _statuses(differing, told["asked"])
    yield _answers(history, differing, told["asked"])
    latency = json.loads(history.facts["latency"])
    ratio = quantile_ratio(latency["baseline"], latency["candidate"], 0.95, alpha=SURE)
    if not ratio.why and ratio.low > SLOWER:
        yield _slower(ratio, sum(map(len, latency["candidate"])))


def _reads(history: History, words: str) -> Finding:
    asked = [one for one in history.operations if not one.client]
    bad = [one for one in asked if one.status is None or one.status >= 500]
    return Finding(
        check="reads.shadow",
        gate="rel.availability",
        outcome=judge_rate(len(bad), len(asked), LIMIT) if bad else Outcome.PASS if asked else Outcome.INCONCLUSIVE,
        detail=f"{words}; {len(bad)} of {len(asked)} got a 5xx or no answer" if asked else f"{words}; nothing was asked",
        n=len(asked),
        bad=len(bad),
        expected="with nothing broken a read that production answered gets an answer below 500",
        examples=tuple(f"{one.method} {one.path}: {one.status or one.error}" for one in bad[:SHOWN]),
    )


def _lasting(both: Sequence[list[int]]) -> bool:
    """Whether each release said the same again, and the two of them not the same."""
    return all(len(set(statuses)) == 1 and len(statuses) > 1 for statuses in both) and both[0][0] != both[1][0]


def _line(one: list[object]) -> str:
    request, recorded, before, after = one
    return f"{request}: production {recorded}, baseline {before}, candidate {after}"


def _statuses(differing: list[list[object]], n: int) -> Finding:
    bad = [one for one in differing if _flipped(one)]
    return Finding(
        check="statuses.shadow",
        gate="rel.no_400_to_500",
        outcome=Outcome.FAIL if bad else Outcome.PASS,
        detail=f"{len(bad)} of {n} recorded requests that the baseline refuses (4xx) get a 5xx from the candidate, twice",
        n=n,
        bad=len(bad),
        expected="what the baseline answers 4xx the candidate does not answer 5xx",
        examples=tuple(map(_line, bad[:SHOWN])),
    )


def _flipped(one: list[object]) -> bool:
    before, after = _both(one)
    return _lasting((before, after)) and 400 <= before[0] < 500 <= after[0]


def _both(one: list[object]) -> tuple[list[int], list[int]]:
    before, after = one[2], one[3]
    assert isinstance(before, list)
    assert isinstance(after, list)
    return before, after


def _answers(history: History, differing: list[list[object]], n: int) -> Finding:
    """Shapes by route, as the contract's own check has them, and statuses that differ twice (but for those that flipped to 5xx)."""
    found = contract.answers(json.loads(history.facts["shapes"]), name="answers.shadow")
    others = [one for one in differing if _lasting(_both(one)) and not _flipped(one)]
    if not others or found.outcome is Outcome.FAIL:
        return found
    return Finding(
        check=found.check,
        gate=found.gate,
        outcome=Outcome.FAIL,
        detail=f"{len(others)} of {n} recorded requests have another status on the candidate, twice; {found.detail}",
        n=n,
        bad=len(others),
        expected=found.expected,
        examples=tuple(map(_line, others[:SHOWN])),
    )


def _slower(ratio: Ratio, n: int) -> Finding:
    return Finding(
        check="latency.shadow",
        gate="rel.delta",
        outcome=Outcome.FAIL,
        detail=f"the candidate's P95 of recorded reads is {ratio.value:.2f} times the baseline's [{ratio.low:.2f}, {ratio.high:.2f}]",
        n=n,
        bad=1,
        measured=ratio.value,
        expected=f"within 5 % of the baseline, asked in turns (a pass of rel.delta takes {ENOUGH:,} answers a release)",
    )
