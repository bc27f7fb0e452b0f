"""Alerting and recording rules; promtool is the real one, and runs the tests that are exported with them."""

import hashlib
import json
import os
import subprocess
from dataclasses import asdict

import pytest
import yaml
from click.testing import CliRunner

from chaos.checks import panels
from chaos.cli import cli
from chaos.environments.local import prometheus as tools
from chaos.export import certificates, prometheus
from chaos.export.certificate_rules import SOON
from chaos.export.policy import Policy, number
from chaos.export.signals import signals
from chaos.gates import load

EVERY = os.environ.get("CHAOS_DETECTION") == "all"
NASTY = 'or"ders\n{{ .Labels }} \\ '
MICROMETER = """\
# TYPE http_server_requests_seconds histogram
http_server_requests_seconds_bucket{uri="/x",status="200",le="0.1"} 1
http_server_requests_seconds_bucket{uri="/x",status="200",le="+Inf"} 1
http_server_requests_seconds_count{uri="/x",status="200"} 1
http_server_requests_seconds_count{uri="/x",status="404"} 1
http_server_requests_seconds_count{uri="/x",status="503"} 1
# TYPE hikaricp_connections_active gauge
hikaricp_connections_active{pool="p"} 1
# TYPE hikaricp_connections_max gauge
hikaricp_connections_max{pool="p"} 10
"""
SHAPES = {  # as their own libraries serve them
    "Go": """\
# TYPE http_requests_total counter
http_requests_total{code="200",handler="/x",method="get"} 9
http_requests_total{code="500",handler="/x",method="get"} 1
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{handler="/x",le="0.1"} 9
http_request_duration_seconds_bucket{handler="/x",le="+Inf"} 10
http_request_duration_seconds_count{handler="/x"} 10
# TYPE host_rejected_total counter
host_rejected_total 3
# TYPE pgxpool_acquired_conns gauge
pgxpool_acquired_conns 1
# TYPE pgxpool_max_conns gauge
pgxpool_max_conns 4
# TYPE promhttp_metric_handler_requests_total counter
promhttp_metric_handler_requests_total{code="200"} 5
""",
    "Node": """\
# TYPE http_request_duration_milliseconds histogram
http_request_duration_milliseconds_bucket{route="/x",status_code="200",le="100"} 9
http_request_duration_milliseconds_bucket{route="/x",status_code="200",le="+Inf"} 9
http_request_duration_milliseconds_count{route="/x",status_code="200"} 9
http_request_duration_milliseconds_count{route="/x",status_code="503"} 1
""",
    ".NET": """\
# TYPE http_requests_received_total counter
http_requests_received_total{code="200",controller="x",action="y"} 9
http_requests_received_total{code="500",controller="x",action="y"} 1
# TYPE http_request_duration_seconds summary
http_request_duration_seconds{quantile="0.95"} 0.1
http_request_duration_seconds{quantile="0.99"} 0.1
http_request_duration_seconds_count 10
""",
}
DECLARED = {
    "errors_5xx": "app.requests",
    "latency": "app_latency_milliseconds",
    "pool_busy": 'app_pool{state="in\nuse"}',
    "seo": "",
    "retries": "app_retries",
}


def policy(names=(), *, text="", target="orders", job="orders", overrides=None):
    seen = panels.read(text) if text else None
    return Policy(target=target, gates=load(overrides), metrics=signals(dict(names), seen=seen, job=job), job=job)


def run(*arguments):
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def promtool(*arguments):
    done = subprocess.run([tools.ensure().promtool, *arguments], capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def alerts(text):
    return {rule["alert"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if "alert" in rule}


CASES = {
    "the reference's names": (policy(), prometheus.GROUPS),
    "declared names, and others' characters": (policy(DECLARED, target=NASTY, job=NASTY), ("target",)),
    "names that were seen": (policy(text=MICROMETER), ("target",)),
    "no budget, no unverified handshake": (policy(overrides={"rel.availability": 100.0, "sec.tls_handshake": 0.0}), ("target",)),
}

if EVERY:
    CASES |= {name: (policy(text=text), ("target",)) for name, text in SHAPES.items()}


@pytest.mark.parametrize(("made", "only"), CASES.values(), ids=CASES)
def test_promtool_agrees(tmp_path, made, only):
    """Each alert fires when it has to, and is silent when all is well, and in each state that only looks like the bad one."""
    (tmp_path / "rules.yml").write_text(prometheus.rules(made, only), encoding="utf-8")
    (tmp_path / "test.yml").write_text(prometheus.unit_tests(made, "rules.yml", only), encoding="utf-8")
    assert promtool("check", "rules", tmp_path / "rules.yml")[0] == 0
    code, said = promtool("test", "rules", tmp_path / "test.yml")
    assert code == 0, said


def test_each_alert_has_a_test_that_fires_it(tmp_path):
    made = policy()
    tested = {
        expectation["expr"].split('alertname="')[1].split('"')[0]
        for row in yaml.safe_load(prometheus.unit_tests(made, "rules.yml"))["tests"]
        for expectation in row["promql_expr_test"]
        if expectation["exp_samples"][0]["value"] == 1
    }
    assert tested == alerts(prometheus.rules(made))
    assert len(tested) >= 20


WRONG = {"alerts that never fire": "vector(0) > 1", **({"alerts that always fire": "vector(1)"} if EVERY else {})}


@pytest.mark.parametrize("instead", WRONG.values(), ids=WRONG)
def test_the_tests_find_alerts_that_are_wrong(tmp_path, instead):
    """The partner: with every expression replaced, each alert is named by promtool."""
    document = yaml.safe_load(prometheus.rules(policy(), ["target"]))
    for rule in document["groups"][0]["rules"]:
        if "alert" in rule:
            rule["expr"] = instead
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    (tmp_path / "test.yml").write_text(prometheus.unit_tests(policy(), "rules.yml", ["target"]), encoding="utf-8")
    code, said = promtool("test", "rules", tmp_path / "test.yml")
    assert code == 1
    missed = [one for one in alerts(yaml.safe_dump(document)) if f'alertname=\\"{one}\\"' not in said]
    assert not missed


# -- thresholds and names ----------------------------------------------------------------------------------------------------------


def test_the_threshold_is_the_gates(tmp_path):
    made = policy(overrides={"sec.cert_expiry": 45.0, "rel.p95": 200.0, "rel.availability": 99.0})
    text = prometheus.rules(made)
    assert "<= 45 * 86400" in text
    assert f"> {number(14.4 * 0.01)} and" in text
    assert "p95_5m{target=" in text
    assert "> 0.2\n" in text
    assert "<= 30 * 86400" in prometheus.rules(policy())
    assert load({"sec.cert_expiry": 45.0})["sec.cert_expiry"].threshold == "fires at <= 45 days"


def test_the_digest_is_that_of_the_gates_in_a_runs_policy(tmp_path):
    rows = json.loads(json.dumps([asdict(gate) for gate in load().values()]))  # as policy.json has them
    text = json.dumps(rows, sort_keys=True, separators=(",", ":"))
    assert policy().digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_same_input_is_the_same_bytes(tmp_path):
    written, unit = tmp_path / "rules.yml", tmp_path / "test.yml"
    assert run("prometheus", "-o", written, "--tests", unit).exit_code == 0
    assert written.read_text(encoding="utf-8") == run("prometheus").output
    assert f"sha256:{policy().digest}" in written.read_text(encoding="utf-8").splitlines()[1]
    assert policy().digest != policy(overrides={"rel.p95": 121.0}).digest


@pytest.mark.parametrize("role", ["errors_5xx", "latency", "unknown_host", "tls_errors", "retries", "pool_busy", "seo"])
def test_a_role_that_is_not_there_has_no_rule_and_a_word(role):
    some = policy({role: ""})
    text = prometheus.rules(some, ["target"])
    assert f"not watched: {role}, for which the target has no metric" in text
    assert alerts(text) < alerts(prometheus.rules(policy(), ["target"]))


def test_a_count_of_errors_only_is_divided_by_nothing():
    text = prometheus.rules(policy({"errors_5xx": "app_errors_total"}), ["target"])
    assert "ErrorBudget" not in text.replace("# ", "")
    assert "counts errors only" in text


def test_what_was_seen_is_what_is_selected():
    text = prometheus.rules(policy(text=MICROMETER), ["target"])
    assert 'http_server_requests_seconds_count{job="orders", status=~"5.."}' in text
    assert 'hikaricp_connections_active{job="orders"}' in text
    assert "not watched: unknown_host" in text


@pytest.mark.parametrize(
    ("shape", "selectors"),
    [
        (
            "Go",
            [
                'http_requests_total{job="orders", code=~"5.."}',
                'pgxpool_max_conns{job="orders"}',
                'host_rejected_total{job="orders"}',
            ],
        ),
        ("Node", ['milliseconds_count{job="orders", status_code=~"5.."}', 'milliseconds_bucket{job="orders"}[5m]))) / 1000']),
        (
            ".NET",
            [
                'http_requests_received_total{job="orders", code=~"5.."}',
                'max(http_request_duration_seconds{job="orders", quantile="0.99"})',
            ],
        ),
    ],
)
def test_other_languages_metrics_are_selected_by_their_own_labels(shape, selectors):
    text = prometheus.rules(policy(text=SHAPES[shape]), ["target"])
    assert all(one in text for one in selectors)
    assert "promhttp" not in text
    assert {"ErrorBudgetBurnsFast", "LatencyP95", "RequestMetricsGone"} <= alerts(text)


def test_a_summary_is_read_by_its_quantile():
    text = 'http_request_duration_seconds{quantile="0.95"} 1\nhttp_request_duration_seconds_count 1\n'
    made = prometheus.rules(policy(text="# TYPE http_request_duration_seconds summary\n" + text), ["target"])
    assert 'max(http_request_duration_seconds{job="orders", quantile="0.95"})' in made
    assert "LatencyP95" in alerts(made)
    assert "LatencyP99" not in alerts(made)


# -- bad input ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def target(tmp_path):
    """`target(more)`: the path of a chaos.toml with so much more in it."""

    def write(more, name="orders"):
        path = tmp_path / "chaos.toml"
        path.write_text(
            f'[target]\nname = {name}\nurl = "http://127.0.0.1:9"\nlive = "/"\n[[target.read]]\npath = "/"\n{more}',
            encoding="utf-8",
        )
        return path

    return lambda more, name='"orders"': write(more, name)


def test_without_metrics_it_says_that_nothing_applies(target):
    done = run("prometheus", "-c", target(""))
    assert done.exit_code == 0
    assert "# chaos-gate.target: not applicable: no [target.metrics]" in done.output
    assert SOON in alerts(done.output)
    assert "SoakStopped" in alerts(done.output)


@pytest.mark.parametrize("name", ["'''a\"b'''", "'''a\nb'''", "'a{b}'", "'a{b=\"c\"'", "'1st'", "'a b'"])
def test_a_name_that_is_no_metric_is_an_error_with_its_line(target, name):
    path = target(f"[target.metrics]\nnames = {{ seo = {name} }}")
    done = run("prometheus", "-c", path)
    assert done.exit_code == 2
    assert f"{path}:8: target.metrics.names.seo: " in done.output
    assert "is no metric" in done.output


def test_an_unknown_role_is_asked_about(target):
    path = target('[target.metrics]\nnames = { pool_bussy = "a" }')
    done = run("prometheus", "-c", path)
    assert (done.exit_code, "did you mean 'pool_busy'" in done.output) == (2, True)


@pytest.mark.parametrize("text", ["", "<html>", "\xff"])
def test_a_file_that_is_no_exposition(tmp_path, target, text):
    seen = tmp_path / "metrics.txt"
    seen.write_bytes(text.encode("latin-1"))
    done = run("prometheus", "-c", target("[target.metrics]\n"), "--metrics", seen)
    assert done.exit_code == 2
    assert str(seen) in done.output
    assert "Traceback" not in done.output


def test_tests_need_a_file_of_rules(tmp_path):
    done = run("prometheus", "--tests", tmp_path / "t.yml")
    assert (done.exit_code, "-o FILE" in done.output) == (2, True)


@pytest.mark.parametrize(
    "line",
    [
        '"rel.p95" = 0',
        '"rel.p99" = -1',
        '"rel.p95" = nan',
        '"rel.availability" = 101',
        '"sec.tls_handshake" = 100',
        '"sec.cert_expiry" = -1',
    ],
)
def test_a_limit_of_which_no_alert_can_be_made(target, line):
    done = run("prometheus", "-c", target(f"[gates]\n{line}"))
    assert (done.exit_code, "[gates]: " in done.output) == (2, True)
    assert "Traceback" not in done.output


def test_a_limit_of_zero_is_taken_where_it_means_something(target):
    done = run("prometheus", "-c", target('[target.metrics]\n[gates]\n"rel.availability" = 100\n"sec.cert_expiry" = 0'))
    assert done.exit_code == 0
    assert 'request_errors:ratio_rate1h{target="orders"} > 0 and' in done.output


def test_any_job():
    text = run("prometheus", "--job", "").output
    assert "rate(http_requests_total[5m])" in text
    assert "TargetDown" not in alerts(text)


def test_names_of_the_exporter_are_read():
    text = prometheus.rules(policy(), ["certificates"])
    assert all(name in text for name in (certificates.NOT_AFTER, certificates.PROBE, certificates.MATCHES))
