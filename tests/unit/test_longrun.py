"""The account of a long run: each defect that a soak is there for is planted in made-up minutes, and has to go red for its own reason."""

from dataclasses import replace

import pytest

from chaos import gates
from chaos.checks import judge
from chaos.checks.longrun import Account, judge_run
from chaos.evidence.store import SEGMENTS, Segment, merge
from chaos.hours import Colour
from chaos.model import History, Interval, Kind, Outcome
from tests.unit.long_run import GATES, HOUR, LIMITS, MIX, START, Service, latency


def account(service):
    one = Account(LIMITS)
    for history in service.minutes():
        one.feed(history)
    return one


def of(found, check):
    return next(one for one in found if one.check == f"soak.{check}")


@pytest.fixture(scope="module")
def healthy():
    return account(Service())


def test_a_healthy_service_has_72_green_hours(healthy):
    assert healthy.streak().reached
    assert {one.colour for one in healthy.hours()} == {Colour.GREEN}
    assert {one.outcome for one in healthy.findings()} == {Outcome.PASS}
    assert healthy.anomalies() == ()
    results = {one.id: one.outcome for one in gates.judge(healthy.findings(), GATES)}
    for gate in ("rel.availability", "rel.error_budget", "rel.p95", "rel.p99", "sec.tls_handshake", "rep.go"):
        assert results[gate] is Outcome.PASS
    assert results["sec.unknown_host_2xx"] is results["sec.unknown_host_400"] is Outcome.PASS


def test_every_finding_says_how_it_is_shown_again_and_for_how_long_it_looked(healthy):
    found = of(healthy.findings(), "availability")
    assert found.seconds == 72 * HOUR
    assert found.rerun == "chaos-gate soak --hours 72 --seed 0"
    assert "7,200 of 8,640 while something was broken on purpose" in found.detail


def test_a_bad_hour_is_red_and_resets_the_streak():
    one = account(Service(failing=lambda number: 14 if number // 60 == 40 else 0))
    assert one.hours()[40].colour is Colour.RED
    assert (one.streak().longest, one.streak().now) == (40, 31)
    go = of(one.findings(), "streak")
    assert go.outcome is Outcome.FAIL
    assert "hour 40 was red, rel.availability" in go.detail
    assert "needs 17 more green hours" in go.detail


def test_a_bad_hour_early_on_leaves_48_behind_it():
    one = account(Service(failing=lambda number: 14 if number // 60 == 3 else 0))
    assert one.streak().reached
    # ... but one whole bad hour leaves the bound of a whole 72 hours' rate open
    assert of(one.findings(), "streak").outcome is Outcome.INCONCLUSIVE
    assert "the whole run does not prove rel.availability" in of(one.findings(), "streak").detail


def test_a_gap_pauses_the_streak():
    one = account(Service(hours=48, there=lambda number: number != 600))
    assert one.hours()[10].colour is Colour.GREY
    go = of(one.findings(), "streak")
    assert go.outcome is Outcome.INCONCLUSIVE
    assert "needs 11 more green hours; hour 10 was grey, only 83.3% of its seconds" in go.detail
    assert account(Service(hours=59, there=lambda number: number != 600)).streak().reached  # 48 hours after it


def test_a_short_gap_pauses_and_a_long_one_begins_anew():
    """A thousandth of 49 hours are 176 s: what nobody looked at might have been an outage."""
    minute, five = (account(Service(hours=49, every=1, there=lambda number, n=n: not 600 <= number < 600 + n)) for n in (1, 5))
    assert (minute.hours()[10].colour, five.hours()[10].colour) == (Colour.GREY, Colour.GREY)
    assert (minute.streak().longest, five.streak().longest) == (48, 38)
    assert "may be unseen" in of(five.findings(), "streak").detail


def test_an_hour_that_is_missing_as_a_whole_is_grey():
    one = account(Service(hours=6, there=lambda number: number // 60 != 2))
    assert [each.colour for each in one.hours()].count(Colour.GREY) == 1
    assert one.hours()[2].colour is Colour.GREY


def test_a_lost_machine_leaves_its_hour_grey():
    def minute(number):
        history = Service(hours=1, every=1, broken=lambda _: False).minute(number)
        other = tuple(replace(each, machine="second") for each in history.intervals)
        return replace(history, intervals=history.intervals + (other if number < 50 else ()))

    one = Account(LIMITS)
    for number in range(60):
        one.feed(minute(number))
    assert one.hours()[0].colour is Colour.GREY
    assert "83.3%" in one.hours()[0].why


def test_what_was_dropped_is_bad():
    def minute(number):
        history = Service(hours=1, every=1).minute(number)
        dropped = [replace(each, sent=each.planned - 60, good=each.planned - 60, dropped=60) for each in history.intervals[:1]]
        return replace(history, intervals=(*dropped, *history.intervals[1:]))

    one = Account(LIMITS)
    for number in range(60):
        one.feed(minute(number))
    assert one.rates["rel.availability"].bad == 3600
    assert one.hours()[0].colour is Colour.RED


def test_a_late_sender_makes_an_hour_grey_and_its_latencies_count_for_nothing():
    one = account(
        Service(hours=2, lag=lambda number: 0.05 if number < 60 else 0.0004, slow=lambda number: 100 if number < 60 else 2)
    )
    assert [each.colour for each in one.hours()] == [Colour.GREY, Colour.GREEN]
    assert "slipped" in one.hours()[0].why
    found = of(one.findings(), "p95")
    assert found.n == 60 * 480
    assert "6 of 12 records are left out" in found.detail


def test_reads_that_are_slow_make_an_hour_red():
    one = account(Service(hours=1, slow=lambda _: 60))
    assert one.hours()[0].colour is Colour.RED
    assert of(one.findings(), "p95").outcome is Outcome.FAIL
    assert of(one.findings(), "p99").outcome is Outcome.FAIL


def test_another_latency_limit_is_judged_from_the_histograms():
    one = Account(replace(LIMITS, seconds={"rel.p95": 0.008, "rel.p99": 0.5}))
    one.feed(Service(every=1).minute(0))
    assert 0.4 < one.rates["rel.p95"].bad / one.rates["rel.p95"].n < 0.6
    assert one.rates["rel.p99"].bad == 0


@pytest.mark.parametrize("field", ["lost", "let_in"])
def test_one_lost_write_and_one_unknown_host_served_make_an_hour_red(field):
    one = account(Service(hours=2, **{field: lambda number: int(number == 90)}))
    assert [each.colour for each in one.hours()] == [Colour.GREEN, Colour.RED]
    check = "writes" if field == "lost" else "hosts.2xx"
    assert of(one.findings(), check).outcome is Outcome.FAIL


def test_handshakes_count_only_where_nothing_was_broken():
    one = account(Service(hours=2, broken=lambda number: number == 30, handshakes=lambda number: (9, 9 * (number == 30))))
    assert one.rates["sec.tls_handshake"].bad == 0
    one = account(Service(hours=2, handshakes=lambda _: (9, 1)))
    assert gates.judge(one.findings(), GATES)[5].outcome is Outcome.FAIL


def test_unknown_hosts_answered_with_something_else():
    one = Account(LIMITS)
    statuses = {"400": 90, "404": 8, "503": 1, "timeout": 1}
    interval = Interval(
        started=START, seconds=60, sample="unknown-host", kind=Kind.HOST, planned=100, sent=100, statuses=statuses
    )
    one.feed(replace(Service().minute(0), intervals=(interval,)))
    rate = one.rates["sec.unknown_host_400"]
    assert (rate.bad, rate.n) == (8, 98)  # 503 and no answer say nothing about a host


def test_the_budget_says_its_denominator():
    one = account(Service(hours=48, failing=lambda number: int(number % 20 == 0), broken=lambda _: False))
    budget = one.budget()
    assert budget.projected == pytest.approx(576 * 60 * 24 * 30)
    assert budget.burned == pytest.approx(1440 / (0.001 * budget.projected))
    assert f"{0.001 * budget.projected:,.0f}" in of(one.findings(), "budget").detail


def test_a_long_run_that_burned_too_much_fails_though_its_rate_passes():
    result = {
        one.id: one
        for one in gates.judge(account(Service(failing=lambda number: int(number % 40 == 0), hours=96)).findings(), GATES)
    }["rel.error_budget"]
    assert result.outcome is Outcome.FAIL
    assert result.bound[1] < 0.00075
    assert "of a month's budget burned (limit 5 %)" in result.reason


def test_a_short_run_is_open_and_says_what_is_missing():
    found = judge_run(Service(hours=0.05, every=1, slow=lambda _: 0).minutes(), LIMITS)
    results = {one.id: one for one in gates.judge(found, GATES)}
    assert results["rep.go"].outcome is Outcome.INCONCLUSIVE
    assert "needs 48 more green hours" in results["rep.go"].reason
    assert "needs 1,267 more requests, about 2 min at this rate, for >= 99.9 %" in results["rel.availability"].reason
    assert "more handshakes, about 17 h at this rate" in results["sec.tls_handshake"].reason


def test_nothing_recorded_is_nothing_found():
    assert judge_run([], LIMITS) == ()
    other = History(experiment="network.refused", started=START, facts={"family": "network", "gate": "res.network"})
    assert judge_run([other], LIMITS) == ()


def test_a_minute_by_itself_is_not_judged():
    assert judge(Service().minute(0), LIMITS) == ()


LEAKS = {
    "memory": (Service(memory=lambda number: 180e6 + number / 60 * 0.6e6), "memory grows by 0.6 MB an hour"),
    "sessions": (Service(sessions=lambda number: 8 + number // 240), "database sessions grows"),
    "latency": (Service(middle=lambda number: 0.008 + (number // 60) * 1e-4), "median latency grows by 0.10 ms an hour"),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_slow_leak_keeps_a_run_from_go(name):
    service, said = LEAKS[name]
    one = account(service)
    assert one.streak().reached
    leaks = of(one.findings(), "leaks")
    assert (leaks.gate, leaks.outcome) == ("rep.go", Outcome.FAIL)
    assert said in leaks.detail
    assert any(each.judged and each.kind == "leak" for each in one.anomalies())
    go = {each.id: each for each in gates.judge(one.findings(), GATES)}["rep.go"]
    assert go.outcome is Outcome.FAIL
    assert said in go.reason


def test_an_odd_hour_is_told_and_not_judged():
    one = account(Service(failing=lambda number: 2 if number // 60 == 20 else 0))
    odd = [each for each in one.anomalies() if not each.judged]
    assert [each.hours for each in odd] == [(20,)]
    assert "5xx answers" in odd[0].detail
    assert of(one.findings(), "odd.5xx.20").outcome is Outcome.NOT_APPLICABLE
    assert of(one.findings(), "streak").outcome is not Outcome.FAIL


def test_what_is_kept_does_not_grow_with_the_rate():
    few, many = Account(LIMITS), Account(LIMITS)
    few.feed(Service().minute(0))
    for _ in range(50):
        busy = Service().minute(0)
        many.feed(replace(busy, intervals=tuple(replace(each, planned=each.planned * 100) for each in busy.intervals)))
    assert len(many.rates["rel.availability"].ns) == 50
    assert len(many.hourly) == len(few.hourly) == 1


def test_the_store_gives_the_same_findings(tmp_path):
    service = Service(hours=1.5)
    with Segment(tmp_path / SEGMENTS / "soak.sqlite") as segment:
        for history in service.minutes():
            segment.append(history)
    with merge(tmp_path) as store:
        assert judge_run(store.histories(), LIMITS) == account(service).findings()


def test_records_of_more_than_a_minute_are_spread_over_the_hours_they_cover():
    one = Account(LIMITS)
    for number in range(5):
        begin = START + number * 1440
        load = Interval(
            started=begin,
            seconds=1440,
            sample=MIX[0][0],
            kind=Kind.READ,
            planned=100,
            sent=100,
            good=100,
            statuses={"200": 100},
            over={"0.12": 0, "0.3": 0},
            latency=latency(0.008, 100, 0),
        )
        facts = {
            "family": "soak",
            "gate": "rel.availability",
            "plan.started": f"{START}",
            "plan.hours": "2",
            "compressed": "1440",
        }
        one.feed(History(experiment="soak", started=begin, finished=begin + 1440, facts=facts, intervals=(load,)))
    assert [each.colour for each in one.hours()] == [Colour.GREEN, Colour.GREEN]
    assert "on a simulated clock" in of(one.findings(), "streak").detail
