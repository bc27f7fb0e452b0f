"""Host validation: what the answers to the catalogue's rows come to (hosts.toml beside this file says what they must come to).

Three questions, three gates, and one defect answers only one of them with a failure:
- sec.unknown_host_2xx: was a host served that must be refused? Served is 2xx, 101, or a redirect to the host that was named.
- sec.unknown_host_400: of what was *refused* (what was served is the first question's), was it refused with 400? By class of
  input, each by itself: unknown (a good name that is not listed), absent, bad (outside the grammar, or repeated). No answer is no
  400: all of these are well-formed messages. 429 and 503 say nothing about the host and are left out.
- sec.host_allowlist: was a host refused that is listed? See `served`.
And, for sec.pentest, is anything in an answer built from an evil name that came beside a good Host, or in a refusal?
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from chaos.model import Finding, History, Kind, Layer, Operation, Outcome
from chaos.statistics import judge_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REFUSED_2XX, REFUSED_400, LISTED, PENTEST = "sec.unknown_host_2xx", "sec.unknown_host_400", "sec.host_allowlist", "sec.pentest"
RATES = {
    "unknown": "good host names that are not listed",
    "absent": "requests without a host",
    "bad": "hosts that are outside the grammar, or repeated",
}
LIMIT = 0.01  # of refusals that may be something else than 400; gates.toml has the last word
UNDECIDED = frozenset({429, 503})  # too many requests, no capacity: says nothing about the host
REJECTIONS = frozenset({400, 403, 421})
_MASKED = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the catalogue. `must` is refuse, serve, ignore or policy; `wanted` which of the first two a policy row is about.

    `certain`: it can be sent to any target, so that nothing recorded means that it was not asked. `skip` says why it is not run.
    """

    id: str
    title: str
    why: str = ""
    kind: str = ""
    must: str = ""
    wanted: str = "refuse"
    certain: bool = False
    skip: str = ""


@cache
def rows() -> tuple[Row, ...]:
    """The catalogue, in its order."""
    text = files("chaos").joinpath("checks", "hosts.toml").read_text(encoding="utf-8")
    return tuple(
        Row(
            id=key,
            title=row["title"],
            why=row.get("why", ""),
            kind=row.get("class", ""),
            must=row.get("must", ""),
            wanted=row.get("wanted", "refuse"),
            certain=_certain(row),
            skip=row.get("skip", ""),
        )
        for key, row in tomllib.loads(text).items()
    )


def _certain(row: Mapping[str, object]) -> bool:
    """Whether every target can be asked: nothing but a listed host, an evil one and the path is put into it."""
    if not {"host", "lines", "raw"} & set(row) or {"after", "unlisted", "sends", "generated"} & set(row):
        return False
    named = set(re.findall(r"\{([^}]+)\}", " ".join(str(row.get(key, "")) for key in ("host", "lines", "start", "paths"))))
    return named <= {"g", "G", "e", "path", "label", "page", "PAGE"}


def judge(history: History, *, policy: Mapping[str, str] | None = None, limit: float = LIMIT) -> list[Finding]:
    """One finding a row (check id = row id), one a class of refusals ('hosts.400.CLASS').

    `policy`: row id -> 'reject', 'serve' or 'report', for the rows that are policy. `limit`: share of refusals that may be
    something else than 400.
    """
    asked = [one for one in history.operations if one.kind is Kind.HOST]
    by_row: dict[str, list[Operation]] = {}
    for one in asked:
        by_row.setdefault(one.row, []).append(one)
    shapes = _Shapes.of(asked)
    sick = _control(by_row.get("H61", []))
    found = [_row(row, by_row.get(row.id, []), shapes, (policy or {}).get(row.id, "report"), sick) for row in rows()]
    found = [one if one.check != "H46" else _derived(asked, policy or {}) for one in found]
    found += [_rate(counted, asked, limit=limit, sick=sick) for counted in rates(history)[REFUSED_400]]
    return [_shown_again(one, history.facts) for one in found]


def _shown_again(finding: Finding, facts: Mapping[str, str]) -> Finding:
    """With what shows the failure again: the smallest host, or the bytes, and a shell line (chaos/traffic/host_smallest.py)."""
    if finding.outcome is not Outcome.FAIL:
        return finding
    kind = finding.check.removeprefix("hosts.400.")
    of_it = [finding.check] if kind == finding.check else [row.id for row in rows() if row.kind == kind]
    smallest = [facts[f"smallest.{row}"] for row in of_it if f"smallest.{row}" in facts]
    wire = [facts[f"wire.{row}"] for row in of_it if f"wire.{row}" in facts]
    lines = [f"smallest that fails, {one}" for one in smallest[:1]] or [f"again: {one}" for one in wire[:1]]
    return replace(finding, examples=(*finding.examples, *lines))


def rates(history: History) -> dict[str, list[tuple[str, int, int]]]:
    """Gate -> (class, bad, n) of each class of input: of n refusals, how many were something else than 400."""
    kinds = {row.id: row.kind for row in rows()}
    n, bad = Counter[str](), Counter[str]()
    for one in _refusals([one for one in history.operations if one.kind is Kind.HOST]):
        kind = kinds.get(one.row, "")
        n[kind] += 1
        bad[kind] += one.status != 400
    return {REFUSED_400: [(kind, bad[kind], n[kind]) for kind in RATES]}


def _refusals(asked: Sequence[Operation]) -> list[Operation]:
    """Those in which a host was refused: not let in, and not undecided.

    Where unknown hosts are redirected to themselves, so are requests that name no evil host to be redirected to (no Host, a bad
    port): the same defect, and no refusal either.
    """
    redirects = _redirects(asked)
    return [one for one in asked if not (opened(one) or one.status in UNDECIDED or (redirects and _redirected(one)))]


def _redirected(one: Operation) -> bool:
    return one.status is not None and 300 <= one.status < 400


def _redirects(asked: Sequence[Operation]) -> bool:
    """Whether unknown hosts are redirected to themselves: one defect, which the unknown hosts' own rows show."""
    return any(one.row == "H01" and _redirected(one) and opened(one) for one in asked)


def opened(one: Operation) -> bool:
    """Whether a host that must be refused was let in: 2xx, 101, or a redirect to where that host names."""
    if one.status is None:
        return False
    leads = _redirected(one) and one.error.startswith(("reflected in location", "reflected in refresh"))
    return 200 <= one.status < 300 or one.status == 101 or leads


@dataclass(frozen=True, slots=True)
class _Shapes:
    """How this target refuses unknown names: (status, media type, masked body) of its answers, and whether it redirects them."""

    refusals: frozenset[tuple[int, str, str]]
    redirects: bool

    @classmethod
    def of(cls, asked: Sequence[Operation]) -> _Shapes:
        unknown = (one for one in asked if one.row == "H01" and one.status is not None and one.status >= 400)
        return cls(frozenset(_shape(one) for one in unknown if one.status not in UNDECIDED), _redirects(asked))


def _shape(one: Operation) -> tuple[int, str, str]:
    """An answer without what differs from one to the next: host names, numbers, ids, the path."""
    body = one.body
    named = re.findall(r"[\w-]+(?:\.[\w-]+)+", one.sample)
    for text in sorted({one.unique, one.path, one.request_id, *named}, key=len, reverse=True):
        body = re.sub(re.escape(text), "~", body, flags=re.IGNORECASE) if text else body
    return one.status or 0, one.media_type.partition(";")[0].strip().lower(), _MASKED.sub("#", body)


def served(one: Operation, shapes: _Shapes) -> bool | None:
    """Whether a listed host was let in; None when the answer does not tell.

    Below 400 it was. 400, 403 and 421 are how a host is refused, and so is no answer. Any other answer (404 above all: the path
    may be unknown on a landing page's host) means that the host was accepted, unless unknown hosts are refused in exactly this
    shape: then a refused host and an unknown page look alike. 429 and 5xx do not tell.
    """
    if one.status is None or one.status in REJECTIONS:
        return False
    if one.status < 400:
        return True
    if one.status in UNDECIDED or one.status >= 500 or _shape(one) in shapes.refusals:
        return None
    return True


def _control(canonical: Sequence[Operation]) -> str:
    """'' when the good request at the beginning and the one at the end were both served, else what was wrong with them."""
    if not canonical:
        return "the good request was not asked"
    for one in (canonical[0], canonical[-1]):
        if one.status is None or not 200 <= one.status < 300:
            return f"the good request itself ({one.sample}, {one.method} {one.path}) was answered {_answer(one)}"
    return ""


def _row(row: Row, asked: Sequence[Operation], shapes: _Shapes, decided: str, sick: str) -> Finding:
    """The finding of one row."""
    must = row.must if row.must != "policy" else {"reject": "refuse", "serve": "serve"}.get(decided, "policy")
    about = row.wanted if must == "policy" else must
    gate = {"refuse": REFUSED_2XX, "serve": LISTED, "ignore": PENTEST}.get(about, PENTEST)
    if row.skip or not asked:
        certain = row.certain and not row.skip and must != "policy"
        return Finding(
            check=row.id,
            gate=gate,
            outcome=Outcome.INCONCLUSIVE if certain else Outcome.NOT_APPLICABLE,
            detail=f"{row.title}: " + (row.skip or ("not asked" if certain else "nothing to ask with these hosts and paths")),
            expected=row.why,
        )
    if must == "policy":
        return _reported(row, asked, shapes, gate)
    tell = {"refuse": opened, "serve": lambda one: served(one, shapes) is False, "ignore": _reflects}[must]
    wrong = [one for one in asked if tell(one)]
    open_ones = [one for one in asked if must == "serve" and served(one, shapes) is None]
    verb = {"refuse": "served", "serve": "refused", "ignore": "reflected"}[must]
    outcome = Outcome.FAIL if wrong else Outcome.PASS
    detail = f"{row.title}: {len(wrong)} of {len(asked)} {verb}; {_tally(asked)}"
    if not wrong and open_ones:
        outcome, detail = Outcome.INCONCLUSIVE, f"{row.title}: {_said(open_ones[0])} does not tell whether the host was accepted"
    elif not wrong and sick and must != "serve":
        outcome, detail = Outcome.INCONCLUSIVE, f"{row.title}: a refusal shows nothing, for {sick}"
    return Finding(
        check=row.id,
        gate=gate,
        outcome=outcome,
        detail=detail,
        n=len(asked),
        bad=len(wrong),
        expected=_expected(row, must),
        examples=tuple(_said(one) for one in wrong[:3]),
    )


def _expected(row: Row, must: str) -> str:
    how = {"refuse": "refused with 400", "serve": "served", "ignore": "ignored or refused, and nothing built from it"}[must]
    by = " by [policy]" if row.must == "policy" else ""
    return f"{how}{by}: {row.why}"


def _reported(row: Row, asked: Sequence[Operation], shapes: _Shapes, gate: str) -> Finding:
    """A row on which good services differ: said, not judged - but for an evil name that comes back, which is never good."""
    reflecting = [one for one in asked if _reflects(one)]
    if reflecting and not (shapes.redirects and all(map(_redirected, reflecting))):  # that defect is the unknown hosts' own
        return Finding(
            check=row.id,
            gate=PENTEST,
            outcome=Outcome.FAIL,
            detail=f"{row.title}: {len(reflecting)} of {len(asked)} answers are built from the unknown host; {_tally(asked)}",
            n=len(asked),
            bad=len(reflecting),
            expected=f"whichever way it is answered, nothing in the answer is built from the unknown host: {row.why}",
            examples=tuple(_said(one) for one in reflecting[:3]),
        )
    let_in = sum(served(one, shapes) is True for one in asked)
    how = "served" if let_in == len(asked) else "refused" if not let_in else f"served {let_in} of {len(asked)} times"
    return Finding(
        check=row.id,
        gate=gate,
        outcome=Outcome.NOT_APPLICABLE,
        detail=f'{row.title}: {how} ({_tally(asked)}); reported only (the default), "{row.id}" in [policy] decides',
        expected=row.why,
    )


def _reflects(one: Operation) -> bool:
    return one.error.startswith("reflected")


def _derived(asked: Sequence[Operation], policy: Mapping[str, str]) -> Finding:
    """H46: answers that are built from the evil name all the same: refusals, and rows that [policy] has served.

    What was served against a `refuse` is that row's own failure; so is what an `ignore` row, or one that is only reported, finds.
    """
    decided = {row.id for row in rows() if row.must == "policy" and policy.get(row.id, "report") != "report"}
    theirs = {row.id for row in rows() if row.must in {"ignore", "policy"}} - decided
    named = [one for one in asked if one.unique and one.row not in theirs and one.status is not None]
    refusals = [one for one in named if one.row in decided or not opened(one)]
    wrong = [one for one in refusals if _reflects(one)]
    row = next(row for row in rows() if row.id == "H46")
    return Finding(
        check=row.id,
        gate=PENTEST,
        outcome=Outcome.FAIL if wrong else Outcome.PASS if refusals else Outcome.INCONCLUSIVE,
        detail=f"{row.title}: {len(wrong)} of {len(refusals)} answers hold a link, redirect, cookie or grant built from it",
        n=len(refusals),
        bad=len(wrong),
        expected=row.why,
        examples=tuple(_said(one) for one in wrong[:3]),
    )


def _rate(counted: tuple[str, int, int], asked: Sequence[Operation], *, limit: float, sick: str) -> Finding:
    """The finding of one class of refusals; `counted` is (class, bad, n)."""
    kind, bad, n = counted
    of_kind = {row.id for row in rows() if row.kind == kind}
    mine = [one for one in asked if one.row in of_kind]
    refused = [one for one in _refusals(asked) if one.row in of_kind]
    left_out = sum(one.status in UNDECIDED for one in mine)
    detail = f"{RATES[kind]}: {n - bad} of {n} refusals are 400; {_tally(refused)}"
    if let_in := len(mine) - n - left_out:
        detail += f"; {let_in} more were not refused at all, which {REFUSED_2XX} judges"
    if left_out:
        detail += f"; {left_out} more were answered 429 or 503, which says nothing about the host"
    outcome = judge_rate(bad, n, limit)
    if sick and outcome is Outcome.PASS:
        outcome, detail = Outcome.INCONCLUSIVE, f"{detail}; this shows nothing, for {sick}"
    return Finding(
        check=f"hosts.400.{kind}",
        gate=REFUSED_400,
        outcome=outcome,
        detail=detail,
        n=n,
        bad=bad,
        expected="400 (RFC 9112, 3.2), in the standard error schema (which rel.error_schema judges)",
        examples=tuple(_said(one) for one in [one for one in refused if one.status != 400][:3]),
    )


def _tally(asked: Sequence[Operation]) -> str:
    """'312 x 400 (application), 8 x no answer': what the answers were and who gave them, the most frequent first."""
    counted = Counter(
        f"{one.status} ({one.layer})" if one.status is not None and one.layer is not Layer.NOBODY else f"no answer ({one.error})"
        for one in asked
    )
    return ", ".join(f"{count} x {what}" for what, count in counted.most_common(4)) or "no answer to look at"


def _answer(one: Operation) -> str:
    return str(one.status) if one.status is not None else f"not at all ({one.error})"


def _said(one: Operation) -> str:
    """One observation, for people."""
    reflected = f", {one.error}" if _reflects(one) else ""
    return f"{one.method} {one.path} [{one.sample}]: answered {_answer(one)}{reflected}"
