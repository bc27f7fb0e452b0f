"""Checks of a database's life, and the tables of crossings, without a database."""

from dataclasses import replace

import pytest

from chaos.cases import BY_ID, CASES, due
from chaos.cases.crossings import CROSSED
from chaos.checks import judge
from chaos.experiment.crossings import sample
from chaos.faults.crossing import UP_CUT, directions, turned
from chaos.faults.network import NETWORK
from chaos.faults.probe import Seen
from chaos.model import Kind, Outcome
from tests.unit.test_checks import GOOD, LIMITS, history, op

ROWS = {fault.id: fault for fault in NETWORK}


def first(recorded, **policy):
    return judge(recorded, replace(LIMITS, policy=policy) if policy else LIMITS)[0]


class TestReplica:
    FACTS = {"replica.before": "5", "replica.sent": "40", "replica.failed": "0", "replica.exited": "", "replica.example": ""}

    def found(self, **facts):
        told = {f"replica.{name}": value for name, value in facts.items()}
        recorded = history(*GOOD, family="replica", experiment="replica", facts={**self.FACTS, **told})
        return next(one for one in judge(recorded, LIMITS) if one.check == "blast.replica")

    def test_does_not_notice(self):
        found = self.found()
        assert (found.outcome, found.n, found.bad) == (Outcome.PASS, 40, 0)

    def test_one_failed_request_is_one_too_many(self):
        assert self.found(failed="1").outcome is Outcome.FAIL

    def test_must_not_end(self):
        assert self.found(exited="exit status 1").outcome is Outcome.FAIL

    @pytest.mark.parametrize("missing", ["sent", "before"])
    def test_no_request_shows_nothing(self, missing):
        assert self.found(**{missing: "0"}).outcome is Outcome.INCONCLUSIVE


class TestStarting:
    def found(self, served="0.5", ended="", policy="report", *, took=True):
        facts = {"served": served, "ended": ended, "within": "30"}
        recorded = history(family="starting", experiment="starting.57P03", took=took, facts=facts)
        return first(recorded, L1=policy)

    def test_serves(self):
        assert self.found().outcome is Outcome.PASS

    def test_never_serves(self):
        assert self.found(served="").outcome is Outcome.FAIL

    def test_ended_and_served_when_started_again(self):
        found = self.found(ended="exit status 1")
        assert (found.outcome, found.severity) == (Outcome.NOT_APPLICABLE, "medium")

    def test_ended_and_never_served(self):
        assert self.found(ended="exit status 1", served="").outcome is Outcome.FAIL

    @pytest.mark.parametrize(("policy", "outcome"), [("reject", Outcome.FAIL), ("accept", Outcome.PASS)])
    def test_policy_decides(self, policy, outcome):
        assert self.found(ended="exit status 1", policy=policy).outcome is outcome

    def test_a_database_that_was_there_shows_nothing(self):
        assert self.found(took=False).outcome is Outcome.INCONCLUSIVE


class TestReadOnlyConnections:
    KEPT = (*GOOD, op(Kind.WRITE, at=0.5, status=503), *(op(Kind.WRITE, at=3.0 + n, status=503) for n in range(9)))

    def found(self, *operations, policy="report", row="L2"):
        return first(history(*operations, family="life", experiment="life.demoted", facts={"row": row}), L2=policy)

    def test_kept_ones_are_reported(self):
        found = self.found(*self.KEPT)
        assert (found.outcome, found.severity) == (Outcome.NOT_APPLICABLE, "medium")

    @pytest.mark.parametrize(("policy", "outcome"), [("reject", Outcome.FAIL), ("accept", Outcome.PASS)])
    def test_policy_decides(self, policy, outcome):
        assert self.found(*self.KEPT, policy=policy).outcome is outcome

    def test_reads_that_do_not_come_back_fail(self):
        lost = tuple(op(kind, at=at, status=503) for kind in (Kind.READ, Kind.WRITE) for at in (0.5, 3.0, 12.0))
        assert self.found(*lost).outcome is Outcome.FAIL

    def test_writes_that_hang_fail(self):
        assert self.found(*self.KEPT, op(Kind.WRITE, at=3.0, took=7.5, status=None)).outcome is Outcome.FAIL

    def test_no_other_row_is_excused(self):
        assert self.found(*self.KEPT, row="").outcome is Outcome.FAIL

    def test_whoever_drops_them_passes(self):
        assert self.found(*GOOD, op(Kind.WRITE, at=2.6), op(Kind.WRITE, at=3.4)).outcome is Outcome.PASS


class TestCrossings:
    def test_every_fault_in_every_state_and_length(self):
        """Refused and reset know no direction."""
        ways = sum(len(directions(fault)) for fault in NETWORK)
        assert ways == 2 + 2 * (len(NETWORK) - 2)
        assert len(CROSSED) == ways * 3 * 2 == len({case.id for case in CROSSED})

    def test_one_direction_is_one_toxic(self):
        for name in ("blackhole", "latency", "cut"):
            for way, stream in (("up", "upstream"), ("down", "downstream")):
                assert {toxic.stream for toxic in turned(ROWS[name], way).toxics} == {stream}
        assert turned(ROWS["cut"], "up").toxics[0].attributes == {"bytes": UP_CUT}
        assert turned(ROWS["reset"], "both") is ROWS["reset"]

    def test_a_quick_run_plays_one_by_its_seed(self):
        quick = [case.id for case in CASES if due(case, (), "quick") and case.family in {"cross", "life", "flapping", "replica"}]
        assert quick == ["cross.sample"]
        assert sample(7) == sample(7)
        chosen = {sample(seed) for seed in range(2_000)}
        assert chosen == {case.what for case in CROSSED if case.what.endswith(".short")}

    def test_each_can_be_named(self):
        assert BY_ID["cross.blackhole.flight.up.long"].nightly

    def test_a_probe_s_rule_is_not_met_by_a_whole_path(self):
        """But for those where one byte comes through: there a whole session is looked at."""
        for fault in NETWORK:
            if fault.id not in {"bandwidth", "slicer", "cut"}:
                assert not fault.new(Seen("answer", 0.001), Seen("answer", 0.001)), fault.id
