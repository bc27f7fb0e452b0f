"""The wire's rows as experiments: each row in both situations or with a reason, ids that --only takes, and what a quick run leaves out."""

import pytest

from chaos.about import explain
from chaos.cases import BY_ID, CASES, due, known_names, select
from chaos.cases.wire import SITUATIONS, TELLING, WIRE
from chaos.faults.wire.rows import ROWS


def ids(*names):
    return {case.id for case in select(names)}


def test_every_row_in_both_situations():
    assert {f"{row.id}.{situation}" for row in ROWS for situation in SITUATIONS} <= set(BY_ID)
    assert {"P7", *(f"M{n}" for n in range(1, 7))} <= set(BY_ID)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("C16", {"C16.start", "C16.reconnect", "C16.twin.start", "C16.twin.reconnect"}),
        ("C16.start", {"C16.start"}),
        ("C16.twin", {"C16.twin.start", "C16.twin.reconnect"}),
        ("P8.start", {f"P8.{where}.start" for where in ("accept", "answer", "tls", "startup")}),
        ("P5.reconnect", {"P5.reconnect"}),
        ("valid", {"valid.start", "valid.reconnect"}),
        ("P7", {"P7"}),
        ("handshakes.steady", {"steady"}),
        ("invalid.C16.reconnect", {"C16.reconnect"}),
    ],
)
def test_what_only_takes(name, found):
    assert ids(name) == found


def test_every_name_that_is_suggested_selects_something():
    assert all(select((name,)) for name in known_names())


def test_a_quick_run_starts_few_instances():
    quick = {case.id for case in CASES if due(case, (), "quick") and case.family == "start" and not case.reason}
    assert quick == {f"{row}.start" for row in TELLING}
    assert all(due(case, (), "nightly") for case in CASES)


def test_what_is_named_runs_in_any_profile_but_a_gate_names_nothing():
    case = BY_ID["C2.start"]
    assert due(case, ("C2",), "quick")
    assert due(case, ("C2.start",), "quick")
    assert not due(case, ("sec.verify_full",), "quick")


def test_what_cannot_be_asked_says_why():
    reasons = {case.id: case.reason for case in WIRE if case.reason}
    assert "matrix" in reasons["C23.start"]
    assert "at start" in reasons["C11.reconnect"]
    assert not BY_ID["C11.start"].reason
    assert reasons["A7.reconnect"]
    assert reasons["P16.start"]
    assert all(reasons[f"M{n}"] for n in range(1, 7))


def test_explain_says_what_a_row_asks_for_and_why(capsys):
    explain("A2.start")
    said = capsys.readouterr().out
    assert "must    policy (high)" in said
    assert "require_auth" in said
    assert "nightly, or when it is named" in said
    explain("C24.start")
    assert "not run it takes an option in the client's own settings (sslcrl)" in capsys.readouterr().out
