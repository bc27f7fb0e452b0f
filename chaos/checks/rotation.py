"""The certificate rotation SOP under load: sec.cert_rotation. What failed, what was trusted, and what the server's rows showed.

A failure is held against the target only where the playbook was carried out as written: a request failed, an unverified
connection was opened, or a new, valid certificate was refused. A running instance that still holds its old bundle is not looked
at: the SOP restarts it, for many healthy services read the bundle once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chaos.checks.disclosure import WORDS
from chaos.checks.recovery import describe
from chaos.model import Finding, History, Kind, Outcome, Rung

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.checks.limits import Limits

GATE = "sec.cert_rotation"
SOP = "docs/certificate-rotation-sop.md"
IMPOSTOR = "impostor:withdrawn-ca"
ROWS = {
    "R1": "a new certificate on disk and no reload: the old one is still served, and the SOP's `verify` says so",
    "R5.key-mismatch": "a key that does not fit: 'SSL configuration was not reloaded', the old one is served, and `verify` says so",
    "R5.key-readable": "a key that others can read: 'SSL configuration was not reloaded', the old one is served, `verify` says so",
    "R5.key-missing": "a key that is not there: 'SSL configuration was not reloaded', the old one is served, and `verify` says so",
    "R6": "an expired certificate is loaded without a word in the server's log, and `verify` says so",
}


def check(history: History, limits: Limits) -> list[Finding]:
    """All findings of the playbook; without a healthy control, one that says so."""
    del limits
    facts = history.facts
    if "unable" in facts:
        return [_finding("rotation", Outcome.NOT_APPLICABLE, facts["unable"], "the SOP is carried out here")]
    sick = _control(history)
    if sick:
        text = f"two instances of the target do not work side by side with nothing changed, so nothing is shown: {sick}"
        return [_finding("rotation", Outcome.INCONCLUSIVE, text, "a healthy control before the first step")]
    return [_load(history), *_steps(facts), _withdrawn(history), *_server(facts), _pool(facts), _client(facts)]


def _finding(check: str, outcome: Outcome, detail: str, expected: str, *, n: int = 1, examples: tuple[str, ...] = ()) -> Finding:
    bad = int(outcome is Outcome.FAIL)
    return Finding(check=check, gate=GATE, outcome=outcome, detail=detail, expected=expected, n=n, bad=bad, examples=examples)


def _control(history: History) -> str:
    """'' when both instances answered everything before the first step."""
    facts = history.facts
    if facts.get("control"):
        return facts["control"]
    if "control.to" not in facts:
        return facts.get("stopped", "it was not ended")
    start, end = float(facts["load.from"]), float(facts["control.to"])
    before = [one for one in history.operations if one.kind in {Kind.READ, Kind.WRITE} and start <= one.started < end]
    failed = [one for one in before if not one.ok]
    if failed:
        return f"{len(failed)} of {len(before)} requests failed, such as {describe(failed[0])}"
    return "" if before else "no request was sent"


def _load(history: History) -> Finding:
    """No failed request from the first step to the last, and no connection in plaintext."""
    facts = history.facts
    start, end = float(facts["control.to"]), float(facts["load.to"])
    sent = [one for one in history.operations if one.kind in {Kind.READ, Kind.WRITE} and start <= one.started < end]
    failed = [one for one in sent if not one.ok]
    plain = [one for one in history.connections if one.plaintext and not one.cancel]
    acts = json.loads(facts["acts"])
    detail = (
        f"{len(failed)} of {len(sent):,} requests failed in {end - start:.1f} s while {len(acts)} commands of the SOP were carried "
        f"out; {len(history.connections)} connections to the database, {len(plain)} in plaintext"
    )
    outcome = Outcome.FAIL if failed or plain else Outcome.PASS
    if "stopped" in facts:
        detail = f"the playbook could not be ended: {facts['stopped']}; {detail}"
        outcome = outcome if outcome is Outcome.FAIL else Outcome.INCONCLUSIVE
    elif not sent:
        outcome = Outcome.INCONCLUSIVE
    examples = tuple(f"{_during(acts, one.started)}: {describe(one)}" for one in failed[:4])
    expected = f"no failed request and no unverified connection ({SOP})"
    return _finding("rotation", outcome, detail, expected, n=len(sent), examples=examples)


def _during(acts: list[dict[str, object]], at: float) -> str:
    """Which step was the last before a moment."""
    done = [one["step"] for one in acts if float(str(one["at"])) <= at]
    return f"after step {done[-1]}" if done else "before the first step"


def _steps(facts: dict[str, str]) -> Iterator[Finding]:
    """New leaf, and new authority: the instance comes back over a new connection, verified against the bundle that it was given."""
    yield _step(
        facts,
        "rotation.leaf",
        [("leaf.reconnect", "a running instance")],
        "a new leaf of the same authority is trusted without a restart: nothing that a client was given has changed",
    )
    found = _step(
        facts,
        "rotation.authority",
        [
            ("overlap.start", "an instance restarted with a bundle of both authorities"),
            ("overlap.reconnect", "an instance that was restarted with both"),
            ("withdrawn.start", "an instance restarted with the new authority only"),
            ("withdrawn.reconnect", "an instance that was restarted with the new authority only"),
        ],
        "an instance that was restarted with a bundle in which the new authority is trusts a leaf of it",
    )
    if found.outcome is Outcome.FAIL and facts.get("setup.ca") == "True":
        text = (
            f"`setup` puts {{ca_file}} in place, and is run once only, so the new bundle may not have reached it: {found.detail}"
        )
        found = _finding(found.check, Outcome.INCONCLUSIVE, text, found.expected)
    yield found


def _step(facts: dict[str, str], check: str, keys: list[tuple[str, str]], expected: str) -> Finding:
    told: list[str] = []
    for key, who in keys:
        value = facts.get(key)
        if value is None:
            return _finding(check, Outcome.INCONCLUSIVE, "; ".join([*told, f"the playbook did not get to {who}"]), expected)
        if key.endswith(".reconnect"):
            bad = value.startswith("no")
            told.append(f"{who} did not come back ({value[4:]})" if bad else f"{who} was back after {value} s")
        else:
            bad = bool(value)
            told += [f"{who} does not serve: {value}"] if bad else []
        if bad:
            return _finding(check, Outcome.FAIL, "; ".join(told), expected)
    if any(row in facts for row in ("R2", "R3")) and "authority" in check:
        told.append(f"a session of our own with the old bundle: {facts.get('R2')}; with both: {facts.get('R3')}")
    return _finding(check, Outcome.PASS, "; ".join(told), expected)


def _withdrawn(history: History) -> Finding:
    """Who comes with a certificate of the authority that was withdrawn is refused by an instance that was restarted since."""
    expected = "an instance that was restarted after the old authority was withdrawn gives up before its StartupMessage"
    met = [one for one in history.connections if one.behaviour == IMPOSTOR and (one.reached > Rung.NOTHING or one.plaintext)]
    wrong = [one for one in met if one.plaintext or one.reached >= Rung.STARTUP]
    if wrong:
        furthest = max(one.reached for one in wrong)
        text = f"it trusted the withdrawn authority in {len(wrong)} of {len(met)} connections: it sent {WORDS[furthest]}"
        return _finding("rotation.withdrawn", Outcome.FAIL, text, expected, n=len(met))
    back = history.facts.get("withdrawn.reconnect", "no: it was not tried")
    if not met or back.startswith("no"):
        text = f"{len(met)} connections met the impostor; afterwards, with the right server (control): {back}"
        return _finding("rotation.withdrawn", Outcome.INCONCLUSIVE, text, expected)
    text = f"it refused all {len(met)} connections, and was back with the right server after {back} s (control)"
    return _finding("rotation.withdrawn", Outcome.PASS, text, expected, n=len(met))


def _server(facts: dict[str, str]) -> Iterator[Finding]:
    """R1, R5, R6: what PostgreSQL did. Nothing here is the target's, so what was not as expected is a doubt, not a failure."""
    for row, expected in ROWS.items():
        check = f"rotation.{row}"
        if row not in facts:
            yield _finding(check, Outcome.INCONCLUSIVE, "the playbook did not get that far", expected)
            continue
        seen = json.loads(facts[row])
        good = seen["seen"] and seen["alarm"]
        text = f"the server {'did so' if seen['seen'] else 'did not'}; `verify` {'raised the alarm' if seen['alarm'] else 'was silent'}"
        yield _finding(check, Outcome.PASS if good else Outcome.INCONCLUSIVE, text, expected)


def _pool(facts: dict[str, str]) -> Finding:
    """R4: sessions that live across the rotation go on with the old certificate; how old they were is recorded."""
    expected = "a pooled connection that lives across the rotation keeps working, and its age is known (row R4)"
    ages = json.loads(facts.get("R4", "[]"))
    if not ages:
        return _finding(
            "rotation.R4", Outcome.NOT_APPLICABLE, "no connection lived across the reload: there is no pool", expected
        )
    text = f"{len(ages)} pooled connections lived across the reload, the oldest {max(ages):.1f} s old"
    return _finding("rotation.R4", Outcome.PASS, text, expected, n=len(ages))


def _client(facts: dict[str, str]) -> Finding:
    """Client certificates: only where the target shows one."""
    expected = "client certificates are rotated as well, where the target shows one"
    shown = facts.get("client")
    if shown is None:
        return _finding("rotation.client", Outcome.INCONCLUSIVE, "the playbook did not get that far", expected)
    if shown == "0":
        text = "the server asks for none, and no session of the target's shows one (pg_stat_ssl.client_dn)"
        return _finding("rotation.client", Outcome.NOT_APPLICABLE, text, expected)
    return _finding("rotation.client", Outcome.INCONCLUSIVE, f"{shown} sessions show one; not rotated by this version", expected)
