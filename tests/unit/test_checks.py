"""The checks, on histories made by hand: each passes on a good one, fails on the defect, and is unknown without data."""

import pytest

from chaos.checks import Limits, audit, invalid, judge, latency, recoveries, recovery, rollback, server, writes
from chaos.model import Effect, History, Kind, Operation, Outcome, Window

LIMITS = Limits(recovery=10, fail_fast=5, schema=None, seconds={"rel.p95": 0.12, "rel.p99": 0.3})
T = 1000.0  # when the fault strikes; it is healed two seconds later


def op(kind=Kind.READ, at=0.0, took=0.01, status=200, **more):
    error = more.pop("error", "" if status else "timeout")
    fine = status is not None and (400 <= status < 500 if kind is Kind.INVALID else status < 300)
    return Operation(
        kind=kind,
        method="GET",
        path="/x",
        sample=f"{kind}[0]",
        started=T + at,
        finished=T + at + took,
        status=status,
        error=error,
        ok=more.pop("ok", fine),
        **more,
    )


def history(*operations, family="network", took=True, gate="res.network", **more):
    window = Window(
        fault="refused.pooled", scope="pooled", injected=T, healed=T + 2, effect=Effect(took=took, seen="refused after 1 ms")
    )
    facts = {"gate": gate, "family": family, "title": "x", **more.pop("facts", {})}
    return History(
        experiment=more.pop("experiment", "network.refused.pooled"),
        started=T - 1,
        finished=T + 20,
        windows=more.pop("windows", (window,)),
        operations=operations,
        facts=facts,
        **more,
    )


GOOD = (op(at=-0.5), op(at=0.5, status=503), op(at=1.0, status=503), op(at=2.5), op(at=3.0), op(at=3.5))


class TestRecovery:
    def test_comes_back(self):
        found = recovery.check(history(*GOOD), LIMITS)
        assert found.outcome is Outcome.PASS
        assert found.measured == pytest.approx(0.51)

    def test_counts_from_the_last_miss(self):
        flapping = (*GOOD, op(at=4.0, status=503), op(at=5.0))
        assert recovery.check(history(*flapping), LIMITS).measured == pytest.approx(3.01)

    def test_both_kinds_of_work_have_to_hold(self):
        only_reads = (*GOOD, op(Kind.WRITE, at=3.0, status=503))
        assert recovery.check(history(*only_reads), LIMITS).outcome is Outcome.FAIL

    def test_never_comes_back(self):
        found = recovery.check(history(*GOOD[:3], op(at=12.5, status=503)), LIMITS)
        assert found.outcome is Outcome.FAIL
        assert "not serving again" in found.detail

    def test_comes_back_too_late(self):
        assert recovery.check(history(*GOOD[:3], op(at=12.4, status=503), op(at=12.9)), LIMITS).outcome is Outcome.FAIL

    def test_an_answer_after_fail_fast(self):
        found = recovery.check(history(*GOOD, op(at=0.2, took=6.0, status=None)), LIMITS)
        assert found.outcome is Outcome.FAIL
        assert "not answered within 5 s" in found.detail

    def test_our_own_stall_is_not_the_targets(self):
        assert recovery.check(history(*GOOD, op(at=0.2, took=6.0, status=503, lag=1.5)), LIMITS).outcome is Outcome.PASS

    def test_an_invalid_request_has_to_be_answered_too(self):
        assert recovery.check(history(*GOOD, op(Kind.INVALID, at=0.2, took=7.5, status=None)), LIMITS).outcome is Outcome.FAIL

    def test_liveness_that_asks_the_database(self):
        found = recovery.check(history(*GOOD, op(Kind.LIVE, at=1.0, status=503)), LIMITS)
        assert found.outcome is Outcome.FAIL
        assert "liveness" in found.detail

    def test_a_process_that_ends(self):
        found = recovery.check(history(*GOOD, exited="exit status 3"), LIMITS)
        assert found.outcome is Outcome.FAIL
        assert "exit status 3" in found.detail

    def test_no_traffic_shows_nothing(self):
        assert recovery.check(history(op(at=2.5), op(at=3.0)), LIMITS).outcome is Outcome.INCONCLUSIVE


class TestNonVacuity:
    def test_a_fault_without_effect_leaves_a_pass_open(self):
        found = judge(history(*GOOD, took=False), LIMITS)
        assert found[0].outcome is Outcome.INCONCLUSIVE
        assert "did not take effect" in found[0].detail

    def test_a_failure_stands_without_effect(self):
        assert judge(history(*GOOD, exited="exit status 1", took=False), LIMITS)[0].outcome is Outcome.FAIL

    def test_a_sick_control_leaves_everything_open(self):
        found = judge(history(*GOOD, control="read[0] answered 500"), LIMITS)
        assert [one.outcome for one in found] == [Outcome.INCONCLUSIVE]
        assert "read[0] answered 500" in found[0].detail

    def test_each_finding_says_how_to_run_it_again(self):
        assert judge(history(*GOOD), LIMITS)[0].rerun == "chaos-gate run --only network.refused.pooled --seed 0"


class TestInvalid:
    def test_a_400_stays_a_400(self):
        assert invalid.check(history(op(Kind.INVALID, at=1, status=400)), LIMITS).outcome is Outcome.PASS

    def test_a_400_that_becomes_a_500(self):
        found = invalid.check(history(op(Kind.INVALID, at=1, status=503), op(Kind.INVALID, at=1, status=400)), LIMITS)
        assert (found.outcome, found.bad, found.n) == (Outcome.FAIL, 1, 2)

    def test_before_the_fault_does_not_count(self):
        assert invalid.check(history(op(Kind.INVALID, at=-0.5, status=500)), LIMITS).outcome is Outcome.INCONCLUSIVE

    def test_no_answer_is_no_flip(self):
        assert invalid.check(history(op(Kind.INVALID, at=1, status=None)), LIMITS).outcome is Outcome.INCONCLUSIVE

    def test_nothing_configured(self):
        assert invalid.check(history(*GOOD), LIMITS) is None


class TestRecoveries:
    """Outages at T, T + 10, T + 20, ..., each two seconds long."""

    def check(self, *after, limits=LIMITS, took=True):
        effect = Effect(took=took, seen="refused")
        windows = [
            Window(fault="x", scope="", injected=T + 10 * i, healed=T + 10 * i + 2, effect=effect) for i in range(len(after))
        ]
        seen = [op(at=10 * i + 1, status=503) for i in range(len(after))]
        for i, seconds in enumerate(after):
            seen += [op(at=10 * i + 2 + k / 2, status=200 if k / 2 >= seconds else 503) for k in range(12)]
        facts = {"family": "recovery"}
        return recoveries.check(history(*seen, windows=tuple(windows), experiment="recovery.network.1", facts=facts), limits)

    def test_all_in_time(self):
        found = self.check(0.5, 1.0, 3.0)
        assert (found.outcome, found.n, found.bad) == (Outcome.PASS, 3, 0)
        assert found.measured == pytest.approx(3.01)
        assert "at least 36.8%" in found.detail

    def test_one_never(self):
        found = self.check(0.5, 99.0, 1.0)
        assert (found.outcome, found.n, found.bad) == (Outcome.FAIL, 3, 1)
        assert "1 never" in found.detail

    def test_one_too_late(self):
        limits = Limits(recovery=2, fail_fast=5, schema=None)
        assert self.check(0.5, 4.0, limits=limits).outcome is Outcome.FAIL

    def test_the_next_outage_is_not_this_ones(self):
        assert self.check(*[0.5] * 59).outcome is Outcome.PASS
        assert "at least 95.0%" in self.check(*[0.5] * 59).detail

    def test_what_did_not_strike_says_nothing(self):
        assert self.check(0.5, 0.5, took=False).outcome is Outcome.INCONCLUSIVE


class TestWrites:
    ONCE = {"once.write[0]": "1"}

    def write(self, unique, status=201, **more):
        return op(Kind.WRITE, at=1, status=status, unique=unique, **more)

    def shown(self, unique, times):
        return op(Kind.READ_BACK, at=5, unique=unique, occurrences=times)

    def check(self, *operations):
        return writes.check(history(*operations, facts=self.ONCE), LIMITS)

    def test_acknowledged_and_there(self):
        assert self.check(self.write("a"), self.shown("a", 1)).outcome is Outcome.PASS

    def test_lost(self):
        found = self.check(self.write("a"), self.shown("a", 0))
        assert found.outcome is Outcome.FAIL
        assert "1 lost" in found.detail

    def test_applied_twice(self):
        assert "1 applied twice" in self.check(self.write("a"), self.shown("a", 2)).detail

    def test_unknown_may_be_there_or_not(self):
        for times in (0, 1):
            assert self.check(self.write("a", status=503), self.shown("a", times)).outcome is Outcome.PASS

    def test_unknown_and_there_twice(self):
        assert self.check(self.write("a", status=503), self.shown("a", 2)).outcome is Outcome.FAIL

    def test_refused_and_applied_all_the_same(self):
        assert self.check(self.write("a", status=409), self.shown("a", 1)).outcome is Outcome.FAIL

    def test_unknown_then_acknowledged_under_its_key(self):
        retried = self.check(self.write("a", status=503), self.write("a", status=409), self.write("a"), self.shown("a", 1))
        assert retried.outcome is Outcome.PASS

    def test_nothing_looked_up(self):
        assert self.check(self.write("a")).outcome is Outcome.INCONCLUSIVE

    def test_a_good_answer_in_the_outage_without_what_was_written_before_it(self):
        before = op(Kind.WRITE, at=-0.9, status=201, unique="a")
        found = self.check(before, op(Kind.READ_BACK, at=1, unique="a", occurrences=0), self.shown("a", 1))
        assert found.outcome is Outcome.FAIL
        assert "1 good answers without a write" in found.detail

    @pytest.mark.parametrize(
        "back",
        [
            op(Kind.READ_BACK, at=1, status=503, unique="a", occurrences=-1),  # an error is honest
            op(Kind.READ_BACK, at=1, unique="a", occurrences=1),
            op(Kind.READ_BACK, at=-0.8, unique="a", occurrences=0),  # on its way still, and nothing was broken yet
        ],
    )
    def test_what_is_no_denial(self, back):
        before = op(Kind.WRITE, at=-0.9, status=201, unique="a")
        assert self.check(before, back, self.shown("a", 1)).outcome is Outcome.PASS

    def test_what_was_denied_and_never_shown_again_is_lost_once(self):
        before = op(Kind.WRITE, at=-0.9, status=201, unique="a")
        found = self.check(before, op(Kind.READ_BACK, at=1, unique="a", occurrences=0), self.shown("a", 0))
        assert (found.outcome, found.bad) == (Outcome.FAIL, 1)

    def test_an_empty_list_in_the_outage(self):
        listed = [op(at=at, occurrences=count) for at, count in ((-0.5, 3), (1, 0), (3, 4))]
        found = writes.check(history(*listed), LIMITS)
        assert found.outcome is Outcome.FAIL
        assert "empty list" in found.detail

    @pytest.mark.parametrize(
        "seen", [((-0.5, 0), (1, 0), (3, 4)), ((-0.5, 3), (1, 0), (3, 0)), ((-0.5, 3), (1, 2), (3, 3)), ((1, 0),)]
    )
    def test_a_list_that_is_empty_at_other_times_too(self, seen):
        assert writes.check(history(*(op(at=at, occurrences=count) for at, count in seen)), LIMITS) is None


class TestLatency:
    def load(self, count, took, lag=0.0):
        return [op(at=i / 50, took=took, client="load", planned=T + i / 50 - lag) for i in range(count)]

    def check(self, operations, busy="0.2"):
        made = history(*operations, family="steady", experiment="steady", windows=(), facts={"busy": busy})
        return {one.gate: one for one in latency.check(made, LIMITS)}

    def test_fast(self):
        found = self.check(self.load(320, 0.01))
        assert {one.outcome for one in found.values()} == {Outcome.PASS}

    def test_slow(self):
        found = self.check(self.load(200, 0.01) + self.load(100, 0.5))
        assert found["rel.p95"].outcome is Outcome.FAIL
        assert found["rel.p99"].outcome is Outcome.FAIL
        assert found["rel.availability"].outcome is Outcome.PASS

    def test_latency_counts_from_the_plan(self):
        late = self.load(100, 0.01, lag=0.009) + [op(at=9, took=0.01, client="load", planned=T + 8)]
        assert self.check(late)["rel.p95"].bad == 1

    def test_a_sender_that_slipped_shows_nothing(self):
        found = self.check(self.load(300, 0.5, lag=0.05))
        assert (found["rel.p95"].outcome, found["rel.p95"].n) == (Outcome.INCONCLUSIVE, 0)

    def test_a_busy_machine_shows_nothing(self):
        assert self.check(self.load(300, 0.5), busy="0.97")["rel.p99"].outcome is Outcome.INCONCLUSIVE

    def test_unanswered_counts_as_bad(self):
        found = self.check([*self.load(100, 0.01), *(op(at=3, status=None, client="load", planned=T + 3) for _ in range(20))])
        assert found["rel.availability"].bad == 20
        assert found["rel.availability"].outcome is Outcome.FAIL

    def test_quantiles(self):
        assert latency.quantile(range(1, 101), 0.95) == 95
        assert latency.quantile([], 0.95) == 0.0


class TestRollback:
    FACTS = {"bad.from": str(T), "bad.to": str(T + 5), "given": str(T + 5), "steady.after": "1.2", "exit": "0"}

    def check(self, *operations, **facts):
        made = history(
            *operations, family="rollback", gate="res.rollback", experiment="rollback", windows=(), facts=self.FACTS | facts
        )
        return rollback.check(made, LIMITS)

    BAD = tuple(op(at=i / 10, status=502) for i in range(20))

    def test_seen_and_rolled_back(self):
        found = self.check(*self.BAD)
        assert (found.outcome, found.measured) == (Outcome.PASS, 1.2)

    def test_a_bad_release_that_nobody_saw(self):
        assert self.check(*(op(at=i / 10) for i in range(20))).outcome is Outcome.INCONCLUSIVE

    def test_the_command_failed(self):
        assert self.check(*self.BAD, exit="4", output="no edge").outcome is Outcome.FAIL

    def test_an_acknowledged_write_is_gone(self):
        write, gone = op(Kind.WRITE, at=-1, unique="a"), op(Kind.READ_BACK, at=9, unique="a", occurrences=0)
        assert self.check(*self.BAD, write, gone).outcome is Outcome.FAIL


def test_the_servers_side():
    facts = {
        "plaintext": "28000",
        "plaintext.text": "no encryption",
        "verified": "answer",
        "sessions.tls": "4",
        "sessions.plain": "0",
    }

    def outcomes(**more):
        return [one.outcome for one in server.check(history(family="server", facts=facts | more), LIMITS)]

    assert outcomes() == [Outcome.PASS, Outcome.PASS]
    assert outcomes(plaintext="answer") == [Outcome.FAIL, Outcome.PASS]
    assert outcomes(verified="error")[0] is Outcome.INCONCLUSIVE
    assert outcomes(**{"sessions.plain": "1"})[1] is Outcome.FAIL
    assert outcomes(**{"sessions.tls": "0"})[1] is Outcome.INCONCLUSIVE


class TestAudit:
    NAMES = frozenset({"evil.example"})

    def test_a_refused_host_in_any_member(self):
        assert audit.mentions('{"event": "refused", "request": {"authority": "Evil.example:80"}}', self.NAMES)

    @pytest.mark.parametrize("line", ["evil.example refused", '{"host": "evil.example', '{"host": "good.example"}', "[]"])
    def test_what_is_no_entry(self, line):
        assert not audit.mentions(line, self.NAMES)

    def found(self, refused, shown):
        facts = {"audit.refused": str(refused), "audit.shown": str(shown), "audit.lines": "9"}
        return audit.check(history(family="hosts", facts=facts), LIMITS).outcome

    def test_outcomes(self):
        assert self.found(300, 2) is Outcome.PASS
        assert self.found(300, 0) is Outcome.FAIL
        assert self.found(3, 0) is Outcome.INCONCLUSIVE
