"""Host validation through an edge: what the edge makes of Host, what it answers by itself, and what the application makes of the rest.

Three parties, and each failure is the business of one of them:
- sec.waf is the edge's: Host comes out of it as it went in (H73), a client's X-Forwarded-Host does not come out as if it were the
  edge's own word, an unknown host is refused by the application (its status, its schema, its audit log) and not by the edge in its
  place, and no listed host is turned away on the way.
- sec.unknown_host_2xx, sec.unknown_host_400 and sec.host_allowlist count what came through unchanged, as at the origin
  (chaos/checks/hosts.py), once for each HTTP version. What the edge itself serves to an unknown host counts as served. A refusal with
  400 counts whoever gave it; another refusal by the edge is sec.waf's. What a stream error of type
  PROTOCOL_ERROR says of a host outside the grammar is what 400 says in HTTP/1.1 (RFC 9113, 8.1.1), and counts as that. 421 sends a
  connection's user away, not a host (RFC 9110, 15.5.20): it is no 400, and did not have to be one.
- sec.pentest: nothing is built from an unknown name, and no cache gives it to others (H47).
"""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import TYPE_CHECKING

from chaos.checks import hosts
from chaos.checks.hosts import LISTED, PENTEST, REFUSED_2XX, REFUSED_400, Row, opened
from chaos.model import Finding, History, Kind, Layer, Operation, Outcome
from chaos.statistics import judge_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

GATE = "sec.waf"
VERSIONS = {"h1": "HTTP/1.1", "h2": "HTTP/2"}
ANSWERS_NOT = frozenset({429, 502, 503, 504})  # of an edge: says that it could not ask, nothing about the host
SIGNAL = frozenset({"unknown", "sni"})  # classes of good names that are not listed
MALFORMED = frozenset({"absent", "bad"})  # classes that HTTP/2 itself may refuse
REFUSED_BY_HTTP2 = "stream PROTOCOL_ERROR"
SETTLED = 299  # requests of a class, all good, from which a rate of 1 % is proven
BY_EDGE_ALONE = {
    "H73": "from edge to origin Host is unchanged",
    "forwarded": "a client's X-Forwarded-Host is not passed on as the edge's own",
    "signal": "unknown hosts are refused by the application, not by the edge in its place",
    "served": "listed hosts get through",
}


@cache
def own_rows() -> tuple[Row, ...]:
    """The rows of edge.toml, beside this file: what only an edge can be asked."""
    rows = tomllib.loads(files("chaos").joinpath("checks", "edge.toml").read_text(encoding="utf-8"))
    return tuple(
        Row(id=key, title=row["title"], why=row["why"], kind=row["class"], must=row["must"], wanted=row.get("wanted", "refuse"))
        for key, row in rows.items()
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: the client's operation, and the origin's where the request got there."""

    one: Operation
    wire: Operation | None
    row: Row

    @property
    def changed(self) -> bool:
        """Whether another host than the one that was sent came out of the edge. A port that went missing names no other host."""
        return self.wire is not None and bool(self.wire.unique) and _bare(self.wire.sample) != _bare(self.wire.unique)

    @property
    def by_edge(self) -> bool:
        """Whether the edge answered, or ended the connection, without the application having had its say."""
        return self.one.layer is Layer.EDGE or (self.one.status is None and self.wire is None)

    @property
    def turned_away(self) -> bool:
        """Whether the edge refused it. What it served, from a cache say, it did not."""
        return self.by_edge and (self.one.status is None or self.one.status >= 400)

    @property
    def undecided(self) -> bool:
        """Whether the edge could not ask, or sent the connection's user away."""
        elsewhere = self.one.status == 421 and (self.row.kind == "sni" or "SNI" in self.one.sample)
        return self.by_edge and (self.one.status in ANSWERS_NOT or elsewhere)

    @property
    def malformed(self) -> bool:
        """Ended by HTTP/2 itself."""
        return self.one.status is None and self.one.error.startswith(("stream ", "connection "))


def judge(history: History, *, policy: Mapping[str, str] | None = None) -> list[Finding]:
    """Findings 'edge.h1.ROW', 'edge.h2.ROW' and, for H47 asked without an edge, 'edge.origin.H47'."""
    asked = [one for one in history.operations if one.kind is Kind.HOST]
    wire = {one.client.removeprefix("wire."): one for one in asked if one.client.startswith("wire.")}
    known = {row.id: row for row in (*hosts.rows(), *own_rows())}
    found: list[Finding] = []
    for version in VERSIONS:
        if why := history.facts.get(f"edge.{version}"):
            found.append(_finding(version, "H73", Outcome.NOT_APPLICABLE, why))
            continue
        sent = [one for one in asked if one.client.startswith(f"{version}.") and one.row in known]
        mine = [_Asked(one, wire.get(one.client), known[one.row]) for one in sent]
        found += _version(version, mine, history, policy or {})
    return found + [_poisoned(where, [one for one in asked if one.client == where]) for where in ("origin", "h1")]


def _finding(version: str, name: str, outcome: Outcome, detail: str, gate: str = GATE, **more: object) -> Finding:
    plain = Finding(check=f"edge.{version}.{name}", gate=gate, outcome=outcome, detail=detail)
    return replace(plain, **more)  # type: ignore[arg-type]  # fields of Finding, by name


def _version(version: str, asked: Sequence[_Asked], history: History, policy: Mapping[str, str]) -> list[Finding]:
    """All findings of one HTTP version."""
    if len(asked) < 2:
        how = asked[0].one.error if asked else "it was not asked"
        return [_finding(version, "H61", Outcome.INCONCLUSIVE, f"the good request got no answer through the edge: {how}")]
    rewrites = any(one.changed for one in asked)
    # Behind an edge that rewrites good hosts, what became of odd ones is its doing as well: H73 says so, once.
    through = [one for one in asked if not one.changed and not (rewrites and one.wire is not None and not one.wire.unique)]
    own = [_own_row(version, row, [one for one in through if one.row is row]) for row in own_rows()]
    return [
        _unchanged(version, asked),
        _forwarded(version, asked, history.facts.get("edge.h1.adds", "")),
        _signal(version, asked),
        _served(version, asked),
        *(one for one in own if one is not None),
        *_rows(version, through, history, policy),
        *_rates(version, through, history, policy),
    ]


# -- the edge itself --------------------------------------------------------------------------------------------------------------


def _unchanged(version: str, asked: Sequence[_Asked]) -> Finding:
    """H73."""
    counted = [one for one in asked if one.wire is not None and one.wire.unique]
    wrong = [one for one in counted if one.changed]
    outcome = Outcome.FAIL if wrong else Outcome.PASS if counted else Outcome.INCONCLUSIVE
    bare = sum(one.wire is not None and not one.changed and one.wire.sample.lower() != one.wire.unique.lower() for one in counted)
    detail = f"{BY_EDGE_ALONE['H73']}: {len(wrong)} of {len(counted)} came out as another host"
    if not counted:
        detail = f"{BY_EDGE_ALONE['H73']}: no request with a good host was seen behind the edge"
    elif bare:
        detail += f"; {bare} without their port"
    return _finding(
        version,
        "H73",
        outcome,
        detail,
        n=len(counted),
        bad=len(wrong),
        expected="RFC 9110, 7.2: Host is the target's; an application that is to validate it has to see it (nginx sends $proxy_host)",
        examples=tuple(f"sent {one.wire.unique}, the origin got {one.wire.sample or 'none'}" for one in wrong[:3] if one.wire),
    )


def _forwarded(version: str, asked: Sequence[_Asked], adds: str) -> Finding:
    """X-Forwarded-Host from a client, where the edge speaks in that header itself."""
    counted = [one for one in asked if one.row.id in {"H35", "FWD"} and one.wire is not None]
    wrong = [one for one in counted if one.wire is not None and "x-forwarded-host" in one.wire.error]
    speaks = "x-forwarded-host" in adds
    outcome = Outcome.INCONCLUSIVE if not counted else Outcome.PASS
    detail = (
        f"{BY_EDGE_ALONE['forwarded']}: {len(wrong)} of {len(counted)} passed on; the edge's own requests carry {adds or 'none'}"
    )
    if wrong:
        outcome = Outcome.FAIL if speaks else Outcome.NOT_APPLICABLE
    if wrong and not speaks:
        detail += "; reported only: the edge never says it, so there is nothing that it could be taken for"
    return _finding(
        version,
        "forwarded",
        outcome,
        detail,
        n=len(counted),
        bad=len(wrong) if speaks else 0,
        severity="medium" if wrong and not speaks else "",
        expected="anybody can send it: what the origin reads as the edge's word is the edge's word (RFC 7239, 8.1)",
        examples=tuple(f"{one.one.sample}: came on in {one.wire.error}" for one in wrong[:3] if one.wire),
    )


def _signal(version: str, asked: Sequence[_Asked]) -> Finding:
    """Unknown hosts, refused by whom?"""
    unknown = [one for one in asked if one.row.kind in SIGNAL and one.one.status is not None]
    decided = [one for one in unknown if not one.undecided and not (one.by_edge and opened(one.one))]
    wrong = [one for one in decided if one.by_edge]
    outcome = Outcome.FAIL if wrong else Outcome.PASS if decided else Outcome.INCONCLUSIVE
    detail = f"{BY_EDGE_ALONE['signal']}: {len(wrong)} of {len(decided)} were answered by the edge; {_tally(decided)}"
    if not decided and unknown:
        detail = f"{BY_EDGE_ALONE['signal']}: none got as far as that; {_tally(unknown)}"
        outcome = Outcome.NOT_APPLICABLE if all(one.one.status == 421 for one in unknown) else outcome
    return _finding(
        version,
        "signal",
        outcome,
        detail,
        n=len(decided),
        bad=len(wrong),
        expected="the application's own 400, with its schema and its audit entry: a rule in front of it hides what it would have done",
        examples=tuple(_said(one) for one in wrong[:3]),
    )


def _served(version: str, asked: Sequence[_Asked]) -> Finding:
    """Listed hosts, turned away by the edge?"""
    counted = [one for one in asked if one.row.must == "serve" and not one.undecided]
    wrong = [one for one in counted if one.turned_away]
    return _finding(
        version,
        "served",
        Outcome.FAIL if wrong else Outcome.PASS if counted else Outcome.INCONCLUSIVE,
        f"{BY_EDGE_ALONE['served']}: {len(wrong)} of {len(counted)} were turned away by the edge; {_tally(counted)}",
        n=len(counted),
        bad=len(wrong),
        expected="they are listed in chaos.toml: the edge lets them by, as the origin does",
        examples=tuple(_said(one) for one in wrong[:3]),
    )


# -- what came through ------------------------------------------------------------------------------------------------------------


def _rows(version: str, asked: Sequence[_Asked], history: History, policy: Mapping[str, str]) -> list[Finding]:
    """The rows of hosts.toml, judged as at the origin."""
    usable = [one.one for one in asked if not one.undecided and not (one.row.must == "serve" and one.turned_away)]
    judged = hosts.judge(replace(history, operations=tuple(usable)), policy=policy)
    return [_named(version, one) for one in judged if one.n and one.gate != REFUSED_400]


def _rates(version: str, asked: Sequence[_Asked], history: History, policy: Mapping[str, str]) -> list[Finding]:
    """Of what was refused, what share with 400; each class by itself. Few of each settle nothing: then it is only told."""
    counted = [_as_400(one) if one.row.kind in MALFORMED else one for one in asked]
    counted = [one for one in counted if not (one.malformed and one.row.kind in MALFORMED)]
    counted = [one for one in counted if not one.by_edge or one.one.status in {None, 400} or opened(one.one)]
    judged = hosts.judge(replace(history, operations=tuple(one.one for one in counted)), policy=policy)
    found = [_named(version, one) for one in judged if one.gate == REFUSED_400]
    found.append(_sni(version, [one for one in counted if one.row.kind == "sni" and not opened(one.one)]))
    reset = sum(one.one.error == REFUSED_BY_HTTP2 and one.row.kind == "bad" for one in asked)
    note = f"; {reset} of them by {REFUSED_BY_HTTP2}, which is how HTTP/2 says it" if reset else ""
    few = int(history.facts.get("edge.per_class", "0")) < SETTLED
    return [_told(replace(one, detail=one.detail + note) if one.check.endswith(".bad") else one, few=few) for one in found]


def _as_400(asked: _Asked) -> _Asked:
    """A malformed message that HTTP/2 refused in its own way, as the 400 that it stands for."""
    if asked.one.error != REFUSED_BY_HTTP2:
        return asked
    return replace(asked, one=replace(asked.one, status=400, layer=Layer.EDGE, error=""))


def _sni(version: str, refused: Sequence[_Asked]) -> Finding:
    bad = [one for one in refused if one.one.status != 400]
    return _finding(
        version,
        "400.sni",
        judge_rate(len(bad), len(refused), hosts.LIMIT),
        f"unknown hosts where SNI is listed: {len(refused) - len(bad)} of {len(refused)} refusals are 400; {_tally(refused)}",
        REFUSED_400,
        n=len(refused),
        bad=len(bad),
        expected="400: the name in the handshake vouches for no request",
        examples=tuple(_said(one) for one in bad[:3]),
    )


def _told(one: Finding, *, few: bool) -> Finding:
    if one.outcome is not Outcome.INCONCLUSIVE or (one.n and not few):
        return one
    why = "so few settle no rate, edge-full asks more" if one.n else "none was refused with a status that had to be 400"
    return replace(one, outcome=Outcome.NOT_APPLICABLE, detail=f"{one.detail}; {why}")


def _named(version: str, one: Finding) -> Finding:
    name = one.check.removeprefix("hosts.")
    return replace(one, check=f"edge.{version}.{name}", detail=f"through the edge, {VERSIONS[version]}: {one.detail}")


def _own_row(version: str, row: Row, asked: Sequence[_Asked]) -> Finding | None:
    """The finding of a row of edge.toml; None when it was not asked over this version."""
    if not asked:
        return None
    gate = {"refuse": REFUSED_2XX, "serve": LISTED}.get(row.wanted if row.must == "policy" else row.must, PENTEST)
    if row.must == "policy":
        detail = f"{row.title}: {_tally(asked)}; reported only: good edges differ"
        return _finding(version, row.id, Outcome.NOT_APPLICABLE, detail, gate, expected=row.why)
    wrong = [one for one in asked if (opened(one.one) if row.must == "refuse" else _hands_on(one))]
    verb = "served" if row.must == "refuse" else "handed the unknown name on, or built from it"
    return _finding(
        version,
        row.id,
        Outcome.FAIL if wrong else Outcome.PASS,
        f"{row.title}: {len(wrong)} of {len(asked)} {verb}; {_tally(asked)}",
        gate,
        n=len(asked),
        bad=len(wrong),
        expected=row.why,
        examples=tuple(_said(one) for one in wrong[:3]),
    )


def _hands_on(one: _Asked) -> bool:
    evil = one.one.unique.lower()
    return one.one.error.startswith("reflected") or (one.wire is not None and bool(evil) and evil in one.wire.sample.lower())


# -- caches -----------------------------------------------------------------------------------------------------------------------


def _poisoned(where: str, operations: Sequence[Operation]) -> Finding:
    """H47: tries as chaos/traffic/poison.py records them, one after the other."""
    tries = [list(group) for _, group in groupby(operations, key=lambda one: one.unique)]
    answered = [one for one in tries if len(one) == 4 and all(each.status is not None for each in one)]
    wrong = [one for one in answered if _kept(one)]
    place = "at the origin" if where == "origin" else "through the edge"
    return Finding(
        check=f"edge.{where}.H47",
        gate=PENTEST,
        outcome=Outcome.FAIL if wrong else Outcome.PASS if answered else Outcome.INCONCLUSIVE,
        detail=f"a cache poisoned by an unknown host, then fetched clean, {place}: {len(wrong)} of {len(answered)} show it",
        n=len(answered),
        bad=len(wrong),
        expected="what is asked with an unknown name is given to nobody else: a cache's key holds all that an answer is built from "
        "(RFC 9111, 2 and 4.1)",
        examples=tuple(
            f"{one[2].method} {one[2].path} after [{one[2].sample}]: answered {one[2].status} {one[2].error}".strip()
            for one in wrong[:3]
        ),
    )


def _kept(tried: Sequence[Operation]) -> bool:
    """Whether a clean answer shows the name, or a good answer has become a refusal for everybody."""
    before, _, *after = tried
    refused = [400 <= (one.status or 0) < 500 and one.status != 429 for one in after]
    return any(one.error.startswith("poisoned") for one in after) or ((before.status or 0) < 400 and all(refused))


# -- words ------------------------------------------------------------------------------------------------------------------------


def _bare(name: str) -> str:
    head, colon, port = name.lower().rpartition(":")
    return head if colon and port.isdigit() else name.lower()


def _tally(asked: Sequence[_Asked]) -> str:
    """'12 x 400 (application), 3 x stream PROTOCOL_ERROR'."""
    counted = Counter(
        f"{one.one.status} ({one.one.layer})" if one.one.status is not None else one.one.error or "no answer" for one in asked
    )
    return ", ".join(f"{count} x {what}" for what, count in counted.most_common(4)) or "nothing to look at"


def _said(asked: _Asked) -> str:
    one = asked.one
    answer = f"{one.status} by the {one.layer}" if one.status is not None else f"not at all ({one.error})"
    got = f", the origin got Host {asked.wire.sample or 'none'}" if asked.wire is not None else ", the origin was not asked"
    reflected = f", {one.error}" if one.error.startswith("reflected") else ""
    return f"{one.method} {one.path} [{one.sample}]: answered {answer}{got}{reflected}"


__all__ = ["judge", "own_rows"]
