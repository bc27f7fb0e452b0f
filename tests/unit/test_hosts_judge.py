"""What answers come to, on recorded operations alone: the rules of served and refused, and of which gate a defect belongs to."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from chaos.checks import hosts
from chaos.config.rules import rows as known_rows
from chaos.model import Finding, History, Kind, Layer, Operation, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

PROBLEM = '{"title": "Unknown host", "status": 400}'


def asked(row: str, status: int | None = 400, *, body: str = PROBLEM, media: str = "application/problem+json", error: str = "",
          sample: str = "Host: evil.example", evil: str = "", path: str = "/items/1") -> Operation:  # fmt: skip
    layer = Layer.APPLICATION if status is not None else Layer.NOBODY
    return Operation(kind=Kind.HOST, method="GET", path=path, sample=sample, started=1.0, finished=1.1, status=status, body=body,
                     media_type=media, error=error, row=row, unique=evil, layer=layer)  # fmt: skip


GOOD = asked("H61", 200, body="", sample="allowed api.example.test")
ROWS = {"unknown": "H01", "absent": "H04", "bad": "H10"}


def judged(*operations: Operation, **policy: str) -> dict[str, Finding]:
    history = History(experiment="hosts", started=0.0, operations=(GOOD, *operations, GOOD))
    return {one.check: one for one in hosts.judge(history, policy=policy)}


def reds(found: dict[str, Finding]) -> set[str]:
    return {one.gate for one in found.values() if one.outcome is Outcome.FAIL}


def many(row: str, count: int, **more: object) -> Sequence[Operation]:
    return [asked(row, **more)] * count  # type: ignore[arg-type]  # what `asked` takes


def test_the_catalogue_is_whole() -> None:
    ids = {row.id for row in hosts.rows()}
    expected = {f"H{number:02}" for number in (*range(1, 51), *range(61, 74))}
    assert expected <= ids
    for row in hosts.rows():
        assert row.title
        assert row.skip or (row.must in {"refuse", "serve", "ignore", "policy"} and row.why and row.kind)
        if row.must == "policy":
            assert row.id in known_rows()  # or [policy] could not name it


def test_placeholders_of_the_catalogue_are_known() -> None:
    text = files("chaos").joinpath("checks", "hosts.toml").read_text(encoding="utf-8")
    known = set(
        "g G g% e w path health near close label a2z apex other path_query headers base page PAGE probe invalid document ops".split()
    )
    for key, row in tomllib.loads(text).items():
        sent = " ".join(str(row.get(one, "")) for one in ("host", "lines", "start", "more", "body", "paths", "raw"))
        assert set(re.findall(r"\{([^}]+)\}", sent)) <= known, key


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        (400, "", Outcome.PASS),
        (404, "", Outcome.PASS),  # not served; that it is no 400 is another gate's
        (None, "closed", Outcome.PASS),
        (301, "", Outcome.PASS),
        (301, "reflected in location: https://evil.example/", Outcome.FAIL),
        (200, "", Outcome.FAIL),
        (204, "", Outcome.FAIL),
        (101, "", Outcome.FAIL),
        (200, "truncated", Outcome.FAIL),
    ],
)
def test_refuse(status: int | None, error: str, outcome: Outcome) -> None:
    finding = judged(asked("H07", status, error=error, evil="evil.example"))["H07"]
    assert (finding.outcome, finding.gate) == (outcome, "sec.unknown_host_2xx")
    assert (finding.n, finding.bad) == (1, int(outcome is Outcome.FAIL))


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, "", Outcome.PASS),
        (302, "", Outcome.PASS),
        (401, "{}", Outcome.PASS),
        (404, '{"title": "Not found", "status": 404}', Outcome.PASS),  # a landing page's host without this page
        (400, PROBLEM, Outcome.FAIL),
        (403, "Blocked", Outcome.FAIL),
        (421, "", Outcome.FAIL),
        (None, "", Outcome.FAIL),
        (503, "", Outcome.INCONCLUSIVE),
        (429, "", Outcome.INCONCLUSIVE),
        (500, "", Outcome.INCONCLUSIVE),
    ],
)
def test_serve(status: int | None, body: str, outcome: Outcome) -> None:
    finding = judged(asked("H01"), asked("H65", status, body=body, sample="seo *.l.test, asked as a.l.test"))["H65"]
    assert (finding.outcome, finding.gate) == (outcome, "sec.host_allowlist")


def test_a_refusal_that_looks_like_an_unknown_page_does_not_tell() -> None:
    refusal = '{"title": "Not found", "detail": "nothing at evil-1.example, request 7f3a"}'
    page = '{"title": "Not found", "detail": "nothing at a.l.test, request 7f3b"}'
    found = judged(
        asked("H01", 404, body=refusal.replace("7f3a", "12"), sample="Host: evil-1.example", evil="evil-1.example"),
        asked("H65", 404, body=page.replace("7f3b", "13"), sample="seo *.l.test, asked as a.l.test"),
    )
    assert found["H65"].outcome is Outcome.INCONCLUSIVE
    assert "does not tell" in found["H65"].detail


def test_rates_by_class_and_nothing_of_what_was_served() -> None:
    found = judged(
        *many("H01", 400),
        *many("H04", 300, status=None, error="closed"),
        *many("H10", 320),
        *many("H13", 30, status=200),
        *many("H11", 10, status=429),
    )
    unknown, absent, bad = (found[f"hosts.400.{kind}"] for kind in ("unknown", "absent", "bad"))
    assert (unknown.outcome, unknown.n, unknown.bad) == (Outcome.PASS, 400, 0)
    assert (absent.outcome, absent.n, absent.bad) == (Outcome.FAIL, 300, 300)
    assert (bad.outcome, bad.n, bad.bad) == (Outcome.PASS, 320, 0)
    assert "30 more were not refused at all" in bad.detail
    assert "10 more were answered 429 or 503" in bad.detail
    assert found["H13"].outcome is Outcome.FAIL


def test_rates_are_what_the_gate_needs() -> None:
    history = History(experiment="hosts", started=0.0, operations=(*many("H02", 3), *many("H03", 2, status=404), *many("H06", 1)))
    assert hosts.rates(history) == {"sec.unknown_host_400": [("unknown", 2, 5), ("absent", 0, 1), ("bad", 0, 0)]}


def test_few_refusals_prove_nothing() -> None:
    found = judged(*many("H01", 100))
    assert found["hosts.400.unknown"].outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("kind", ["unknown", "absent", "bad"])
def test_a_redirect_to_the_unknown_host_is_one_defect(kind: str) -> None:
    """No Host and a bad port have no evil name to be redirected to; the same redirect all the same."""
    others = many(ROWS[kind], 300, status=301) if kind != "unknown" else []
    found = judged(
        *many("H01", 300, status=301, error="reflected in location: https://evil.example/", evil="evil.example"), *others
    )
    assert reds(found) == {"sec.unknown_host_2xx"}


def test_policy_rows() -> None:
    served, refused = asked("H64", 200, body=""), asked("H64")
    for one, how in ((served, "served"), (refused, "refused")):
        finding = judged(one)["H64"]
        assert (finding.outcome, finding.n) == (Outcome.NOT_APPLICABLE, 0)
        assert how in finding.detail
    assert judged(served, H64="reject")["H64"].outcome is Outcome.FAIL
    assert judged(served, H64="reject")["H64"].gate == "sec.unknown_host_2xx"
    assert judged(refused, H64="serve")["H64"].outcome is Outcome.FAIL
    assert judged(refused, H64="serve")["H64"].gate == "sec.host_allowlist"
    assert judged(refused, H64="report")["H64"].outcome is Outcome.NOT_APPLICABLE


def test_an_evil_name_that_comes_back_is_never_policy() -> None:
    built = asked("H32", 200, error="reflected in link: <https://evil.example>", evil="evil.example")
    reported, decided = judged(built), judged(built, H32="serve")
    assert (reported["H32"].outcome, reported["H32"].gate) == (Outcome.FAIL, "sec.pentest")
    assert decided["H32"].outcome is Outcome.PASS  # served, as decided
    assert decided["H46"].outcome is Outcome.FAIL  # what is built from it is not decided by that


def test_reflections() -> None:
    found = judged(
        asked("H35", 200, error="reflected in the body: https://evil.example/2", evil="evil.example"),
        asked("H36", 200, body="", evil="evil.example"),
        asked("H01", 400, error="reflected in set-cookie: a=b; Domain=evil.example", evil="evil.example"),
    )
    assert {key: found[key].outcome for key in ("H35", "H36", "H46")} == {
        "H35": Outcome.FAIL,
        "H36": Outcome.PASS,
        "H46": Outcome.FAIL,
    }
    assert reds(found) == {"sec.pentest"}
    assert "set-cookie" in found["H46"].examples[0]


def test_missing_data_is_inconclusive_and_what_cannot_be_asked_is_not() -> None:
    found = judged()
    assert found["H01"].outcome is Outcome.INCONCLUSIVE
    assert found["H07"].outcome is Outcome.INCONCLUSIVE
    assert found["H17"].outcome is Outcome.NOT_APPLICABLE  # no wildcard
    assert found["H69"].outcome is Outcome.NOT_APPLICABLE  # no health host
    assert found["H45"].outcome is Outcome.NOT_APPLICABLE
    assert "HTTP/2" in found["H45"].detail
    assert found["H46"].outcome is Outcome.INCONCLUSIVE


def test_a_sick_control_leaves_a_pass_open_and_a_failure_standing() -> None:
    sick = asked("H61", 500, body="", sample="allowed api.example.test")
    history = History(experiment="hosts", started=0.0, operations=(GOOD, asked("H01"), asked("H10", 200), sick))
    found = {one.check: one for one in hosts.judge(history)}
    assert found["H01"].outcome is Outcome.INCONCLUSIVE
    assert found["H10"].outcome is Outcome.FAIL
