"""sec.logs: what the lines of requests carry, whether they can be found by the id of the answer, and whether anything private is there.

Only what is declared is asked ([target.logs] fields). A request may have several lines; what one of them holds counts for the request.
Order and time of lines mean nothing. On lines of errors only what is known of every request is asked: its host, its id, its error code.
The address and the TLS may be those of the database's session, of which a refused request, or one in an outage, has none.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.checks import lines
from chaos.model import Finding, History, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chaos.checks.limits import Limits

GATE = "sec.logs"
NAMES = {
    "request_id": "the request's id",
    "host": "the Host that was sent",
    "upstream_ip": "an IP address",
    "tls_version": "a version of TLS",
    "tls_cipher": "a cipher suite",
    "error_code": "an error code",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A marked request and the declared fields of its lines. `known`: an id that the answer gave is in the log (or it gave none)."""

    kind: str
    request: str
    host: str
    status: int | None
    ours: tuple[str, ...]
    told: tuple[str, ...]
    known: bool
    plain: bool
    lines: tuple[Mapping[str, str], ...]

    @property
    def failed(self) -> bool:
        """It was answered with an error."""
        return self.status is not None and self.status >= 400

    def values(self, field: str) -> list[str]:
        """What its lines hold there, where they hold anything."""
        return [line[field] for line in self.lines if lines.some(line.get(field, ""))]

    def __str__(self) -> str:
        return f"{self.request} ({self.kind}, {self.status or 'no answer'})"


class _Log:
    """The facts of one experiment, and how its findings are made."""

    def __init__(self, history: History) -> None:
        facts = history.facts
        self.history = history
        self.declared: dict[str, str] = json.loads(facts["logs.fields"])
        self.counts: dict[str, int] = json.loads(facts["logs.counts"])
        self.anywhere: dict[str, list[str]] = json.loads(facts["logs.anywhere"])
        self.apart: dict[str, list[str]] = json.loads(facts["logs.apart"])
        self.plain: list[str] = json.loads(facts["logs.plain"])
        self.ids = int(facts["logs.ids"])
        self.asked = [_asked(one) for one in json.loads(facts["logs.requests"])]

    @property
    def seen(self) -> list[Asked]:
        """Those with a line."""
        return [one for one in self.asked if one.lines]

    def finding(
        self, what: str, outcome: Outcome, detail: str, *, gate: str = GATE, n: int = 0, bad: Iterable[object] = (), **more: Any
    ) -> Finding:
        broke = [str(one) for one in bad]
        examples = tuple(dict.fromkeys(broke))[:4] or tuple(more.pop("examples", ()))
        return Finding(
            check=f"{what}.{self.history.experiment}",
            gate=gate,
            outcome=outcome,
            detail=detail,
            n=n,
            bad=len(broke),
            examples=examples,
            **more,
        )

    def absent(self, what: str, why: str, **more: Any) -> Finding:
        return self.finding(what, Outcome.NOT_APPLICABLE, why, **more)


def _asked(one: Mapping[str, Any]) -> Asked:
    return Asked(**{**one, "ours": tuple(one["ours"]), "told": tuple(one["told"]), "lines": tuple(one["lines"])})


def check(history: History, limits: Limits) -> list[Finding]:
    """All findings for sec.logs, and what the audit entries of refused hosts say for sec.audit_log."""
    if "logs.requests" not in history.facts:
        return []
    log = _Log(history)
    found = [_structured(log), _request_id(log)]
    found += [_field(log, name, judge) for name, judge in FIELDS.items()]
    found += [_private(log), *_audit(log)]
    if history.facts["family"] == "logs":
        found.append(_retention(history, limits, log))
    return found


def _structured(log: _Log) -> Finding:
    """Every request's line is JSON; whatever else the process prints is told, for its standard error goes to the same place."""
    counts, expected = log.counts, "structured logs: JSON lines (RFC 8259), and nothing that a caller sends adds members to one"
    text = f"{counts['json']} of {counts['lines']} lines are JSON objects"
    if int(log.history.facts["logs.forged"]):
        detail = "a header of a request put members of its own into a line: values are not escaped"
        return log.finding("lines", Outcome.FAIL, detail, n=1, bad=['User-Agent: ","forged":"yes"'], expected=expected)
    only_plain = [one for one in log.asked if one.plain and not one.lines and "request_id" in log.declared]
    n = len(log.asked)
    if only_plain:
        detail = f"{len(only_plain)} of {n} requests are in the log as plain text only; {text}"
        return log.finding(
            "lines", Outcome.FAIL, detail, n=n, bad=[*log.plain, *only_plain][: len(only_plain)], expected=expected
        )
    if not counts["lines"]:
        if log.declared:
            return log.finding("lines", Outcome.FAIL, f"{n} requests, and not one line", n=n, bad=log.asked, expected=expected)
        return log.absent("lines", "no line was written meanwhile, and no field is declared", expected=expected)
    if not counts["json"]:
        return log.finding(
            "lines", Outcome.FAIL, f"none of {counts['lines']} lines is JSON", n=n, bad=log.plain, expected=expected
        )
    severity = "low" if counts["plain"] else ""
    told = f"; {counts['plain']} are plain text, of no request of ours" if counts["plain"] else ""
    return log.finding("lines", Outcome.PASS, text + told, n=n, severity=severity, examples=log.plain[:2], expected=expected)


def _request_id(log: _Log) -> Finding:
    """Each request that is no refused host has a line with its id, and the id that an answer gives is in the log."""
    expected = "a line for every request, found by the id in its answer (or by the caller's own)"
    if "request_id" not in log.declared:
        return log.absent("request_id", _undeclared("request_id"))
    if not log.counts["lines"]:
        return log.absent("request_id", "there is no line: see lines")
    answered = [one for one in log.asked if one.status is not None]
    asked = [one for one in answered if one.kind not in {"refused", "forged"}]
    lost = [one for one in answered if one.told and not one.known and (one.kind != "refused" or one.lines)]
    if lost:
        detail = f"{len(lost)} of {len(answered)} answers give an id that is nowhere in the log{_kinds(lost)}"
        return log.finding("request_id", Outcome.FAIL, detail, n=len(answered), bad=lost, expected=expected)
    missing = [one for one in asked if not one.lines]
    if len(missing) < len(asked) or any(one.told for one in asked):
        outcome = Outcome.FAIL if missing else Outcome.PASS if asked else Outcome.INCONCLUSIVE
        detail = f"{len(asked) - len(missing)} of {len(asked)} requests have a line with their id{_kinds(missing)}"
        return log.finding("request_id", outcome, detail, n=len(asked), bad=missing, expected=expected)
    # Neither does an answer name an id, nor is the caller's kept: lines can only be counted.
    if log.history.windows:
        why = "no answer names an id, and the caller's is not kept: lines cannot be told from those of other traffic"
        return log.absent("request_id", why)
    short = len(asked) + int(log.history.facts["logs.filler"]) - log.ids
    detail = f"{log.ids} ids in the log for {len(asked)} requests; no answer names one, and the caller's is not kept"
    outcome = Outcome.FAIL if short > 0 else Outcome.PASS
    return log.finding("request_id", outcome, detail, n=len(asked), bad=missing[: max(0, short)], expected=expected)


def _kinds(some: Sequence[Asked]) -> str:
    if not some:
        return ""
    counted = Counter(f"{one.kind} {one.status}" for one in some)
    return "; without: " + ", ".join(f"{count} x {kind}" for kind, count in counted.most_common(4))


def _undeclared(field: str) -> str:
    return f"[target.logs] fields does not declare {field}: not asked"


# -- one field ------------------------------------------------------------------------------------------------------------------

Verdict = tuple[Outcome, str, "list[Asked]"]


def _field(log: _Log, name: str, judge: Callable[[_Log, list[Asked]], Verdict]) -> Finding:
    """One declared field on the lines of requests; where lines cannot be joined to requests, anywhere in the log."""
    expected = f"every request's line carries {NAMES[name]} ({log.declared.get(name, name)})"
    if name not in log.declared:
        return log.absent(name, _undeclared(name))
    if not log.counts["json"]:
        return log.absent(name, "no line is JSON: see lines")
    seen = log.seen
    if not seen:
        held = [text for text in log.anywhere[name] if lines.some(text)]
        detail = f"no line can be told to be a request's; {len(held)} values in the log"
        return log.finding(name, Outcome.PASS if held else Outcome.NOT_APPLICABLE, detail, n=len(held), expected=expected)
    outcome, detail, bad = judge(log, seen)
    return log.finding(name, outcome, detail, n=len(seen), bad=bad, expected=expected)


def _host(log: _Log, seen: list[Asked]) -> Verdict:
    del log
    missing = [one for one in seen if not one.values("host")]
    wrong = [one for one in seen if one.values("host") and lines.name_of(one.host) not in map(lines.name_of, one.values("host"))]
    if wrong:
        first = wrong[0]
        detail = (
            f"{len(wrong)} of {len(seen)} requests are logged under another host: {first.values('host')[0]!r} for {first.host!r}"
        )
        return Outcome.FAIL, detail, wrong
    if missing:
        return Outcome.FAIL, f"{len(missing)} of {len(seen)} requests are logged without their host{_kinds(missing)}", missing
    return Outcome.PASS, f"{len(seen)} requests, each with its own host ({len({one.host for one in seen})} hosts)", []


def _good(seen: list[Asked]) -> list[Asked]:
    return [one for one in seen if one.kind == "good" and not one.failed]


def _upstream_ip(log: _Log, seen: list[Asked]) -> Verdict:
    wrong = [one for one in seen if any(not lines.address(text) for text in one.values("upstream_ip"))]
    if wrong:
        return Outcome.FAIL, f"no IP address: {wrong[0].values('upstream_ip')[0]!r}", wrong
    good = _good(seen)
    missing = [one for one in good if not one.values("upstream_ip")]
    if not good:
        return Outcome.NOT_APPLICABLE, "no request was answered well: there may have been nobody upstream", []
    if missing:
        elsewhere = any(lines.some(text) for text in log.apart["upstream_ip"])
        other = " (other lines have)" if elsewhere else ""
        return Outcome.FAIL, f"{len(missing)} of {len(good)} good requests have none{other}", missing
    return Outcome.PASS, f"{len(good)} good requests, each with an address", []


def _tls(name: str, plausible: Callable[[str], bool], same: Callable[[str, str], bool]) -> Callable[[_Log, list[Asked]], Verdict]:
    """Of the version or the cipher. Values are compared with those of the database's sessions: no other TLS is near."""

    def judge(log: _Log, seen: list[Asked]) -> Verdict:
        wrong = [one for one in seen if any(not plausible(text) for text in one.values(name))]
        good = _good(seen)
        if wrong:
            return Outcome.FAIL, f"{wrong[0].values(name)[0]!r} is no {NAMES[name].partition(' ')[2]}", wrong
        if not good:
            return Outcome.NOT_APPLICABLE, "no request was answered well: there may have been no session", []
        held = {text for one in good for text in one.values(name)}
        place = ("tls_version", "tls_cipher").index(name)
        known = {pair[place] for pair in json.loads(log.history.facts["logs.tls"])}
        if held and known and not any(same(one, other) for one in held for other in known):
            told = f"the lines say {', '.join(sorted(held))}, the database's sessions have {', '.join(sorted(known))}"
            return Outcome.FAIL, f"{told}; the requests themselves came without TLS", [one for one in good if one.values(name)]
        if all(one.values(name) for one in good):
            return Outcome.PASS, f"{len(good)} good requests: {', '.join(sorted(held))}", []
        return _without_tls(log, name, good, elsewhere=[text for text in log.apart[name] if lines.some(text) and plausible(text)])

    return judge


def _without_tls(log: _Log, name: str, good: list[Asked], *, elsewhere: list[str]) -> Verdict:
    """Some good requests, or all of them, have none on their lines."""
    missing = [one for one in good if not one.values(name)]
    other = {"tls_version": "tls_cipher", "tls_cipher": "tls_version"}[name]
    if len(missing) < len(good):
        return Outcome.FAIL, f"{len(missing)} of {len(good)} good requests have none", missing
    if elsewhere:
        return Outcome.PASS, f"on lines of connections: {', '.join(elsewhere[:3])}", []
    if log.anywhere[name] and not any(map(lines.some, log.anywhere.get(other, []))):
        why = f'always empty. The suite speaks to the target without TLS: if it is of requests, take it out ({name} = "")'
        return Outcome.INCONCLUSIVE, why, []
    return Outcome.FAIL, f"on no line at all, of {len(good)} good requests", missing


def _error_code(log: _Log, seen: list[Asked]) -> Verdict:
    del log
    failed = [one for one in seen if one.failed]
    # A refused host's line may be an audit entry, which says why in its own way.
    missing = [one for one in failed if one.kind != "refused" and not one.values("error_code")]
    if missing:
        return Outcome.FAIL, f"{len(missing)} of {len(failed)} errors are logged without their code{_kinds(missing)}", missing
    codes = {code for one in failed for code in one.values("error_code")}
    same = [one for one in _good(seen) if one.values("error_code") and set(one.values("error_code")) <= codes]
    if same:
        return Outcome.FAIL, f"{len(same)} good requests carry the code of an error: {same[0].values('error_code')[0]!r}", same
    if not failed:
        return Outcome.NOT_APPLICABLE, "no request was answered with an error", []
    return Outcome.PASS, f"{len(failed)} errors, each with its code: {', '.join(sorted(codes)[:6])}", []


FIELDS: Mapping[str, Callable[[_Log, list[Asked]], Verdict]] = {
    "host": _host,
    "upstream_ip": _upstream_ip,
    "tls_version": _tls("tls_version", lambda text: bool(lines.tls_version(text)), lines.same_version),
    "tls_cipher": _tls("tls_cipher", lines.is_cipher, lines.same_cipher),
    "error_code": _error_code,
}


# -- privacy, audit, retention --------------------------------------------------------------------------------------------------


def _private(log: _Log) -> Finding:
    facts = log.history.facts
    planted, secrets = int(facts["logs.private"]), int(facts["logs.secrets"])
    expected = "values of [target.logs] private, tokens and the database's password are in no line, in whatever form"
    if not planted + secrets:
        return log.absent("privacy", "[target.logs] names nothing private, and nothing secret was given to the target")
    leaks = json.loads(facts["logs.leaks"])
    told = [f"{one['name']}, sent in {one['where']}, {one['form']}: {one['line']}" for one in leaks]
    detail = (
        f"{planted} private values in headers, queries and bodies, {secrets} secrets of the target's: none of them is in the log"
    )
    if leaks:
        first = leaks[0]
        what = f"{first['name']} ({first['where']}), {first['form']}"
        detail = f"{len(leaks)} of {planted + secrets} private values are in the log: {what}"
    elif not log.counts["lines"]:
        return log.absent("privacy", "no line was written")
    outcome = Outcome.FAIL if leaks else Outcome.PASS
    return log.finding("privacy", outcome, detail, n=planted + secrets, bad=told, expected=expected)


def _audit(log: _Log) -> list[Finding]:
    """Entries may be sampled, so that none of a few is no proof of anything (the experiment 'hosts' sends enough)."""
    refused = [one for one in log.asked if one.kind == "refused" and one.status == 400]
    if not refused:
        return []
    entries = json.loads(log.history.facts["logs.audit"])
    gate, expected = "sec.audit_log", "an entry for a refused host names the host, and says that it was refused"
    hosts = {one["host"] for one in entries}
    if not hosts:
        why = f"none of {len(refused)} refused hosts is in the log; entries may be sampled: the experiment 'hosts' decides"
        return [log.finding("audit", Outcome.NOT_APPLICABLE, why, gate=gate, n=len(refused), expected=expected)]
    telling = {one["host"] for one in entries if one["tells"]}
    silent = sorted(hosts - telling)
    detail = f"{len(telling)} of {len(refused)} refused hosts have an entry that says so"
    if silent:
        detail = f"{len(silent)} of {len(hosts)} refused hosts are logged like any other request"
    return [
        log.finding(
            "audit", Outcome.FAIL if silent else Outcome.PASS, detail, gate=gate, n=len(refused), bad=silent, expected=expected
        )
    ]


def _retention(history: History, limits: Limits, log: _Log) -> Finding:
    days = limits.retention
    if "logs.retention_file" not in history.facts:
        return log.absent("retention", "not declared where it is set: [target.logs] retention_file")
    file, seen = history.facts["logs.retention_file"], history.facts["logs.retention"]
    expected = f"logs are kept for {days:g} days"
    if not seen:
        why = f"{file} says nothing of days that is understood here: name it with retention_pattern"
        return log.finding("retention", Outcome.INCONCLUSIVE, why, n=1, expected=expected)
    outcome = Outcome.PASS if float(seen) == days else Outcome.FAIL
    bad = [] if outcome is Outcome.PASS else [f"{file}: {seen} days"]
    return log.finding("retention", outcome, f"{file}: {seen} days", n=1, bad=bad, expected=expected)
