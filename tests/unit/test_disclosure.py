"""What a target did with a server that it must not trust, on histories made by hand; and handshakes and sessions with the right one."""

from dataclasses import replace

import pytest

from chaos.checks import Limits, disclosure, handshakes, judge, server
from chaos.experiment import census
from chaos.model import Connection, Effect, History, Kind, Operation, Outcome, Rung, Window

LIMITS = Limits(recovery=10, fail_fast=5, schema=None)
T = 1000.0
FACTS = {
    "gate": "sec.verify_full",
    "family": "reconnect",
    "title": "x",
    "row": "C1",
    "behaviour": "impostor:expired",
    "must": "reject",
    "until": "STARTUP",
    "severity": "",
    "why": "RFC",
    "presented": "an expired certificate",
    "back": "0.10 s later",
}
POLICY = {"row": "C6", "must": "policy", "severity": "low"}


def met(reached=Rung.CLIENT_HELLO, **more):
    values = {"opened": T, "closed": T + 1, "behaviour": "impostor:expired", "ended_by": "client", **more}
    return Connection(id=1, reached=reached, **values)


def history(*connections, experiment="C1.reconnect", took=True, operations=(), windows=None, **facts):
    window = Window(fault=experiment, scope="x", injected=T, healed=T + 2, effect=Effect(took=took, seen="x"))
    return History(
        experiment=experiment,
        started=T - 1,
        finished=T + 9,
        windows=(window,) if windows is None else windows,
        operations=operations,
        connections=connections,
        facts={key: value for key, value in (FACTS | facts).items() if value is not None},
    )


def check(*connections, policy=None, experiment="C1.reconnect", operations=(), **facts):
    made = history(*connections, experiment=experiment, operations=operations, **facts)
    return disclosure.check(made, replace(LIMITS, policy=policy or {}))


class TestReject:
    def test_refused(self):
        found = check(met(tls=True, alert="certificate expired"), met())
        assert (found.outcome, found.n, found.bad, found.severity) == (Outcome.PASS, 2, 0, "")
        assert "certificate expired" in found.detail
        assert "at the right server 0.10 s later" in found.detail

    @pytest.mark.parametrize("rung", [Rung.STARTUP, Rung.SCRAM_PROOF, Rung.PASSWORD, Rung.QUERY])
    def test_went_on(self, rung):
        found = check(met(), met(reached=rung, tls=True))
        assert (found.outcome, found.n, found.bad) == (Outcome.FAIL, 2, 1)

    def test_a_second_connection_in_plaintext(self):
        assert check(met(), met(reached=Rung.STARTUP, plaintext=True)).outcome is Outcome.FAIL

    def test_never_came(self):
        assert check().outcome is Outcome.INCONCLUSIVE

    def test_only_looked_whether_the_port_is_open(self):
        assert check(met(reached=Rung.NOTHING)).outcome is Outcome.INCONCLUSIVE

    def test_another_behaviours_connections_do_not_count(self):
        assert check(met(reached=Rung.QUERY, behaviour="relay")).outcome is Outcome.INCONCLUSIVE

    def test_a_cancel_is_no_session(self):
        assert check(met(), met(reached=Rung.CLIENT_HELLO, cancel=True, tls=True)).outcome is Outcome.PASS

    def test_a_refusal_needs_an_acceptance_beside_it(self):
        assert check(met(), back="").outcome is Outcome.INCONCLUSIVE
        assert check(met(), pair="refused").outcome is Outcome.INCONCLUSIVE
        assert check(met(), pair="accepted").outcome is Outcome.PASS

    def test_a_failure_needs_none(self):
        assert check(met(reached=Rung.STARTUP, tls=True), back="").outcome is Outcome.FAIL

    def test_policy_does_not_excuse_it(self):
        assert check(met(reached=Rung.STARTUP, tls=True), policy={"C1": "accept"}).outcome is Outcome.FAIL

    def test_injected_bytes_that_are_thrown_away_do_no_harm(self):
        """As pgjdbc does, which reads ahead into a buffer that it drops when TLS begins."""
        assert check(met(reached=Rung.STARTUP, tls=True), row="P5", until="PASSWORD").outcome is Outcome.PASS
        assert check(met(reached=Rung.PASSWORD, tls=True), row="P5", until="PASSWORD").outcome is Outcome.FAIL

    def test_an_impostors_text_in_an_answer_is_reported(self):
        answer = Operation(
            kind=Kind.READ,
            method="GET",
            path="/x",
            sample="read[0]",
            started=T,
            finished=T,
            status=503,
            body="chaos-gate: this text must not reach a user",
        )
        found = check(met(reached=Rung.SSL_REQUEST), operations=(answer,), row="P2")
        assert (found.outcome, found.severity) == (Outcome.PASS, "medium")
        assert found.examples


class TestPolicy:
    WRONG = met(reached=Rung.SCRAM_PROOF, tls=True)

    def test_reported(self):
        found = check(self.WRONG, **POLICY)
        assert (found.outcome, found.n, found.bad, found.severity) == (Outcome.NOT_APPLICABLE, 0, 0, "low")
        assert '"C6" = "reject"' in found.detail

    def test_decided(self):
        assert check(self.WRONG, policy={"C6": "reject"}, **POLICY).outcome is Outcome.FAIL
        accepted = check(self.WRONG, policy={"C6": "accept"}, **POLICY)
        assert (accepted.outcome, accepted.n, accepted.bad) == (Outcome.PASS, 0, 0)

    def test_a_row_decides_for_its_forms(self):
        assert check(self.WRONG, policy={"C27": "reject"}, **POLICY | {"row": "C27.names"}).outcome is Outcome.FAIL

    def test_refused(self):
        found = check(met(), **POLICY)
        assert (found.outcome, found.n) == (Outcome.PASS, 1)

    def test_plaintext_is_no_matter_of_policy(self):
        assert check(met(reached=Rung.STARTUP, plaintext=True), policy={"C6": "accept"}, **POLICY).outcome is Outcome.FAIL

    def test_iterations(self):
        facts = {
            "row": "A7",
            "must": "policy",
            "severity": "medium",
            "until": "SCRAM_PROOF",
            "experiment": "A7.start",
            "held": "12.00",
        }
        computing = met(reached=Rung.STARTUP, tls=True, closed=0.0, ended_by="")
        assert check(computing, **facts).outcome is Outcome.NOT_APPLICABLE
        failed = check(computing, policy={"A7": "reject"}, **facts)
        assert (failed.outcome, failed.bad) == (Outcome.FAIL, 1)
        assert check(met(reached=Rung.STARTUP, tls=True), **facts).outcome is Outcome.PASS
        assert check(met(reached=Rung.SCRAM_PROOF, tls=True), **facts).outcome is Outcome.NOT_APPLICABLE


class TestConnect:
    FACTS = {"row": "C15", "must": "connect", "presented": "a certificate in upper case"}

    def test_accepted(self):
        found = check(met(reached=Rung.STARTUP, tls=True), **self.FACTS)
        assert (found.outcome, found.n) == (Outcome.PASS, 0)

    def test_to_refuse_it_is_no_breach(self):
        found = check(met(), **self.FACTS)
        assert (found.outcome, found.severity) == (Outcome.NOT_APPLICABLE, "low")
        assert check(met(), policy={"C15": "accept"}, **self.FACTS).outcome is Outcome.FAIL

    def test_to_fall_back_is(self):
        assert check(met(), met(reached=Rung.STARTUP, plaintext=True), **self.FACTS).outcome is Outcome.FAIL

    def test_a_control_that_fails_is_no_failure_of_the_target(self):
        facts = {"row": "valid", "must": "connect", "until": "QUERY"}
        assert check(met(), **facts).outcome is Outcome.INCONCLUSIVE
        assert check(met(reached=Rung.QUERY, tls=True), ready="yes", **facts).outcome is Outcome.PASS


class TestBounded:
    FACTS = {"row": "P8.tls", "must": "bounded", "until": "QUERY", "severity": "medium", "experiment": "P8.tls.start"}

    def test_gave_up(self):
        assert check(met(), held="3.00", **self.FACTS).outcome is Outcome.PASS

    def test_waits(self):
        found = check(met(closed=0.0, ended_by=""), held="12.00", **self.FACTS)
        assert (found.outcome, found.severity) == (Outcome.NOT_APPLICABLE, "medium")


def test_what_cannot_be_asked_says_why():
    (found,) = judge(history(absent="no direct TLS here", behaviour=""), LIMITS)
    assert (found.outcome, found.detail) == (Outcome.NOT_APPLICABLE, "no direct TLS here")


def test_a_fault_that_did_not_take_effect_proves_nothing():
    assert judge(history(met(), took=False), LIMITS)[0].outcome is Outcome.INCONCLUSIVE


def test_a_finding_can_be_run_again():
    assert judge(history(met()), LIMITS)[0].rerun == "chaos-gate run --only C1.reconnect --seed 0"


class TestPlaintext:
    def test_any_experiment(self):
        bare = met(reached=Rung.STARTUP, behaviour="relay", plaintext=True)
        found = disclosure.plaintext(history(bare, experiment="tls.off"), LIMITS)
        assert (found.check, found.gate, found.outcome) == ("plaintext.tls.off", "sec.verify_full", Outcome.FAIL)

    def test_nothing_to_tell(self):
        relayed = met(behaviour="relay", tls=True, established=True)
        cancel = met(reached=Rung.NOTHING, behaviour="relay", cancel=True)
        assert disclosure.plaintext(history(relayed, cancel, experiment="tls.off"), LIMITS) is None


class TestCancels:
    BARE = met(reached=Rung.NOTHING, behaviour="relay", cancel=True, steps=((T, "CancelRequest in plaintext"),))
    SAFE = met(behaviour="relay", cancel=True, tls=True)

    def test_its_own_experiment(self):
        def of(*connections, policy=None):
            made = history(*connections, experiment="P16.reconnect", row="P16")
            return disclosure.cancels(made, replace(LIMITS, policy=policy or {}))

        assert of().outcome is Outcome.NOT_APPLICABLE
        assert of(self.SAFE).outcome is Outcome.PASS
        assert (of(self.SAFE, self.BARE).outcome, of(self.BARE).severity) == (Outcome.NOT_APPLICABLE, "medium")
        assert of(self.SAFE, self.BARE, policy={"P16": "reject"}).outcome is Outcome.FAIL
        assert of(self.BARE, policy={"P16": "accept"}).outcome is Outcome.PASS

    def test_elsewhere_it_is_only_told_when_seen(self):
        assert disclosure.cancels(history(experiment="pool.locks", row=None), LIMITS) is None
        found = disclosure.cancels(history(self.BARE, experiment="pool.locks", row=None), LIMITS)
        assert found.check == "P16.pool.locks"


class TestHandshakes:
    GOOD = met(behaviour="relay", opened=T - 5, established=True)
    BAD = replace(GOOD, id=2, established=False, alert="unknown ca")

    def rate(self, *connections, **facts):
        return handshakes.rate(history(*connections, experiment="steady", **facts), LIMITS)

    def test_outside_fault_windows(self):
        inside = replace(self.BAD, id=3, opened=T + 1)
        looked = replace(self.GOOD, id=4, established=False, ended_by="client")
        found = self.rate(self.GOOD, self.BAD, inside, looked)
        assert (found.n, found.bad) == (2, 1)

    def test_the_worse_of_both_sides_counts(self):
        found = self.rate(self.GOOD, self.GOOD, **{"log.refused": "1", "log.refused.text": "could not accept SSL connection"})
        assert (found.n, found.bad) == (2, 1)
        assert "could not accept" in found.examples[-1]

    def test_nothing_seen(self):
        assert self.rate() is None

    def test_sessions(self):
        def of(tls, plain):
            return handshakes.sessions(history(experiment="steady", **{"log.tls": tls, "log.plain": plain}), LIMITS).outcome

        assert of("5", "0") is Outcome.PASS
        assert of("5", "1") is Outcome.FAIL
        assert of("0", "0") is Outcome.NOT_APPLICABLE
        assert handshakes.sessions(history(), LIMITS) is None


@pytest.mark.parametrize(
    ("injected", "control", "outcome"),
    [("08P01", "R", Outcome.PASS), ("R", "R", Outcome.FAIL), ("ConnectionResetError", "closed", Outcome.INCONCLUSIVE)],
)
def test_injection_into_the_server(injected, control, outcome):
    made = history(experiment="P7", windows=(), injected=injected, control=control)
    assert server.injection(made, LIMITS).outcome is outcome


LOG = """\
2026-11-27 08:00:00.000 UTC [10] LOG:  connection received: host=127.0.0.1 port=5001
2026-11-27 08:00:00.010 UTC [10] app@app LOG:  connection authorized: user=app database=app SSL enabled (protocol=TLSv1.3, bits=256)
2026-11-27 08:00:01.000 UTC [11] LOG:  connection received: host=127.0.0.1 port=5002
2026-11-27 08:00:01.010 UTC [11] LOG:  could not accept SSL connection: tlsv1 alert unknown ca
2026-11-27 08:00:02.000 UTC [12] LOG:  connection received: host=127.0.0.1 port=5003
2026-11-27 08:00:02.010 UTC [12] LOG:  could not accept SSL connection: EOF detected
2026-11-27 08:00:03.000 UTC [13] LOG:  connection received: host=127.0.0.1 port=5004
2026-11-27 08:00:03.010 UTC [13] app@app LOG:  connection authorized: user=app database=app
2026-11-27 08:00:04.000 UTC [14] LOG:  connection received: host=127.0.0.1 port=5005
2026-11-27 08:00:04.010 UTC [14] app@app FATAL:  connection requires a valid client certificate
2026-11-27 09:00:00.000 UTC [15] LOG:  connection received: host=127.0.0.1 port=5001
2026-11-27 09:00:00.010 UTC [15] LOG:  could not accept SSL connection: wrong version number
2026-11-27 08:00:04.500 UTC [16] LOG:  connection received: host=127.0.0.1 port=6000
2026-11-27 08:00:04.600 UTC [16] app@app LOG:  connection authorized: user=app database=app
no line of ours
"""


def test_the_servers_log_is_matched_by_port_and_time():
    """Another's connection (port 6000) is not counted, and a port that comes again an hour later is another connection."""
    begin = 1795766400.0  # 2026-11-27 08:00 UTC
    mine = [
        met(behaviour="relay", opened=begin + n, steps=((begin + n, f"goes on to PostgreSQL from port {5001 + n}"),))
        for n in range(5)
    ]
    mine = [replace(one, id=n) for n, one in enumerate(mine)]
    found = census.facts(mine, mine, LOG.splitlines())
    assert found["log.matched"] == "5"
    assert (found["log.tls"], found["log.plain"]) == ("1", "1")
    assert (found["log.refused"], found["log.aborted"]) == ("2", "1")
    assert "unknown ca" in found["log.refused.text"]
    assert census.facts(mine, mine[:1], LOG.splitlines())["log.refused"] == "0"
