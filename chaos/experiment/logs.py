"""What a target logs of requests that can be found again: with nothing broken, and while its database shows a wrong certificate."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from chaos.checks import lines as log_lines
from chaos.checks import privacy, retention
from chaos.config import expand
from chaos.experiment.core import Plan, under_fault
from chaos.experiment.faults import served
from chaos.faults.database import OURS, admin
from chaos.traffic import marked
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.model import History
    from chaos.rig import Rig
    from chaos.traffic.marked import Marked, Sent

PATIENCE = 3.0  # s in which a line may still be on its way
FILLER = 120  # reads that push lines out of a buffer, where some are missing
BACK = 16 << 20  # bytes of the log that are searched for the target's own secrets
SHOWN = 12  # lines that are kept as evidence
LINE = 600  # letters of each
INVALID, UNDER_FAULT = 12, 4  # requests that deserve a 4xx: of those listed at most so many


def logs(rig: Rig, case: Case, recording: Recording) -> History:
    """Requests of each kind with nothing broken; then the log is read. And where it is set for how long logs are kept."""
    del case
    target = rig.config.target
    if unread := out_of_reach(rig):
        recording.facts["absent"] = unread
        return recording.history()
    ordinary = marked.ordinary(target)
    few = [one for one in ordinary if one.kind != "invalid"] + [one for one in ordinary if one.kind == "invalid"][:INVALID]
    names = target.logs.private if target.logs else ()
    offset = rig.target.log_offset()
    recording.facts["logs.tls"] = json.dumps(_sessions(rig))
    sent = _send(rig, [*few, *marked.refused(target), *marked.planted(target, names), marked.forged(target)])
    recording.facts["logs.tls"] = json.dumps(sorted({*map(tuple, json.loads(recording.facts["logs.tls"])), *_sessions(rig)}))
    _await(rig, recording, offset, sent)
    rig.check_alive()
    _note(rig, recording, offset, sent)
    _note_retention(rig, recording)
    return _with_lines(rig, recording.history(), offset)


def logs_fault(rig: Rig, case: Case, recording: Recording) -> History:
    """PostgreSQL shows a certificate of nobody's, and private values are sent meanwhile: errors are logged more freely than answers."""
    target = rig.config.target
    fault = served(rig, case.what, case.id, case.title)
    ordinary = marked.ordinary(target)
    working = [one for one in ordinary if one.kind == "good" and not one.host]
    wrong = [one for one in ordinary if one.kind == "invalid"][:UNDER_FAULT]
    names = target.logs.private if target.logs else ()
    offset = rig.target.log_offset()
    sent: list[Sent] = []

    def enough() -> bool:
        if not sent:
            sent.extend(_send(rig, [*working, *wrong, *marked.planted(target, names)]))
        return True

    recording.facts |= {"logs.filler": "0", "logs.tls": "[]"}  # what a session was, or will be, is no error here
    history = under_fault(rig, recording, Plan(fault, enough=enough, met=True))
    if not recording.exited:
        _await(rig, recording, offset, sent)
    _note(rig, recording, offset, sent)
    return _with_lines(rig, history, offset)


def out_of_reach(rig: Rig) -> str:
    """Why the target's log cannot be read from here; '' when it can."""
    table = rig.config.target.logs
    if rig.ours or table is None:
        return ""
    if table.file is None:
        return "the target runs elsewhere, and [target.logs] names no file on this machine"
    place = rig.config.target.cwd / expand(table.file, rig.target.values)
    return "" if place.is_file() else f"the target runs elsewhere, and its log is not here: {table.file}"


def _send(rig: Rig, requests: Sequence[Marked]) -> list[Sent]:
    return rig.driver.call(marked.send_all(rig.driver.session, requests, deadline=rig.driver.deadline))


def _sessions(rig: Rig) -> list[tuple[str, str]]:
    """(version, cipher) of the target's sessions, by the server's own word; none where it is not ours to ask."""
    if not rig.ours:
        return []
    with admin(rig.environment.postgres) as session:
        rows = session.execute(
            "SELECT DISTINCT s.version, s.cipher FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
            "WHERE s.ssl AND a.usename = %s AND a.application_name <> ALL (%s)",
            (rig.environment.postgres.app_user, list(OURS)),
        ).fetchall()
    return [(str(version), str(cipher)) for version, cipher in rows]


# -- reading it back ------------------------------------------------------------------------------------------------------------


def _await(rig: Rig, recording: Recording, offset: int, sent: Sequence[Sent]) -> None:
    """Until every request has its line; where lines are missing, a buffer of the target's may have to be filled first."""
    recording.facts["logs.filler"] = "0"
    path = _declared(rig).get("request_id", "")
    asked = [one for one in sent if one.marked.kind not in {"refused", "forged"} and one.status is not None]

    def written() -> bool:
        if not path:
            return len(rig.target.log_lines(offset)) >= len(asked)
        found = [log_lines.field(one, path) or "" for one in _objects(rig.target.log_lines(offset))]
        return all(any(_joins(one, text) for text in found) for one in asked)

    if wait_for(written, PATIENCE, every=0.15):
        return
    _send(rig, [marked.Marked(kind="good", request=rig.config.target.read[0])] * FILLER)
    recording.facts["logs.filler"] = str(FILLER)
    wait_for(written, PATIENCE / 2, every=0.15)


def _joins(one: Sent, text: str) -> bool:
    return bool(text) and any(log_lines.same_id(text, known) for known in (*one.ours, *one.told))


def _declared(rig: Rig) -> dict[str, str]:
    table = rig.config.target.logs
    return dict(table.declared) if table else {}


def _objects(lines: Sequence[str]) -> list[log_lines.Members]:
    return [found for line in lines if (found := log_lines.members(line)) is not None]


def _note(rig: Rig, recording: Recording, offset: int, sent: Sequence[Sent]) -> None:
    """What the checks need, as facts: each request with its lines' fields; all lines counted; every leak."""
    declared, lines = _declared(rig), [line for line in rig.target.log_lines(offset) if line.strip()]
    parsed = [(line, log_lines.members(line)) for line in lines]
    found = [(line, one) for line, one in parsed if one is not None]
    plain = [line for line, one in parsed if one is None]
    fields = [(line, one, log_lines.fields(one, declared)) for line, one in found]
    joined: set[int] = set()
    requests: list[dict[str, Any]] = []
    for one in sent:
        these = [n for n, (_, _, held) in enumerate(fields) if _joins(one, held.get("request_id", ""))]
        joined |= set(these)
        requests.append(
            {
                "kind": one.marked.kind,
                "request": f"{one.marked.request.method} {one.path}",
                "host": one.host,
                "status": one.status,
                "ours": one.ours,
                "told": one.told,
                "known": not one.told or any(log_lines.same_id(told, text) for told in one.told for text in _ids(fields, told)),
                "lines": [fields[n][2] for n in these],
                "plain": any(text in line for line in plain for text in (*one.ours, *one.told, *_rare(one))),
            }
        )
    secrets = _own_secrets(rig)
    private = [privacy.Private(name=name, where=where, text=core) for one in sent for name, where, core in one.marked.private]
    leaks = privacy.leaks(lines, private)
    leaks += privacy.leaks(rig.target.log_lines(max(0, rig.target.log_offset() - BACK)), secrets)
    refused = {one.host for one in sent if one.marked.kind == "refused" and one.status == 400}
    recording.facts |= {
        "logs.fields": json.dumps(declared),
        "logs.requests": json.dumps(requests),
        "logs.counts": json.dumps({"lines": len(lines), "json": len(found), "plain": len(plain), "joined": len(joined)}),
        "logs.ids": str(len({held["request_id"] for _, _, held in fields if log_lines.some(held.get("request_id", ""))})),
        "logs.anywhere": json.dumps(_values(declared, [held for _, _, held in fields])),
        "logs.apart": json.dumps(_values(declared, [held for n, (_, _, held) in enumerate(fields) if n not in joined])),
        "logs.forged": str(sum("forged" in one for _, one in found) + sum('"forged":"yes"' in line for line in plain)),
        "logs.private": str(len(private)),
        "logs.secrets": str(len(secrets)),
        "logs.leaks": json.dumps([asdict(one) for one in leaks]),
        "logs.audit": json.dumps(_audit(refused, found)),
        "logs.plain": json.dumps([_safe(line, leaks) for line in plain[:3]]),
    }


def _values(declared: Mapping[str, str], held: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Field -> what it was on these lines, some of it."""
    return {name: sorted({one[name] for one in held if name in one})[:40] for name in declared}


def _ids(fields: Sequence[tuple[str, log_lines.Members, dict[str, str]]], told: str) -> list[str]:
    """Texts of lines in which an answer's id might be, in whichever member."""
    return [text for line, one, _ in fields if told in line for text in log_lines.texts(one)]


def _rare(one: Sent) -> tuple[str, ...]:
    return (one.host,) if one.marked.kind == "refused" or one.marked.host.startswith("logs-") else ()


def _audit(refused: set[str], found: Sequence[tuple[str, log_lines.Members]]) -> list[dict[str, Any]]:
    """The lines in which a refused host is a value, and whether each tells of a refusal."""
    entries = []
    for _, one in found:
        hosts = {log_lines.name_of(text) for text in log_lines.texts(one)} & refused
        entries += [{"host": host, "tells": log_lines.tells_refusal(one, host)} for host in sorted(hosts)]
    return entries


def _own_secrets(rig: Rig) -> list[privacy.Private]:
    found = [
        privacy.Private(name=name, where="the requests of chaos.toml", text=text, planted=False)
        for name, text in marked.given_secrets(rig.driver.session)
    ]
    if rig.ours:
        password = rig.environment.postgres.app_password
        found.append(privacy.Private(name="database password", where="{database_url}", text=password, planted=False))
    return found


def _safe(line: str, leaks: Sequence[privacy.Leak]) -> str:
    return line[:LINE] if not leaks else "(not shown: something private was found in this log)"


def _with_lines(rig: Rig, history: History, offset: int) -> History:
    if json.loads(history.facts.get("logs.leaks", "[]")) or history.logs:
        return history
    return replace(history, logs=tuple(line[:LINE] for line in rig.target.log_lines(offset)[:SHOWN]))


def _note_retention(rig: Rig, recording: Recording) -> None:
    table = rig.config.target.logs
    if table is None or table.retention_file is None:
        return
    text = table.retention_file.read_text(encoding="utf-8", errors="replace")
    days = retention.days(text, table.retention_pattern)
    recording.facts |= {"logs.retention": "" if days is None else f"{days:g}", "logs.retention_file": table.retention_file.name}
