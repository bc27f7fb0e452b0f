"""What is read from a target's log, and what is made of it: on lines and histories made by hand."""

import base64
import json

import pytest

from chaos.checks import Limits, lines, logs, privacy, retention
from chaos.model import History, Outcome

DECLARED = {name: name for name in logs.NAMES}
GOOD = {
    "host": "api.example.test",
    "request_id": "one",
    "upstream_ip": "127.0.0.1",
    "tls_version": "TLSv1.3",
    "tls_cipher": "TLS_AES_256_GCM_SHA384",
    "error_code": "",
}


class TestFields:
    def test_nested_flat_and_inside(self):
        line = {"http": {"request": {"id": "a"}}, "http.host": "b", "deep": {"er": {"peer": "c"}}, "log": '{"suite": "d"}'}
        paths = ("http.request.id", "http.host", "peer", "log.suite", "suite", "absent", "http.absent")
        assert [lines.field(line, path) for path in paths] == ["a", "b", "c", "d", "d", None, None]

    def test_texts_of_other_types(self):
        line = {"a": None, "b": 772, "c": True, "d": ["x", "y"], "e": {"f": 1}}
        assert [lines.field(line, name) for name in "abcde"] == ["", "772", "true", "x, y", '{"f": 1}']

    @pytest.mark.parametrize("line", ["", "plain", "{no json", "[1, 2]", '"text"', "{" * 5000, "3"])
    def test_what_is_no_object_is_none(self, line):
        assert lines.members(line) is None

    @pytest.mark.parametrize(
        "text", ["127.0.0.1", "127.0.0.1:5431", "::1", "[::1]:80", "::ffff:10.0.0.1", "1.2.3.4, 5.6.7.8", "fe80::1%eth0"]
    )
    def test_addresses(self, text):
        assert lines.address(text)

    @pytest.mark.parametrize("text", ["localhost", "db.internal:5432", "300.1.1.1", "true", "unix"])
    def test_no_addresses(self, text):
        assert not lines.address(text)

    def test_versions_and_ciphers(self):
        assert {lines.tls_version(text) for text in ("TLSv1.3", "TLS 1.3", "1.3", "TLS1_3", "772", "0x0304", "tls13")} == {"1.3"}
        assert [lines.tls_version(text) for text in ("yes", "TLS", "", "2024-11.3")] == ["", "", "", ""]
        assert lines.cipher("ECDHE-RSA-AES256-GCM-SHA384") == lines.cipher("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")
        assert lines.same_cipher("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")
        assert lines.same_cipher("Aes256", "TLS_AES_256_GCM_SHA384")
        assert lines.same_cipher("0x1302", "TLS_AES_256_GCM_SHA384")
        assert not lines.same_cipher("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384")
        assert lines.is_cipher("TLS_CHACHA20_POLY1305_SHA256")
        assert not lines.is_cipher("strong")

    def test_ids(self):
        assert lines.same_id("8a6e0804-2bd0-4672-b79d-d97027f9071a", "8A6E08042BD04672B79DD97027F9071A")
        assert lines.same_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736")
        assert not lines.same_id("ab", "8a6e0804ab")


class TestPrivacy:
    CORE = "0123456789abcdef01234567"

    @pytest.mark.parametrize(
        "text",
        [
            "x {core}@private.example",
            "x {core}%40private.example",
            "x {upper}@PRIVATE.EXAMPLE",
            '{{"m": "{core}\\u0040private.example"}}',
            "truncated {core:.18}",
            "b64 {b64}",
            "url-safe {b64url}",
            "hex {hex}",
        ],
    )
    def test_is_found_in_every_form(self, text):
        value = f"user:{self.CORE}@private.example".encode()
        filled = text.format(
            core=self.CORE,
            upper=self.CORE.upper(),
            b64=base64.b64encode(value).decode(),
            b64url=base64.urlsafe_b64encode(b"??>" + value).decode(),
            hex=value.hex(),
        )
        found = privacy.leaks(["nothing", filled], [privacy.Private(name="email", where="query", text=self.CORE)])
        assert [one.lines for one in found] == [1]
        assert "<email>" in found[0].line
        assert self.CORE[:16] not in found[0].line.lower()

    def test_what_is_masked_is_no_leak(self):
        held = [privacy.Private(name="email", where="query", text=self.CORE)]
        assert not privacy.leaks(["0123***@private.example", "sha256 of it: 2cf24dba5fb0a30e", ""], held)

    def test_secrets_of_the_target(self):
        secret = privacy.Private(name="password", where="{database_url}", text="p@ss w0rd/1", planted=False)
        for shape in ("p@ss w0rd/1", "p%40ss%20w0rd%2F1", "p%40ss+w0rd%2F1"):
            assert privacy.leaks([f"postgres://u:{shape}@h"], [secret]), shape

    def test_a_plain_word_is_no_secret(self):
        word = privacy.Private(name="password", where="prepare", text="password", planted=False)
        assert not privacy.leaks(["wrong password"], [word])


class TestRetention:
    @pytest.mark.parametrize(
        ("text", "days"),
        [
            ("/var/log/x {\n daily\n rotate 30\n}", 30),
            ("/var/log/x {\n weekly\n rotate 4\n}", 28),
            ("/var/log/x {\n daily\n rotate 90\n maxage 30\n}", 30),
            ("limits_config:\n  retention_period: 720h\n", 30),
            ("retention_in_days = 30", 30),
            ('{"retentionInDays": 14}', 14),
            ("MaxRetentionSec=30day", 30),
            ('"delete": {"min_age": "30d", "actions": {"delete": {}}}', 30),
            ("# retention_days = 7\nretention_days = 30", 30),
            ("nothing of the kind", None),
        ],
    )
    def test_is_read(self, text, days):
        assert retention.days(text) == days

    def test_by_a_pattern(self):
        assert retention.days("keep: 30d", r"keep: (\d+)d") == 30
        assert retention.days("keep: long", r"keep: (\w+)") is None


def asked(kind="good", status=200, held=None, **more):
    line = {**GOOD, **(held or {})}
    base = {"kind": kind, "request": "GET /x", "host": "api.example.test", "status": status, "ours": ["one"], "told": ["one"]}
    return {**base, "known": True, "lines": [{k: v for k, v in line.items() if v is not None}], "plain": False, **more}


def history(*requests, declared=None, **facts):
    held = [line for one in requests for line in one["lines"]]
    counts = {"lines": len(held), "json": len(held), "plain": 0, "joined": len(held)}
    names = DECLARED if declared is None else declared
    base = {
        "gate": "sec.logs",
        "family": "logs",
        "logs.fields": json.dumps(names),
        "logs.requests": json.dumps(requests),
        "logs.counts": json.dumps(counts),
        "logs.ids": "1",
        "logs.filler": "0",
        "logs.anywhere": json.dumps({name: sorted({line[name] for line in held if name in line}) for name in names}),
        "logs.apart": json.dumps({name: [] for name in names}),
        "logs.forged": "0",
        "logs.private": "2",
        "logs.secrets": "1",
        "logs.leaks": "[]",
        "logs.audit": "[]",
        "logs.plain": "[]",
        "logs.tls": json.dumps([["TLSv1.3", "TLS_AES_256_GCM_SHA384"]]),
    }
    return History(experiment="logs", started=1.0, finished=2.0, facts=base | facts)


FINE = (asked(), asked("invalid", 400, {"error_code": "bad"}))


def outcomes(*requests, **facts):
    found = logs.check(history(*requests, **facts), Limits())
    return {one.check.partition(".")[0]: one.outcome for one in found}


class TestJudgement:
    def test_all_is_well(self):
        found = outcomes(*FINE)
        assert found.pop("retention") is Outcome.NOT_APPLICABLE
        assert set(found.values()) == {Outcome.PASS}

    @pytest.mark.parametrize(
        ("held", "check"),
        [
            ({"host": "other.example.test"}, "host"),
            ({"host": None}, "host"),
            ({"upstream_ip": "localhost"}, "upstream_ip"),
            ({"upstream_ip": None}, "upstream_ip"),
            ({"tls_version": "TLSv1.2"}, "tls_version"),
            ({"tls_version": "yes"}, "tls_version"),
            ({"tls_cipher": None}, "tls_cipher"),
            ({"tls_cipher": "TLS_AES_128_GCM_SHA256"}, "tls_cipher"),
            ({"error_code": "bad"}, "error_code"),
        ],
    )
    def test_one_field_is_wrong(self, held, check):
        found = outcomes(asked(held=held), FINE[1])
        assert [name for name, outcome in found.items() if outcome is Outcome.FAIL] == [check]

    def test_an_error_without_a_code(self):
        assert outcomes(asked(), asked("invalid", 400))["error_code"] is Outcome.FAIL

    def test_what_only_a_session_has_is_not_asked_of_errors(self):
        bare = {"upstream_ip": None, "tls_version": None, "tls_cipher": None, "error_code": "bad"}
        assert Outcome.FAIL not in outcomes(asked(), asked("invalid", 400, bare)).values()

    def test_tls_on_lines_of_connections(self):
        bare = {"tls_version": None, "tls_cipher": None}
        apart = json.dumps(
            {**{name: [] for name in DECLARED}, "tls_version": ["TLSv1.3"], "tls_cipher": ["TLS_AES_256_GCM_SHA384"]}
        )
        found = outcomes(asked(held=bare), **{"logs.apart": apart})
        assert (found["tls_version"], found["tls_cipher"]) == (Outcome.PASS, Outcome.PASS)

    def test_tls_of_requests_that_came_without(self):
        """It may be the edge's, which is not there: cannot tell. A version beside an empty cipher can be told."""
        found = outcomes(asked(held={"tls_version": "", "tls_cipher": ""}))
        assert (found["tls_version"], found["tls_cipher"]) == (Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE)
        assert outcomes(asked(held={"tls_cipher": ""}))["tls_cipher"] is Outcome.FAIL

    def test_an_answer_names_another_id(self):
        assert outcomes(asked(told=["two"], known=False))["request_id"] is Outcome.FAIL

    def test_a_request_without_a_line(self):
        assert outcomes(asked(), asked("invalid", 400, lines=[]))["request_id"] is Outcome.FAIL
        assert outcomes(asked(), asked("refused", 400, lines=[]))["request_id"] is Outcome.PASS
        assert outcomes(asked(), asked("good", None, lines=[]))["request_id"] is Outcome.PASS

    def test_nobody_is_told_an_id(self):
        loose = [asked(told=[], lines=[]) for _ in range(3)]
        counts = json.dumps({"lines": 3, "json": 3, "plain": 0, "joined": 0})
        assert outcomes(*loose, **{"logs.counts": counts, "logs.ids": "3"})["request_id"] is Outcome.PASS
        assert outcomes(*loose, **{"logs.counts": counts, "logs.ids": "2"})["request_id"] is Outcome.FAIL

    def test_two_lines_of_a_request(self):
        begin = {"request_id": "one"}
        assert Outcome.FAIL not in outcomes(asked(lines=[begin, GOOD])).values()

    def test_nothing_is_declared(self):
        found = outcomes(*FINE, declared={})
        assert {found[name] for name in logs.NAMES} == {Outcome.NOT_APPLICABLE}

    def test_plain_text(self):
        counts = json.dumps({"lines": 2, "json": 0, "plain": 2, "joined": 0})
        assert outcomes(asked(lines=[]), **{"logs.counts": counts})["lines"] is Outcome.FAIL
        assert outcomes(*FINE, asked(lines=[], plain=True))["lines"] is Outcome.FAIL
        assert outcomes(*FINE, **{"logs.forged": "1"})["lines"] is Outcome.FAIL

    def test_a_leak(self):
        leak = {"name": "email", "where": "query", "form": "in clear", "lines": 1, "line": "x <email>"}
        assert outcomes(*FINE, **{"logs.leaks": json.dumps([leak])})["privacy"] is Outcome.FAIL

    def test_audit_entries(self):
        refused = asked("refused", 400, host="x.invalid", held={"host": "x.invalid"})
        told = {"host": "x.invalid", "tells": True}
        assert outcomes(refused, **{"logs.audit": json.dumps([told])})["audit"] is Outcome.PASS
        assert outcomes(refused, **{"logs.audit": json.dumps([{**told, "tells": False}])})["audit"] is Outcome.FAIL
        assert outcomes(refused)["audit"] is Outcome.NOT_APPLICABLE

    @pytest.mark.parametrize(("seen", "outcome"), [("30", "pass"), ("14", "fail"), ("90", "fail"), ("", "inconclusive")])
    def test_retention(self, seen, outcome):
        facts = {"logs.retention": seen, "logs.retention_file": "logrotate.conf"}
        assert outcomes(*FINE, **facts)["retention"] == outcome

    def test_what_tells_of_a_refusal(self):
        assert lines.tells_refusal({"event": "host_refused"})
        assert lines.tells_refusal({"status": 400})
        assert lines.tells_refusal({"http": {"response": {"status_code": 421}}})
        assert lines.tells_refusal({"allowed": False})
        assert lines.tells_refusal({"audit": True, "host": "x"})
        assert not lines.tells_refusal({"event": "request", "host": "bad.invalid:80"}, "bad.invalid")
        assert not lines.tells_refusal({"event": "request", "error_code": "", "audit": None, "host": "x", "took": 3, "id": 12})
