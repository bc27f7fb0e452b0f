"""What is counted against a target, and what is only told: the judge of the corpus on made-up histories."""

import json

import pytest

from chaos.checks import Limits, judge
from chaos.model import Effect, History, Kind, Operation, Outcome, Window

LIMITS = Limits(recovery=5.0, fail_fast=5.0)
NUMBER = iter(range(10**6))


def asked(phase, status, row="schema/none/400", *, key="generated[1]", error="", **more):
    at = float(next(NUMBER))
    return Operation(
        kind=Kind.INVALID, method="GET", path="/items/x", sample=key, started=at, finished=at + 0.1, status=status, error=error,
        row=row, client=phase, **more,
    )  # fmt: skip


def history(family, *operations, took=True, **facts):
    window = Window(fault="refused.new", scope="", injected=0.0, healed=1e6, effect=Effect(took=took, seen="refused"))
    return History(
        experiment=f"corpus.{family}",
        started=0.0,
        windows=() if family in {"steady", "candidate"} else (window,),
        operations=operations,
        facts={"gate": "rel.no_400_to_500", "family": f"corpus-{family}", **facts},
    )


def one(family, *operations, **facts):
    return judge(history(family, *operations, **facts), LIMITS)[0]


def calm(*statuses, row="schema/none/0", error="", **more):
    return [
        asked(phase, status, row, error=error, **more)
        for phase, status in zip(("steady 1", "steady 2", "again"), statuses, strict=False)
    ]


FINE = asked("steady 1", 400, key="generated[0]")


@pytest.mark.parametrize(
    ("operations", "outcome"),
    [
        ([FINE], Outcome.PASS),
        ([], Outcome.INCONCLUSIVE),
        ([FINE, *calm(500, 500, 500)], Outcome.FAIL),
        ([FINE, *calm(500, 500, 400)], Outcome.PASS),  # not again
        ([FINE, *calm(500, 500)], Outcome.PASS),  # one of many that was not asked a third time
        ([FINE, *calm(503, 503, 503)], Outcome.PASS),  # 'not now' is no crash
        ([FINE, *calm(501, 501, 501)], Outcome.PASS),
        ([FINE, *calm(None, None, None, error="timeout")], Outcome.FAIL),
        ([FINE, *calm(None, None, None, error="closed")], Outcome.PASS),
        ([FINE, *calm(200, 200, 200, error="unfinished")], Outcome.PASS),  # a stream
        ([FINE, *calm(500, 500, 500, row="answer/none/0")], Outcome.PASS),  # nothing says that it is wrong
        ([FINE, *calm(500, 500, 500, row="unstorable/none/0")], Outcome.PASS),  # no twin
        ([FINE, *calm(500, 500, 500, row="unstorable/none/0"), asked("twin", 500)], Outcome.PASS),
        ([FINE, *calm(500, 500, 500, row="unstorable/none/0"), asked("twin", 200)], Outcome.FAIL),
    ],
)
def test_with_nothing_broken(operations, outcome):
    assert one("steady", *operations).outcome is outcome


def test_a_target_that_is_not_well_proves_nothing():
    assert one("steady", FINE, *calm(500, 500, 500), control="GET /one: 503").outcome is Outcome.PASS


def test_a_description_that_lies_is_told():
    found = one("steady", FINE, *calm(200, 200, row="schema/none/200"), ghosts="GET /ghost")
    assert found.outcome is Outcome.PASS
    assert "1 that the description calls invalid were served" in found.detail
    assert "GET /ghost" in found.detail


def test_a_description_that_cannot_be_used_is_one_finding():
    found = judge(history("steady", FINE, openapi="openapi.yaml:3: neither JSON nor YAML"), LIMITS)
    assert [(each.check, each.outcome) for each in found if each.gate != "rel.error_schema"] == [
        ("corpus.steady", Outcome.PASS),
        ("openapi.corpus.steady", Outcome.INCONCLUSIVE),
    ]
    under_fault = judge(history("fault", asked("fault", 400), openapi="x"), LIMITS)
    assert [each.gate for each in under_fault if each.gate != "rel.error_schema"] == ["rel.no_400_to_500"]


@pytest.mark.parametrize(
    ("row", "status", "again", "outcome"),
    [
        ("answer/none/404", 400, None, Outcome.PASS),
        ("answer/none/404", 500, None, Outcome.FAIL),
        ("answer/none/404", 503, 503, Outcome.FAIL),
        ("answer/none/404", 503, 404, Outcome.PASS),  # a moment's
        ("answer/none/404", 501, None, Outcome.PASS),
        ("answer/some/404", 503, 503, Outcome.PASS),  # honest: it cannot know
        ("answer/some/404", 500, 500, Outcome.PASS),  # told; a good request would get the same
        ("answer/unknown/404", 500, 500, Outcome.PASS),
        ("schema/some/400", 503, 503, Outcome.PASS),  # who asks comes before what is asked
        ("schema/some/400", 500, 500, Outcome.FAIL),
        ("schema/unknown/400", 502, 502, Outcome.FAIL),
        ("listed/some/400", 503, 400, Outcome.FAIL),
        ("schema/none/400", None, None, Outcome.PASS),
    ],
)
def test_under_a_fault(row, status, again, outcome):
    operations = [asked("fault", 400, key="generated[0]"), asked("fault", status, row)]
    operations += [asked("repeat", again, row)] if again else []
    found = one("fault", *operations)
    assert found.outcome is outcome, found.detail
    assert found.bad == int(outcome is Outcome.FAIL)


def test_what_is_told_and_not_counted():
    operations = [
        asked("fault", 400, key="generated[0]"),
        asked("fault", 503, "answer/some/404", key="generated[2]"),
        asked("fault", 503, "answer/some/404", key="generated[3]", retry_after="1"),
        asked("fault", 500, "answer/some/404", key="generated[4]"),
        asked("fault", 200, "answer/none/404", key="generated[5]"),
        asked("fault", None, "answer/none/404", key="generated[6]", error="timeout"),
    ]
    detail = one("fault", *operations).detail
    for text in (
        "2 that need the database were answered 503", "1 of these without Retry-After", "1 whose 4xx needs the database got another 5xx",
        "1 became a 2xx", "1 got no answer",
    ):  # fmt: skip
        assert text in detail


def test_a_fault_without_effect_or_without_answers_proves_nothing():
    assert one("fault", asked("fault", 400), took=False).outcome is Outcome.INCONCLUSIVE
    assert one("fault", asked("fault", None, error="timeout")).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("row", "there", "again", "after", "outcome"),
    [
        ("schema/none/422", 422, None, None, Outcome.PASS),
        ("schema/none/422", 500, 500, 422, Outcome.FAIL),
        ("answer/some/404", 500, 500, 404, Outcome.FAIL),
        ("schema/none/422", 500, 422, 422, Outcome.PASS),
        ("schema/none/422", 500, 500, 500, Outcome.PASS),  # the baseline as well, by now
        ("schema/none/422", 503, 503, 422, Outcome.FAIL),
        ("schema/none/422", 200, 200, 422, Outcome.PASS),  # told: it may be meant
        ("listed/none/422", 200, 200, 422, Outcome.FAIL),
        ("answer/none/200", 400, 400, 200, Outcome.PASS),  # told
        ("schema/none/422", None, None, 422, Outcome.FAIL),
    ],
)
def test_the_candidate_beside_the_baseline(row, there, again, after, outcome):
    operations = [asked("candidate", 400, key="generated[0]"), asked("candidate", there, row, error="" if there else "timeout")]
    if after:
        operations += [
            asked("candidate again", again, row, error="" if again else "timeout"),
            asked("baseline again", after, row),
        ]
    assert one("candidate", *operations).outcome is outcome


def test_a_flip_shows_how_to_see_it():
    reduced = {
        "key": "generated[1]", "request": "GET /items/x", "status": "500", "request_id": "r-1", "log": "it broke", "why": "schema: path id",
        "curl": "curl -i http://127.0.0.1:1/items/x", "smaller": "90 -> 8 bytes in 4 steps", "fault": "connections refused",
    }  # fmt: skip
    found = one("fault", asked("fault", 500, "answer/none/404"), reduced=json.dumps([reduced]))
    (example,) = found.examples
    for text in ("GET /items/x -> 500", "connections refused", "r-1", "it broke", "curl -i", "90 -> 8 bytes"):
        assert text in example
