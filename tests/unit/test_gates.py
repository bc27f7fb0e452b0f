"""From findings to gates to a verdict."""

from dataclasses import replace

import pytest

from chaos import gates as g
from chaos.checks.limits import RATES
from chaos.errors import UsageError
from chaos.evidence import words
from chaos.model import Finding, Outcome, Verdict

GATES = g.load()


def finding(gate, outcome=Outcome.PASS, **more):
    return Finding(check=more.pop("check", "c1"), gate=gate, outcome=outcome, detail=more.pop("detail", "seen"), **more)


def result(gate, *found, **more):
    return next(one for one in g.judge(found, GATES, **more) if one.id == gate)


def test_every_id_of_the_requirements_is_there():
    ids = """sec.unknown_host_2xx sec.unknown_host_400 sec.host_allowlist sec.audit_log sec.verify_full sec.tls_handshake sec.cert_expiry
    sec.cert_rotation sec.pentest sec.waf sec.logs rel.availability rel.error_budget rel.p95 rel.p99 rel.delta rel.no_400_to_500
    rel.error_schema rel.api_contract res.backoff res.pool res.network res.durability res.rollback roll.canary roll.pause
    roll.safeguards rep.dashboards rep.documents rep.attestation rep.go""".split()
    assert set(ids) == set(GATES)


def test_no_data_is_never_a_pass():
    for one in g.judge([], GATES):
        assert one.outcome is Outcome.INCONCLUSIVE, one
    assert g.verdict(g.judge([], GATES), GATES, profile="quick") is Verdict.INCONCLUSIVE


def test_a_census_counts_and_bounds():
    one = result("sec.verify_full", finding("sec.verify_full", n=75))
    assert (one.outcome, one.n, one.measured) == (Outcome.PASS, 75, 0.0)
    assert one.bound == (0.0, pytest.approx(0.039, abs=1e-3))


def test_one_failure_fails_a_census():
    one = result("sec.verify_full", finding("sec.verify_full", n=75), finding("sec.verify_full", Outcome.FAIL, n=2, bad=1))
    assert one.outcome is Outcome.FAIL
    assert one.measured == 1.0


def test_an_inconclusive_check_keeps_its_gate_open():
    one = result("res.network", finding("res.network"), finding("res.network", Outcome.INCONCLUSIVE, check="c2"))
    assert one.outcome is Outcome.INCONCLUSIVE
    assert "c2" in one.reason


def test_a_pass_without_observations_is_none():
    assert result("sec.host_allowlist", finding("sec.host_allowlist", n=0)).outcome is Outcome.INCONCLUSIVE


def test_a_rate_adds_up_over_checks():
    few = [finding("rel.error_schema", n=200, check=f"errors.{i}") for i in range(3)]
    assert result("rel.error_schema", *few[:2]).outcome is Outcome.INCONCLUSIVE
    assert "198 more" in result("rel.error_schema", *few[:2]).reason
    assert result("rel.error_schema", *few).outcome is Outcome.PASS


def test_the_worst_class_decides():
    good = finding("sec.unknown_host_400", n=320, check="bad")
    assert result("sec.unknown_host_400", good).outcome is Outcome.PASS
    wrong = finding("sec.unknown_host_400", n=320, bad=200, check="absent")
    assert result("sec.unknown_host_400", good, wrong).outcome is Outcome.FAIL


def test_durability_needs_decisive_hits():
    one = result("res.durability", finding("res.durability", n=500))
    assert one.outcome is Outcome.INCONCLUSIVE
    assert "59" in one.reason
    assert result("res.durability", finding("res.durability", n=60, check="commit-cut")).outcome is Outcome.PASS
    assert result("res.durability", finding("res.durability", Outcome.FAIL, n=500, bad=1)).outcome is Outcome.FAIL


def test_rollback_within_ten_minutes():
    assert result("res.rollback", finding("res.rollback", measured=12.0)).outcome is Outcome.PASS
    assert result("res.rollback", finding("res.rollback", measured=601.0)).outcome is Outcome.FAIL


def test_not_applicable_says_why():
    one = result("sec.audit_log", absent={"sec.audit_log": "no [target.logs]"})
    assert (one.outcome, one.reason) == (Outcome.NOT_APPLICABLE, "no [target.logs]")


def test_a_waiver_does_not_hide_what_was_waived():
    one = result(
        "res.network", finding("res.network", Outcome.FAIL, detail="hangs"), waivers={"res.network": "J. Doe until 2027"}
    )
    assert one.outcome is Outcome.WAIVED
    assert "hangs" in one.reason
    assert "J. Doe" in one.reason


def test_overrides():
    own = g.load({"rel.p95": 200, "rel.error_schema": 99, "res.rollback": 30})
    assert own["rel.p95"].seconds == 0.2
    assert own["rel.error_schema"].limit == pytest.approx(0.01)
    assert own["res.rollback"].limit == 30
    with pytest.raises(UsageError, match="did you mean 'rel.p9"):
        g.load({"rel.p59": 1})


def passing():
    return [replace(one, outcome=Outcome.PASS) for one in g.judge([], GATES)]


def test_verdicts():
    good = passing()
    assert g.verdict(good, GATES, profile="quick") is Verdict.CLEAR
    assert g.verdict(good, GATES, profile="soak") is Verdict.GO

    def with_one(gate, outcome):
        return [replace(one, outcome=outcome) if one.id == gate else one for one in good]

    assert g.verdict(with_one("res.network", Outcome.FAIL), GATES, profile="quick") is Verdict.NO_GO
    assert g.verdict(with_one("res.network", Outcome.INCONCLUSIVE), GATES, profile="quick") is Verdict.INCONCLUSIVE
    # What a short run cannot settle does not keep it from being clear, and keeps a soak from GO.
    assert g.verdict(with_one("rel.availability", Outcome.INCONCLUSIVE), GATES, profile="quick") is Verdict.CLEAR
    assert g.verdict(with_one("rel.availability", Outcome.INCONCLUSIVE), GATES, profile="soak") is Verdict.INCONCLUSIVE
    assert g.verdict(with_one("rel.availability", Outcome.FAIL), GATES, profile="quick") is Verdict.NO_GO
    # The roll-out comes after the review.
    assert g.verdict(with_one("roll.canary", Outcome.INCONCLUSIVE), GATES, profile="soak") is Verdict.GO
    assert g.verdict(with_one("roll.canary", Outcome.INCONCLUSIVE), GATES, profile="canary") is Verdict.INCONCLUSIVE


def test_selected_gates_decide_alone():
    open_ones = [replace(one, outcome=Outcome.INCONCLUSIVE) if one.id != "res.pool" else one for one in passing()]
    assert g.verdict(open_ones, GATES, profile="quick", selected=frozenset({"res.pool"})) is Verdict.CLEAR


def test_a_gate_says_what_is_missing_and_how_long_that_takes():
    one = result("sec.tls_handshake", finding("sec.tls_handshake", n=412, seconds=4.15))
    assert "needs 2,583 more handshakes, about 26 s at this rate, for <= 0.1 %" in one.reason
    assert words.bounded(one) == "bound 0.72 %, needs 2,583 more handshakes, about 26 s at this rate"
    bad = result("sec.tls_handshake", finding("sec.tls_handshake", n=1000, bad=1, seconds=7200.0))
    assert "more handshakes without another bad one, about 7 h at this rate" in bad.reason
    unknown = result("sec.tls_handshake", finding("sec.tls_handshake", n=412))
    assert unknown.reason.endswith("needs 2,583 more handshakes for <= 0.1 %")


def test_what_is_missing_counts_how_observations_hang_together():
    alone = result("rel.availability", finding("rel.availability", n=4000, bad=2))
    bursts = result("rel.availability", finding("rel.availability", n=4000, bad=2, deff=2.0))
    assert bursts.bound[1] > alone.bound[1]
    more = int(bursts.reason.split("needs ")[1].split(" ")[0].replace(",", ""))
    again = result("rel.availability", finding("rel.availability", n=4000 + more, bad=2, deff=2.0))
    assert again.outcome is Outcome.PASS


def test_the_budget_is_its_share_of_a_month_and_a_rate():
    assert g.load({"rel.error_budget": 10})["rel.error_budget"].limit == pytest.approx(0.0015)
    good = finding("rel.error_budget", n=2_000_000, bad=400, measured=0.02)
    assert result("rel.error_budget", good).outcome is Outcome.PASS
    assert "2.00% of a month's budget burned (limit 5 %)" in result("rel.error_budget", good).reason
    assert result("rel.error_budget", replace(good, measured=0.06)).outcome is Outcome.FAIL
    assert result("rel.error_budget", replace(good, measured=None)).outcome is Outcome.PASS


def test_the_limits_of_the_checks_are_those_of_the_gates():
    assert {gate: GATES[gate].limit for gate in RATES} == RATES
