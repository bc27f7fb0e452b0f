"""Prometheus text, which of it is for which panel, and what is made of two scrapes."""

import json

import pytest

from chaos.checks import Limits, metrics, panels
from chaos.model import History, Outcome

CONVENTIONS = {
    "errors_4xx": [
        'http_requests_total{route="/x",status="404"} 3',
        'http_server_requests_seconds_count{uri="/x",status="404",outcome="CLIENT_ERROR"} 3',
        'http_server_request_duration_seconds_count{http_route="/x",http_response_status_code="404"} 3',
        'http_requests_received_total{code="404",controller="x"} 3',
        'flask_http_request_total{method="GET",status="404"} 3',
        'starlette_requests_total{path_template="/x",status_code="4xx"} 3',
    ],
    "unknown_host": ["unknown_host_rejections_total 3", "host_rejected_total 3", "http_server_host_denied_total 3"],
    "tls_errors": [
        'database_connection_failures_total{class="tls"} 3',
        "db_tls_handshake_errors_total 3",
        "pgxpool_connect_errors_total 3",
    ],
    "pool_busy": [
        '# TYPE database_pool_connections gauge\ndatabase_pool_connections{state="busy"} 3\ndatabase_pool_connections{state="idle"} 9',
        "# TYPE hikaricp_connections_active gauge\nhikaricp_connections_active 3",
        '# TYPE db_client_connections_usage gauge\ndb_client_connections_usage{state="used"} 3\ndb_client_connections_usage{state="idle"} 9',
        "# TYPE go_sql_in_use_connections gauge\ngo_sql_in_use_connections 3\n# TYPE go_sql_idle_connections gauge\ngo_sql_idle_connections 9",
        "# TYPE pgxpool_acquired_conns gauge\npgxpool_acquired_conns 3\n# TYPE pgxpool_total_conns gauge\npgxpool_total_conns 9",
    ],
    "seo": ['seo_requests_total{status="200"} 3', "crawler_hits_total 3"],
    "retries": ["database_retries_total 3", "db_reconnect_attempts_total 3"],
    "latency": ['http_request_duration_seconds_bucket{le="1"} 2\nhttp_request_duration_seconds_count 3'],
    "pool_size": [
        "# TYPE database_pool_size gauge\ndatabase_pool_size 3\n# TYPE pg_database_size_bytes gauge\npg_database_size_bytes 9",
        "# TYPE hikaricp_connections_max gauge\nhikaricp_connections_max 3\n# TYPE hikaricp_connections gauge\nhikaricp_connections 9",
        "# TYPE pgxpool_max_conns gauge\npgxpool_max_conns 3\n# TYPE pgxpool_max_lifetime_destroy_count gauge\npgxpool_max_lifetime_destroy_count 9",
        "# TYPE go_sql_max_open_connections gauge\ngo_sql_max_open_connections 3",
    ],
    "attempts": ["database_connection_attempts_total 3\ndatabase_connection_failures_total 9", "pgxpool_new_conns_total 3"],
    "certificate_days": ["# TYPE db_cert_expiry_days gauge\ndb_cert_expiry_days 3"],
}


@pytest.mark.parametrize(("role", "text"), [(role, text) for role, texts in CONVENTIONS.items() for text in texts])
def test_conventions_are_recognised(role, text):
    values = panels.snapshot(panels.read(text + "\n"), {})["values"]
    assert list(values[role].values()) == [3]


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("errors_4xx", 'promhttp_metric_handler_requests_total{code="404"} 3'),
        ("errors_4xx", "http_requests_total 3"),
        ("unknown_host", "http_requests_total 3"),
        ("pool_busy", "# TYPE database_pool_size gauge\ndatabase_pool_size 3"),
        ("seo", "http_bottom_total 3"),
        ("latency", "http_request_duration_seconds_count 3"),
    ],
)
def test_what_is_something_else(role, text):
    assert not panels.snapshot(panels.read(text + "\n"), {})["values"][role]


def test_a_declared_name_is_the_only_one_that_counts():
    text = '# TYPE a gauge\na{state="busy"} 3\na{state="idle"} 9\n# TYPE hikaricp_connections_active gauge\nhikaricp_connections_active 7\n'
    assert panels.snapshot(panels.read(text), {"pool_busy": 'a{state="busy"}'})["values"]["pool_busy"] == {"a": 3}


@pytest.mark.parametrize("text", ["<!doctype html><p>x", "", "# only comments\n", '{"a": 1}', "a b c d\n", "\x00\x01"])
def test_what_is_no_exposition(text):
    with pytest.raises(panels.NotPrometheusError):
        panels.read(text)


def scrape(error="", **values):
    return {"error": error, "values": {"errors_4xx": {}, **values}, "series": 3, "unrouted": []}


def found(expected, before, after, **facts):
    base = {
        "gate": "rep.dashboards",
        "family": "metrics",
        "metrics.scrapes": json.dumps({"before": before, "after": after}),
        "metrics.expected": json.dumps(expected),
        "metrics.names": "{}",
        "metrics.steady": "yes",
    }
    made = metrics.check(History(experiment="metrics", started=1, facts=base | facts), Limits())
    return {one.check.partition(".")[0]: one for one in made}


class TestPanels:
    def test_moves(self):
        one = found({"errors_4xx": [10, 20]}, scrape(errors_4xx={"n": 5}), scrape(errors_4xx={"n": 16}))["errors_4xx"]
        assert (one.outcome, one.severity) == (Outcome.PASS, "")

    def test_stands_still(self):
        one = found({"errors_4xx": [10, 20]}, scrape(errors_4xx={"n": 5}), scrape(errors_4xx={"n": 5}))["errors_4xx"]
        assert one.outcome is Outcome.FAIL

    @pytest.mark.parametrize("moved", [7, 40])
    def test_counts_too_few_or_too_many(self, moved):
        one = found({"errors_4xx": [10, 20]}, scrape(errors_4xx={"n": 0}), scrape(errors_4xx={"n": moved}))["errors_4xx"]
        assert (one.outcome, one.severity) == (Outcome.PASS, "medium")

    def test_several_processes_cannot_be_told(self):
        before, after = scrape(errors_4xx={"n": 5}), scrape(errors_4xx={"n": 5})
        one = found({"errors_4xx": [10, 20]}, before, after, **{"metrics.steady": "no"})["errors_4xx"]
        assert one.outcome is Outcome.INCONCLUSIVE

    def test_there_is_none(self):
        one = found({"seo": [1, 0]}, scrape(), scrape())["seo"]
        assert (one.outcome, one.severity) == (Outcome.NOT_APPLICABLE, "medium")

    def test_one_that_is_named_has_to_be_there(self):
        one = found({"seo": [1, 0]}, scrape(), scrape(), **{"metrics.names": '{"seo": "landing_total"}'})["seo"]
        assert one.outcome is Outcome.FAIL

    def test_one_that_is_said_not_to_be_there_is_told_like_any_that_is_missing(self):
        one = found({"seo": [1, 0]}, scrape(), scrape(), **{"metrics.names": '{"seo": ""}'})["seo"]
        assert (one.outcome, one.severity) == (Outcome.NOT_APPLICABLE, "medium")

    def test_a_retry_that_nobody_made(self):
        one = found({"retries": [1, 0]}, scrape(retries={"n": 5}), scrape(retries={"n": 5}))["retries"]
        assert (one.outcome, one.severity) == (Outcome.NOT_APPLICABLE, "low")

    def test_the_pool(self):
        for busy, outcome in ((0, Outcome.FAIL), (1, Outcome.FAIL), (2, Outcome.PASS), (4, Outcome.PASS)):
            one = found({"pool_busy": [4, 0]}, scrape(pool_busy={"n": 0}), scrape(pool_busy={"n": busy}))["pool_busy"]
            assert one.outcome is outcome

    def test_nothing_to_read(self):
        made = found({"seo": [1, 0]}, scrape(), scrape(error="answered 500: no database"))
        assert made["endpoint"].outcome is Outcome.FAIL
        assert set(made) == {"endpoint"}

    @pytest.mark.parametrize(("value", "outcome"), [(364.5, "pass"), (31_500_000, "pass"), (9, "not_applicable")])
    def test_days(self, value, outcome):
        facts = {"metrics.days": "[365.0]", "metrics.ends": "[1900000000.0]"}
        values = {"certificate_days": {"days": value}}
        assert found({}, scrape(), scrape(**values), **facts)["certificate_days"].outcome == outcome
