"""The rotation's findings, on histories made by hand; and the SOP, whose document is what the suite carries out."""

import json
import re
from pathlib import Path

import pytest

from chaos.checks import Limits, expiry, judge, rotation
from chaos.model import Connection, History, Kind, Operation, Outcome, Rung
from chaos.rollout.sop import STEPS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "certificate-rotation-sop.md").read_text(encoding="utf-8")
SEEN = json.dumps({"seen": True, "alarm": True})
GOOD = {
    "gate": "sec.cert_rotation",
    "family": "rotation",
    "title": "x",
    "control": "",
    "load.from": "100",
    "control.to": "102",
    "load.to": "110",
    "acts": json.dumps([{"step": "install", "at": 103.0, "exit": 0, "said": ""}]),
    "leaf.reconnect": "0.05",
    "overlap.start": "",
    "overlap.reconnect": "0.1",
    "withdrawn.start": "",
    "withdrawn.reconnect": "0.4",
    "R2": "certificate verify failed",
    "R3": "connects",
    "R4": "[5.0, 3.2]",
    "client": "0",
    **dict.fromkeys(rotation.ROWS, SEEN),
}


def read(at, *, ok=True):
    return Operation(
        kind=Kind.READ,
        method="GET",
        path="/x",
        sample="read[0]",
        started=at,
        finished=at + 0.01,
        status=200 if ok else 503,
        media_type="application/problem+json",
        body='{"status": 503}',
        ok=ok,
        client="reader 0",
    )


def met(reached=Rung.CLIENT_HELLO, **more):
    return Connection(id=1, opened=109.0, behaviour=rotation.IMPOSTOR, reached=reached, **more)


WELL = (read(101), read(104))
REFUSED = (met(),)


def found(*, operations=WELL, connections=REFUSED, without=(), **change):
    facts = {key: value for key, value in {**GOOD, **change}.items() if key not in without}
    history = History(experiment="rotation", started=99.0, operations=operations, connections=connections, facts=facts)
    return {one.check: one for one in judge(history, Limits())}


def bad(findings):
    return {check: str(one.outcome) for check, one in findings.items() if one.outcome in {Outcome.FAIL, Outcome.INCONCLUSIVE}}


def test_good():
    findings = found()
    assert bad(findings) == {}
    assert findings["rotation.R4"].detail == "2 pooled connections lived across the reload, the oldest 5.0 s old"
    assert findings["rotation.client"].outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"operations": (read(101), read(104, ok=False))}, {"rotation": "fail"}),
        ({"connections": (met(), met(plaintext=True))}, {"rotation": "fail", "rotation.withdrawn": "fail"}),
        ({"leaf.reconnect": "no: answered 503; 3 handshakes"}, {"rotation.leaf": "fail"}),
        ({"overlap.reconnect": "no: answered 503; 3 handshakes"}, {"rotation.authority": "fail"}),
        ({"overlap.reconnect": "no: answered 503", "setup.ca": "True"}, {"rotation.authority": "inconclusive"}),
        ({"withdrawn.start": "it is not ready"}, {"rotation.authority": "fail"}),
        ({"connections": (met(Rung.STARTUP),)}, {"rotation.withdrawn": "fail"}),
        ({"connections": ()}, {"rotation.withdrawn": "inconclusive"}),
        ({"R5.key-missing": json.dumps({"seen": True, "alarm": False})}, {"rotation.R5.key-missing": "inconclusive"}),
        ({"R4": "[]"}, {}),
        ({"client": "2"}, {"rotation.client": "inconclusive"}),
        ({"operations": (read(101),)}, {"rotation": "inconclusive"}),
        ({"stopped": "the SOP's step 'reload' ended with status 2"}, {"rotation": "inconclusive"}),
    ],
)
def test_what_is_wrong_is_red_at_its_own_check(change, expected):
    assert bad(found(**change)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"control": "orders is not ready after 30 s"},
        {"operations": (read(101, ok=False), read(104))},
        {"operations": ()},
        {"without": ("control.to",)},
    ],
)
def test_without_a_healthy_control_nothing_is_shown(change):
    findings = found(**change)
    assert bad(findings) == {"rotation": "inconclusive"}
    assert {one.check for one in findings.values() if one.gate == "sec.cert_rotation"} == {"rotation"}


def test_a_step_that_was_not_reached_is_no_pass():
    findings = found(without=("overlap.start", "overlap.reconnect", "withdrawn.start", "withdrawn.reconnect", "R6"))
    assert bad(findings) == dict.fromkeys(("rotation.authority", "rotation.withdrawn", "rotation.R6"), "inconclusive")


# -- expiry ---------------------------------------------------------------------------------------------------------------------


def states(**change):
    rows = [
        {"role": role, "days": days, "expected": days <= 30, "left": days, "said": ""}
        | {"promtool": days <= 30, "prometheus": days <= 30}
        for role in expiry.WORDS
        for days in (31, 30, 29)
    ]
    return json.dumps([{**row, **change.get(f"{row['role']}{row['days']}", {})} for row in rows])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"leaf30": {"promtool": False, "prometheus": False}}, {"expiry.leaf": "fail"}),
        ({"crl31": {"promtool": True}}, {"expiry.crl": "fail"}),
        ({"root29": {"prometheus": False}}, {"expiry.root": "fail"}),
        ({"intermediate29": {"promtool": None}}, {"expiry.intermediate": "inconclusive"}),
    ],
)
def test_each_kind_is_judged_by_itself(change, expected):
    facts = {"gate": "sec.cert_expiry", "family": "expiry", "limit": "30", "rules": "x", "rules.read": "True", "tools": "3"}
    facts |= {"states": states(**change), "served": "True", "served.before": "False"}
    assert (
        bad({one.check: one for one in expiry.check(History(experiment="expiry", started=1.0, facts=facts), Limits())})
        == expected
    )


# -- the document ---------------------------------------------------------------------------------------------------------------


def test_the_document_and_the_suite_have_the_same_commands():
    shown = dict(re.findall(r"```sh\n# step: (\S+)\n(.*?)\n```", DOCUMENT, re.DOTALL))
    assert shown == {step.id: step.commands for step in STEPS.values() if step.commands}


def test_every_variable_is_explained():
    used = set(re.findall(r"\$\{?([A-Z_]+)", "".join(step.commands for step in STEPS.values()))) - {"WAIT"}
    assert used <= set(re.findall(r"`([A-Z_]+)`", DOCUMENT))


def test_every_row_is_explained():
    assert all(f"rotation.{row.split('.')[0]}" in DOCUMENT for row in rotation.ROWS)
