from __future__ import annotations

import math
import re
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest

from chaos.evidence import binned, charts, report, schema, series, streak
from chaos.evidence.store import Store
from chaos.hours import Colour, Judged
from chaos.model import Connection, Finding, History, Kind, Operation, Outcome, Verdict, Window
from tests.unit import evidence_sample, soak_sample
from tests.unit.evidence_sample import SECRET, START

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Every element with its attributes, and whether all that was opened was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).replace("\N{NO-BREAK SPACE}", " ").split()).replace(" .", ".")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return evidence_sample.store(tmp_path_factory.mktemp("store"), rounds=2, rate=30)


@pytest.fixture(scope="module")
def page(store):
    return report.report(replace(evidence_sample.run(), recordings=store.recordings))


@pytest.fixture(scope="module")
def parsed(page):
    return Page(page)


def test_the_page_is_well_formed_and_asks_nobody_for_anything(page, parsed):
    assert parsed.open == []
    assert not {"script", "link", "img", "iframe", "object", "video", "audio", "base"} & {tag for tag, _ in parsed.elements}
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert all(reference.startswith("#") for reference in re.findall(r"url\(\s*['\"]?([^)]*)", page))
    assert "@import" not in page
    assert not re.findall(r"https?://(?!www\.w3\.org/)[^\s\"'<]+", page)  # no address at all; w3.org are XML's own names
    assert "default-src 'none'" in page


def test_the_page_can_be_read_with_any_tool(parsed):
    assert parsed.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in parsed.elements].count("h1") == 1
    for landmark in ("header", "nav", "main", "footer"):
        assert len(parsed.all(landmark)) == 1
    ids = Counter(attributes["id"] for _, attributes in parsed.elements if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for _, attributes in parsed.elements:
        for name in attributes.get("aria-labelledby", "").split():
            assert name in ids
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    assert all(attributes.get("scope") in {"col", "row"} for attributes in parsed.all("th"))
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in parsed.all("svg"))
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


def test_verdict_first_then_gates_then_failures_then_what_was_not_proven(parsed):
    said = parsed.said
    marks = ["NO-GO 2 gates failed", "Gates", "rel.no_400_to_500", "Failures", "Latency and faults", "Time to recover",
             "Handshakes and retries on the wire", "Not proven, and what would prove it", "Environment, and how to run it again"]  # fmt: skip
    places = [said.index(mark, said.index("NO-GO 2 gates") if number else 0) for number, mark in enumerate(marks)]
    assert places == sorted(places)
    for part in (
        "max_connections reached. It was seen to take effect.",
        "success holds from recovery = 10 s after the fault has gone (chaos.toml [target.database])",
        "answered 503 after 2.01 s, expected 400",
        "chaos-gate run --only pool.slots --seed 81723",
        "chaos-gate run --profile quick --seed 81723",
        "PostgreSQL 17.10 (TLS 1.3)",
        "2 cores, Linux 6.1, x86_64",
        "the review board, until 2026-12-31",
        "This run had to settle these, and could not",
    ):
        assert part in said, part


def test_a_target_s_own_words_stay_words(page, parsed):
    assert "<script" not in page
    assert "<script>alert(1)</script>" in parsed.said
    assert SECRET not in page


def test_the_drawings_hold_what_they_say(page, parsed, store):
    count = sum(one.kind in series.TIMED for history in store.histories() for one in history.operations)
    assert f"{count:,} requests by 4 workers" in parsed.said
    assert "got no whole answer" in parsed.said
    assert "Serving again after 21 of 22 faults" in parsed.said
    assert len(parsed.all("svg")) == 10  # each of five, wide and narrow
    assert "#0a00" not in page  # every colour became one of the page's own
    names = set(re.findall(r"var\(--([a-z-]+)\)", page))
    assert names <= set(re.findall(r"--([a-z-]+):", page))
    assert page.count("<title>") > 24  # and a tool tip for each window
    assert len(page) < 3_000_000


# -- colours: WCAG 2.2, 1.4.3 (text 4.5:1) and 1.4.11 (what is drawn 3:1) ------------------------------------------------------------


def palettes() -> dict[str, dict[str, str]]:
    css = files("chaos.evidence").joinpath("templates/report.css").read_text(encoding="utf-8")
    blocks = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(blocks) == 3
    light, dark, paper = blocks
    return {"light": light, "dark": light | dark, "print": light | paper}


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        color = color.lstrip("#")
        color = "".join(char * 2 for char in color) if len(color) == 3 else color
        parts = [int(color[index : index + 2], 16) / 255 for index in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
def test_all_text_and_all_marks_can_be_seen(name):
    colors = palettes()[name]
    texts = [(ink, ground) for ink in ("ink", "muted", "link") for ground in ("bg", "panel", "soft")]
    texts += [(tone, ground) for tone in ("pass", "fail", "open", "waived", "none") for ground in (f"{tone}-bg", "panel")]
    texts += [("ink", "open-bg"), ("muted", "shade")]
    marks = [(mark, ground) for mark in ("good", "silent", "hostile") for ground in ("panel", "shade")]
    marks += [("refused", "panel"), ("limit", "panel")]
    weak = [
        (one, two, round(contrast(colors[one], colors[two]), 2)) for one, two in texts if contrast(colors[one], colors[two]) < 4.5
    ]
    weak += [
        (one, two, round(contrast(colors[one], colors[two]), 2)) for one, two in marks if contrast(colors[one], colors[two]) < 3
    ]
    assert weak == []


# -- at the edges --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clear", "go", "inconclusive", "environment"])
def test_every_verdict_has_its_page(store, kind):
    run = replace(evidence_sample.run(kind), recordings=store.recordings)
    said = Page(report.report(run)).said
    assert run.verdict.value in said
    assert ("The environment failed" in said) == (kind == "environment")
    assert "FATAL: out of memory" in said or kind != "environment"
    assert "Failures" not in said


def test_a_run_of_nothing_still_has_a_report():
    run = replace(
        evidence_sample.run("inconclusive"), gates=(), findings=(), parts={}, finished=START, verdict=Verdict.INCONCLUSIVE
    )
    parsed = Page(report.report(run, damaged=["gw1.sqlite: experiment 3 cannot be read"]))
    assert "No gate was judged" in parsed.said
    assert "experiment 3 cannot be read" in parsed.said
    assert not parsed.all("svg")


def test_histories_without_traffic_without_an_end_and_with_odd_clocks():
    def recordings():
        yield "gw0", History(experiment="a", started=START)
        yield "gw0", History(experiment="b", started=START + 1, windows=(Window(fault="f", scope="s", injected=START + 1),))
        odd = Operation(kind=Kind.READ, method="GET", path="/", sample="r", started=START - 5, finished=START - 6, ok=True)
        wire = Connection(id=1, opened=START + 99, behaviour="impostor:C1")
        yield "gw1", History(experiment="c", started=START + 2, finished=START + 1, operations=(odd,), connections=(wire,))

    run = replace(evidence_sample.run(), finished=START + 3, recordings=recordings)
    said = Page(report.report(run)).said
    assert "1 request by 2 workers" in said
    assert "not asked" in said
    assert "could not be drawn" not in said


def test_hundreds_of_failures_stay_a_page():
    one = evidence_sample.run().failures[0]
    many = tuple(replace(one, check=f"check-{number}", examples=("e" * 300,) * 50) for number in range(400))
    page = report.report(replace(evidence_sample.run(), findings=many))
    assert len(page) < 1_000_000
    assert "340 more failures" in page
    assert page.count("and 42 more") == 60


def test_a_chart_that_cannot_be_drawn_costs_no_verdict(store, monkeypatch):
    def broken(*_):
        raise ValueError("no font")

    monkeypatch.setattr(charts, "latency", broken)
    said = Page(report.report(replace(evidence_sample.run(), recordings=store.recordings))).said
    assert "could not be drawn (ValueError: no font)" in said
    assert "Time to recover" in said
    assert "NO-GO 2 gates failed" in said


def test_what_changed_since_the_last_run():
    before = schema.evidence_of(evidence_sample.run("clear"))
    said = Page(report.report(evidence_sample.run(), before=before)).said
    assert "The last run of this target and profile ended CLEAR (2026-11-24, seed 81723)" in said
    assert "res.pool PASS → , now FAIL" in said
    same = schema.evidence_of(evidence_sample.run())
    assert "Every gate has the verdict that it had" in Page(report.report(evidence_sample.run(), before=same)).said


# -- what is drawn -------------------------------------------------------------------------------------------------------------------


def test_the_points_of_a_long_run_are_bounded_and_none_that_can_be_seen_is_lost():
    def read(number: int, *, ok: bool = True) -> Operation:
        at = START + number * 0.01
        seconds = 0.005 * (1 + number % 7)
        return Operation(
            kind=Kind.READ,
            method="GET",
            path="/",
            sample="r",
            started=at,
            finished=at + seconds,
            ok=ok,
            status=200 if ok else None,
        )

    operations = tuple(read(number, ok=number != 31_415) for number in range(60_000))
    found = series.collect(
        [("gw0", History(experiment="x", started=START, operations=operations))], started=START, finished=START + 600
    )
    lane = found.lanes["gw0"]
    assert len(lane.good) <= (series.COLUMNS + 1) * 8
    assert len(lane.silent) == 1  # one bad answer among 60,000 is on the drawing
    cells = {(round((one.started - START) / 0.6), round(math.log10(one.seconds) * 20)) for one in operations if one.ok}
    drawn = {(round(x / 0.6), round(math.log10(y) * 20)) for x, y in lane.good.values()}
    assert len(cells - drawn) / len(cells) < 0.5
    assert found.quantile(0.5) == pytest.approx(0.02, abs=1e-6)
    assert found.counts["failed outside"] == 1


def test_recovery_in_the_chart_is_the_check_s_own(store):
    found = series.collect(store.recordings(), started=START, finished=START + 80)
    rows = dict(charts.recovery_rows(found))
    assert rows["max_connections reached"].count(None) == 1
    assert all(value is not None and 0 < value < 3 for value in rows["black hole"])
    assert "cut in mid-stream" not in rows  # it did not take effect: there was nothing to recover from
    assert [one.number for one in found.faults] == list(range(1, 25))


def test_the_connections_of_every_second_add_up(store):
    found = series.collect(store.recordings(), started=START, finished=START + 80)
    width, rates = series.arrivals(found)
    total = sum(len(history.connections) for history in store.histories())
    assert sum(sum(rate) for rate in rates.values()) * width == pytest.approx(total)
    kinds = Counter(kind for _, kind in found.sessions)
    assert sum(rates["hostile"]) * width == pytest.approx(kinds["hostile"])


def test_the_whole_report_of_twenty_thousand_requests_in_seconds(tmp_path):
    made = evidence_sample.store(tmp_path, rounds=4, rate=90)
    with Store(made.path) as opened:
        run = replace(evidence_sample.run(), recordings=opened.recordings)
        start = time.process_time()
        page = report.report(run)
        spent = time.process_time() - start
    assert spent < 15  # seconds of one core that others share; 2.7 measured alone
    assert len(page) < 3_000_000


def test_a_finding_of_a_gate_that_no_file_knows():
    finding = Finding(check="own", gate="team.own", outcome=Outcome.FAIL, detail="d")
    said = Page(report.report(replace(evidence_sample.run(), findings=(finding,)))).said
    assert "team.own" in said
    assert "chaos-gate run --only own --seed 81723" in said


# -- long runs -----------------------------------------------------------------------------------------------------------------------


def soak_page(hours):
    recorded = [("soak", history) for history in soak_sample.minutes(hours)]
    run = replace(evidence_sample.run("go"), finished=START + hours * 3600, recordings=lambda: recorded)
    begun = time.process_time()
    read = report.read(run)
    read.hours = tuple(
        Judged(number, Colour.RED if number == 7 else Colour.GREEN, "rel.p95: too slow") for number in range(hours)
    )
    page = report.report(run, series=read)
    return page, read, time.process_time() - begun


def test_three_days_are_a_page_made_in_seconds():
    page, read, spent = soak_page(72)
    assert spent < 20  # seconds of one core that others share; 3.7 measured alone
    assert len(page) < 1_500_000
    said = Page(page).said
    asked = sum(one[2] for one in soak_sample.SAMPLES) * 72 * 60
    assert f"of {asked:,} requests that were due came to no good" in said
    assert "by stretches of 1 hour" in said
    assert "target.memory 192 MiB at first" in said
    assert "64 green hours in a row (48 are wanted)" in said
    assert "Hour 7 RED rel.p95: too slow" in said
    assert "could not be drawn" not in said
    assert len(read.long.asked) <= binned.MOST
    assert all(len(bins) <= binned.MOST for bins in read.long.gauges.values())
    quantiles = read.long.quantiles("")
    assert len(quantiles) == 72
    assert all(0.009 < half < 0.013 < slow < 0.04 for _, (half, slow, _) in quantiles)


def test_a_long_run_draws_no_more_than_a_short_one():
    short, long = soak_page(9)[0], soak_page(36)[0]
    assert len(long) < len(short) * 1.5
    assert len(Page(long).all("svg")) == len(Page(short).all("svg"))


def test_stretches_hold_all_whatever_the_order_and_however_many():
    moments = [START + offset for offset in (0, 5e5, -3e4, 1, 7, 4e6, 4e6 + 1, 2e6)]
    bins = binned.Bins(binned.Level)
    for number, moment in enumerate(moments):
        bins.at(moment).add(binned.Level(number, number, number, 1))
        assert len(bins) <= binned.MOST
    held = [one for _, one in bins.items()]
    assert sum(one.count for one in held) == len(moments)
    assert sum(one.total for one in held) == sum(range(len(moments)))
    begins = [begin for begin, _ in bins.items()]
    assert all(any(begin <= moment < begin + bins.width for moment in moments) for begin in begins)


def test_where_something_was_broken_is_shaded_and_bounded():
    def fault(start, end):
        return series.Fault(1, "w", start, end, "f", "t", "s", took=True, recovered=None, healed=True)

    assert charts.shaded([], 100.0) == []
    [(begin, end)] = charts.shaded([fault(10, 20), fault(15, 30)], 100.0)
    assert begin == pytest.approx(10, abs=0.5)
    assert end == pytest.approx(30, abs=0.5)
    assert len(charts.shaded([fault(n, n + 0.1) for n in range(0, 100_000, 3)], 100_000.0)) <= charts.SPANS
    assert charts.shaded([fault(50, 60)], 100.0, offset=200.0) == []
    [(begin, _)] = charts.shaded([fault(50, 60)], 100.0, offset=40.0)
    assert begin == pytest.approx(10, abs=0.5)
    assert charts.shaded([fault(150, 160)], 100.0) == []


def test_an_hour_that_nobody_looked_at_is_in_the_strip():
    made = streak.strip([Judged(0, Colour.GREEN), Judged(3, Colour.GREEN)])
    assert [(one.number, one.word) for one in made.cells] == [(0, "GREEN"), (1, "GREY"), (2, "GREY"), (3, "GREEN")]
    assert made.reasons[0].why == "was not looked at"
    assert streak.strip([]) is None
    many = streak.strip([Judged(number, Colour.GREY, "why") for number in range(400)])
    assert len(many.cells) == streak.MOST_HOURS
    assert many.more == 400 - streak.MOST_REASONS
    assert "Of 400 hours" in many.said


def test_a_roll_out_is_told_step_by_step():
    def step(weight, decision, **facts):
        facts |= {"family": "canary", "weight": weight, "decision": decision}
        return "canary", History(experiment=f"canary.{weight}", started=START, finished=START + 300, facts=facts)

    recorded = [step("5", "promote"), step("25", "pause", why="5xx: e-process 140"), step('x"><b>', "hold")]
    finding = Finding(check="canary", gate="roll.canary", outcome=Outcome.PASS, detail="proven at 5 %", experiment="canary.5")
    run = replace(evidence_sample.run("clear"), findings=(finding,), recordings=lambda: recorded)
    page = report.report(run)
    said = Page(page).said
    assert "5 % PROMOTE 5 min proven at 5 %" in said
    assert "25 % PAUSE 5 min 5xx: e-process 140" in said
    assert "0 % HOLD" in said
    assert "<b>" not in page.replace("<b>", "", 5) or '"><b>' not in page


def test_what_became_of_each_gate_since_the_last_run():
    before = schema.evidence_of(evidence_sample.run("clear"))
    parsed = Page(report.report(evidence_sample.run(), before=before))
    assert "was PASS" in parsed.said
    assert "as before" in parsed.said
    assert "as before" not in Page(report.report(evidence_sample.run())).said
    gate = evidence_sample.run().gates[0]
    assert report._was(replace(gate, measured=3.0, n=5), replace(gate, measured=1.0, n=5)) == "was 1"
    assert report._was(gate, None) == "new"


def test_what_would_settle_a_gate_is_told_with_the_line_that_tries_again():
    run = replace(evidence_sample.run(), verdict=Verdict.INCONCLUSIVE)
    assert "chaos-gate run --only network.cut.pooled --seed 81723" in Page(report.report(run)).said
