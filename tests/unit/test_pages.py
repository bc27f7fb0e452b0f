"""Every page of ours in a real Chromium: nothing on the console, no request to anywhere, and nothing serious that axe finds.

A page more is a line more in PAGES: its name, and what makes it in a directory (the path of the file).
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

import pytest

from chaos.evidence import bundle, report, schema, scorecard, summary
from chaos.evidence.disk import write_text
from chaos.export import soc2, trust
from chaos.faults.wire.rows import BY_ID
from chaos.gates import load
from chaos.hours import Colour, Judged
from chaos.matrix import show
from chaos.matrix.drivers import Driver
from chaos.matrix.trials import Cell, Result
from chaos.model import History, Rung
from chaos.pack import INDEX, PARTS, Part, pack
from chaos.recheck import write_template
from chaos.soak.status import html as status_page
from tests.browser import browser, opened, seen_as, too_wide, violations  # noqa: F401  (a fixture)
from tests.unit import evidence_sample, soak_sample
from tests.unit.evidence_sample import START
from tests.unit.test_soak import SOME

VIEWS = {
    "narrow": {"width": 390},
    "dark": {"scheme": "dark"},
    "wide": {},
    "narrow and dark": {"width": 390, "scheme": "dark"},
    "print": {"media": "print"},
}
ALL = os.environ.get("CHAOS_DETECTION") == "all"
LOOKED = list(VIEWS) if ALL else ["narrow", "dark"]  # both widths and both schemes; axe takes a second a view


def written(directory, text):
    path = directory / "page.html"
    write_text(path, text)
    return path


@cache
def recorded():
    return tuple(evidence_sample.histories(rounds=1, rate=20))


def a_report(kind, recordings=tuple):
    """Without drawings, unless it is given recordings: they are the same in all kinds."""

    def make(directory):
        run = replace(evidence_sample.run(kind), recordings=recordings)
        before = schema.evidence_of(evidence_sample.run("clear"))
        return written(directory, report.report(run, before=before, damaged=["gw1.sqlite: experiment 3 cannot be read"]))

    return make


def a_soak(directory):
    hours = 30
    minutes = [("soak", history) for history in soak_sample.minutes(hours)]
    run = replace(evidence_sample.run("go"), finished=START + hours * 3600, recordings=lambda: minutes)
    large = {"n": 13_857_885, "bound": (0.0, 1e-9), "threshold": "P95 <= 120 ms", "measured": 0.0}
    run = replace(run, gates=tuple(replace(one, **large) if one.id.startswith("rel.p") else one for one in run.gates))
    series = report.read(run)
    series.hours = tuple(Judged(number, list(Colour)[number % 7 % 3], "why it is so") for number in range(hours))
    return written(directory, report.report(run, series=series))


def a_roll_out(directory):
    steps = [
        History(experiment=f"canary.{weight}", started=START, finished=START + 60,
                facts={"family": "canary", "weight": weight, "decision": decision, "why": "5xx: 12 of 400, e-process 140"})
        for weight, decision in (("5", "promote"), ("25", "hold"), ("25", "pause"))
    ]  # fmt: skip
    run = replace(evidence_sample.run("clear"), profile="canary", recordings=lambda: [("canary", one) for one in steps])
    return written(directory, report.report(run))


def a_scorecard(kind):
    return lambda directory: scorecard.write(directory, scorecard.card(evidence_sample.run(kind)))[1]


def a_summary(directory):
    summary.write(directory, evidence_sample.run("no-go"))
    return directory / "summary.html"


def controls(directory):
    return written(directory, soc2.as_page(schema.evidence_of(evidence_sample.run("no-go")), "d" * 64, load()))


def for_customers(name):
    def make(directory):
        write_text(directory / "evidence.json", schema.evidence_json(evidence_sample.run("go")))
        evidence_sample.store(directory, rounds=1, rate=5).close()
        made = trust.write(directory, directory / "trust", origin="signed by somebody")
        return next(one for one in made if one.stem == name)

    return make


def a_pack(directory):
    place = directory / "evidence"
    with evidence_sample.store(place, rounds=1, rate=20) as store:
        bundle.write(place, evidence_sample.run("clear"), store, latest=False)
    parts = (*(one for one in PARTS if one.files), Part("Nothing", "for nobody", command=("nothing",)))
    return pack(place, directory / "pack", None, parts)[0] / INDEX


def a_matrix(directory):
    outcomes = ("holds", "gives", "refuses", "hangs", "n/a", "unproven")
    modes = {"strict": {}, "default": {}}
    cells = tuple(
        Cell(driver="d", mode=mode, row=row, outcome=outcomes[(number + len(mode)) % 6], reached=Rung.STARTUP, answer="no")
        for number, row in enumerate(list(BY_ID)[:24])
        for mode in modes
    )
    found = [
        Result(driver=Driver(name="d", command=("x",), modes=modes), version="1", cells=cells),
        Result(driver=Driver(name="e", command=("y",), modes=modes), missing="gone"),
    ]
    return written(directory, show.page(BY_ID, found, {"PostgreSQL": "17.10"}))


PAGES = {
    "report, NO-GO": a_report("no-go", recorded),
    "report, CLEAR": a_report("clear"),
    "report, INCONCLUSIVE": a_report("inconclusive"),
    "report, environment": a_report("environment"),
    "report, soak": a_soak,
    "report, canary": a_roll_out,
    "scorecard, NO-GO": a_scorecard("no-go"),
    "scorecard, GO": a_scorecard("go"),
    "scorecard, template": lambda directory: write_template(None, directory)[1],
    "summary": a_summary,
    "controls": controls,
    **{f"for customers, {name}": for_customers(name) for name in trust.PAGES},
    "pack": a_pack,
    "a soak's status": lambda directory: written(directory, status_page(SOME)),
    "driver matrix": a_matrix,
}


@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_read_it(browser, tmp_path, name):  # noqa: F811
    path = PAGES[name](tmp_path)
    found = {}
    with opened(browser, path) as page, opened(browser, path, scripts=False) as without:
        assert page.locator("script").count() == 0
        assert without.inner_text("body") == page.inner_text("body")
        for view, how in VIEWS.items():
            seen_as(page, **how)
            found[view] = violations(page) if view in LOOKED else []
            found[view] += [("wider than the window", too_wide(page))] if too_wide(page) else []
    assert found == {view: [] for view in VIEWS}


@pytest.mark.parametrize("defect", ["<img src='data:,'>", "<p style='color:#999;background:#fff'>pale</p>", "<button></button>"])
def test_a_page_that_not_everybody_can_read_is_found(browser, tmp_path, defect):  # noqa: F811
    path = written(tmp_path, f"<!doctype html><html lang='en'><title>t</title><main><h1>t</h1>{defect}</main></html>")
    with opened(browser, path) as page:
        assert violations(page)


@pytest.mark.parametrize("defect", ["<script>console.error('x')</script>", "<img alt='' src='http://127.0.0.1:9/x.png'>"])
def test_a_page_that_complains_or_asks_somebody_is_found(browser, tmp_path, defect):  # noqa: F811
    path = written(tmp_path, f"<!doctype html><html lang='en'><title>t</title>{defect}</html>")
    with pytest.raises(AssertionError), opened(browser, path) as page:
        page.wait_for_load_state()
