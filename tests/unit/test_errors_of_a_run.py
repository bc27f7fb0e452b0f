"""Every error answer of a run: whichever experiment it was in, grouped by route and layer, with nothing private kept."""

import json
from dataclasses import replace

import pytest

from chaos.checks import FAMILIES, Limits, judge
from chaos.checks.errors import CANDIDATE
from chaos.checks.routes import fits, route
from chaos.evidence.record import Run
from chaos.evidence.redact import redact
from chaos.evidence.report import report
from chaos.experiment import private
from chaos.gates import grouped
from chaos.gates import judge as judge_gates
from chaos.gates import load as load_gates
from chaos.model import UNCOUNTED, Effect, Finding, History, Kind, Layer, Operation, Outcome, Verdict, Window

RIGHT = Operation(
    kind=Kind.READ,
    method="GET",
    path="/items/7",
    sample="read[0]",
    started=1.0,
    finished=1.1,
    status=503,
    media_type="application/problem+json",
    body='{"status": 503}',
)
WRONG = replace(RIGHT, media_type="text/html", body="<h1>no</h1>")


def history(*operations, family="rollback", **more):
    facts = {"family": family, "gate": "res.network", **more.pop("facts", {})}
    return History(experiment=more.pop("experiment", "x"), started=0.0, operations=operations, facts=facts, **more)


def of_errors(recorded):
    found = judge(recorded, Limits())
    return next((one for one in found if one.gate == "rel.error_schema"), None)


@pytest.mark.parametrize("recorded", [{"control": "sick"}, {"facts": {"absent": "cannot be asked"}}])
def test_whatever_became_of_the_experiment(recorded):
    found = of_errors(history(RIGHT, WRONG, **recorded))
    assert (found.n, found.bad) == (2, 1)


def test_whatever_the_experiment_was_for():
    """The roll-back, whose check of its own looks at other things; and no family names this check for itself."""
    assert of_errors(history(WRONG, facts={"bad.from": "0", "bad.to": "1"})).bad == 1
    assert not [name for name, checks in FAMILIES.items() for one in checks if "error" in one.__module__]


def test_an_error_answer_is_one_whether_the_fault_took_effect_or_not():
    idle = Window(fault="f", scope="s", injected=0.5, healed=0.9, effect=Effect(took=False, seen="nothing"))
    assert of_errors(history(RIGHT, family="network", windows=(idle,))).outcome is Outcome.PASS


def test_health_checks_have_forms_of_their_own_but_tell_nothing():
    down = replace(WRONG, kind=Kind.LIVE, media_type="application/json", body='{"status": "DOWN"}')
    found = of_errors(history(RIGHT, down))
    assert (found.n, found.bad) == (1, 0)
    assert "1 x 503 to health checks" in found.detail
    told = of_errors(history(RIGHT, replace(down, body='{"status": "DOWN", "error": "dial tcp 10.0.0.3:5432: refused"}')))
    assert (told.n, told.bad) == (2, 1)


def test_the_candidates_forms_are_the_contracts_business_but_it_tells_nothing():
    assert of_errors(history(RIGHT, replace(WRONG, client=CANDIDATE))).n == 1
    assert of_errors(history(replace(WRONG, client=CANDIDATE, body="Traceback (most recent call last):"))).bad == 1


@pytest.mark.parametrize(
    "other",
    [
        {"kind": Kind.ATTACK, "body": "HTTP/1.1 400 Bad Request\n\nno"},
        {"client": "wire.h1"},
        {"kind": Kind.HOST, "row": "H47.evil"},
    ],
)
def test_answers_whose_form_is_another_checks_business(other):
    assert of_errors(history(RIGHT, replace(WRONG, **other))).n == 1
    assert of_errors(history(RIGHT, replace(WRONG, **{**other, "body": "Traceback (most recent call last)"}))).bad == 1


def test_a_body_that_nobody_kept_is_no_empty_one():
    spared = replace(RIGHT, status=404, body="")
    assert of_errors(history(spared, facts={"absent": "x", "family": "corpus-fault"})).n == 0
    assert of_errors(history(spared, facts={"absent": "x", "family": "steady"})).bad == 1
    assert of_errors(history(replace(spared, media_type="text/html"), facts={"absent": "x", "family": "corpus-fault"})).bad == 1
    servers = replace(spared, status=431, media_type="")
    assert of_errors(history(RIGHT, servers, facts={"absent": "x", "family": "corpus-fault"})).n == 1


def test_what_is_told_back_of_the_query_is_no_leak():
    asked = replace(RIGHT, status=404, path="/search?q=SELECT+a+FROM+b&x=1", body='{"detail": "nothing like SELECT a FROM b"}')
    assert of_errors(history(asked)).bad == 0
    assert of_errors(history(replace(asked, path="/search?q=x"))).bad == 1


def test_a_body_that_was_cut_is_no_proof():
    cut = replace(RIGHT, body=json.dumps({"detail": "x" * 5000})[:4096])
    found = of_errors(history(RIGHT, cut))
    assert (found.n, found.bad) == (1, 0)
    assert "longer than what is kept" in found.detail
    assert of_errors(history(replace(cut, body=cut.body[:4000] + "x" * 60 + "Traceback (most recent call last)"[:36]))).n == 1


@pytest.mark.parametrize(
    ("path", "templates", "expected"),
    [
        ("/items/7?x=1", (), "/items/*"),
        ("/items/{item}/parts", (), "/items/*/parts"),
        ("http://127.0.0.1:80/items/7", (), "/items/*"),
        ("/items/7", ("/items/{id}", "/{any}/{id}"), "/items/{id}"),
        ("/items/mine", ("/items/{id}", "/items/mine"), "/items/mine"),
        ("/items/7/x", ("/items/{id}",), "/items/*/x"),
        ("", (), "/"),
    ],
)
def test_routes(path, templates, expected):
    assert route(path, templates) == expected


def test_a_variable_spans_no_slash():
    assert fits("/a/{b}.json", "/a/x.json")
    assert not fits("/a/{b}", "/a/x/y")


def test_failures_are_grouped_over_the_run_and_told_by_the_gate():
    known = {"routes": json.dumps(["/items/{id}"])}
    edge = replace(WRONG, layer=Layer.EDGE, status=502)
    found = [
        of_errors(history(*[WRONG] * 30, edge, experiment="steady", facts=known)),
        of_errors(history(*[WRONG] * 7, *[RIGHT] * 3, experiment="rollback", facts=known)),
    ]
    groups = grouped(found, "rel.error_schema")
    what = "GET /items/{id} 503 (application): media type text/html, not application/problem+json"
    assert groups[0] == (what, 37, 2)
    assert groups[1][0].startswith("GET /items/{id} 502 (edge): ")
    assert groups[1][0].endswith(UNCOUNTED)
    gate = next(one for one in judge_gates(found, load_gates()) if one.id == "rel.error_schema")
    assert gate.outcome is Outcome.FAIL
    assert gate.reason == f"37 of 40 not in the schema: {what}, 37 times in 2 experiments"


def test_the_gate_says_how_many_more_prove_it():
    clean = Finding(check="errors.x", gate="rel.error_schema", outcome=Outcome.PASS, detail="", n=597)
    gate = next(one for one in judge_gates([clean], load_gates()) if one.id == "rel.error_schema")
    assert (gate.outcome, gate.n) == (Outcome.INCONCLUSIVE, 597)
    assert "needs 1 more" in gate.reason
    gate = next(one for one in judge_gates([replace(clean, n=598)], load_gates()) if one.id == "rel.error_schema")
    assert gate.outcome is Outcome.PASS


def test_values_of_one_answer_make_no_group_of_their_own():
    wrong = [replace(RIGHT, body=json.dumps({"status": 503, "type": f"no reference {number}"})) for number in range(3)]
    told = [replace(RIGHT, body=json.dumps({"detail": f"SELECT a FROM t{number}"})) for number in range(3)]
    assert len(of_errors(history(*wrong)).groups) == 1
    assert of_errors(history(*told)).groups == (("GET /items/* 503 (application): it tells SQL", 3),)


SECRET = "s3cr3t/token-of-the-run"


@pytest.mark.parametrize("written", [SECRET, SECRET.replace("/", "\\/"), SECRET.replace("/", "%2F")])
def test_private_values_are_taken_out_of_what_is_kept_and_still_seen(written):
    answer = replace(RIGHT, body=f'{{"status": 503, "detail": "no {written} here"}}')
    kept = private.marked([answer], {SECRET: "the value of API_TOKEN"})
    assert SECRET not in kept[0].body
    assert "token-of" not in kept[0].body
    assert "it tells the value of API_TOKEN" in of_errors(history(*kept)).detail
    assert redact(kept[0].body) == kept[0].body


def test_what_the_request_itself_said_stays():
    answer = replace(RIGHT, path=f"/items/{SECRET}", body=f'{{"detail": "no {SECRET}"}}')
    assert private.marked([answer], {SECRET: "x"})[0] is answer


def test_the_report_shows_them_in_one_place():
    what = "GET /items/{id} 500 (application): media type <text/html>"
    found = [
        Finding(
            check=f"errors.{name}",
            gate="rel.error_schema",
            outcome=Outcome.FAIL,
            detail="",
            experiment=name,
            groups=((what, 20),),
        )
        for name in ("steady", "rollback")
    ]
    run = Run(
        version="1", target="t", profile="quick", seed=1, verdict=Verdict.NO_GO, started=0.0, finished=1.0, findings=tuple(found)
    )  # fmt: skip
    page = report(run)
    assert "Error answers outside the schema, by route and layer" in page
    row = page[page.index("error-groups") :]
    assert "GET /items/{id} 500 (application): media type &lt;text/html&gt;" in row
    assert "40 &times;" in row
    assert "in 2 experiments" in row
    assert "error-groups" not in report(replace(run, findings=()))
