"""Healthy services whose logs and metrics look like nobody else's: none of them is accused.

Together with a test that the same service is red when its chaos.toml promises what it does not do: the shapes are really read.
"""

import os
import tomllib

import pytest

from tests.detection.conftest import TARGETS, dumps

CONFIG = TARGETS / "shapes" / "chaos.toml"
NESTED = {
    "host": "http.request.host",
    "request_id": "http.request.id",
    "upstream_ip": "client.address",
    "tls_version": "tls.version",
    "tls_cipher": "tls.cipher",
    "error_code": "error.code",
}
STYLES = {
    "ecs": NESTED,
    "buffered": NESTED,
    "otel": {
        "host": "server.address",
        "request_id": "trace_id",
        "upstream_ip": "network.peer.address",
        "tls_version": "tls.protocol.version",
        "tls_cipher": "tls.cipher",
        "error_code": "error.type",
    },
    "slog": {
        "host": "host",
        "request_id": "rid",
        "upstream_ip": "peer",
        "tls_version": "proto",
        "tls_cipher": "suite",
        "error_code": "err",
    },
}
EVERY = os.environ.get("CHAOS_DETECTION") == "all"
QUICK = ("lines.logs", "endpoint.metrics")
ALL = (*QUICK, "lines.logs.fault", "metrics.tls", "metrics.pool")


def shaped(directory, style, fields, **logs):
    raw = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    raw["target"] |= {"cwd": str(CONFIG.parent), "env": {**raw["target"]["env"], "STYLE": style}}
    raw["target"]["logs"] |= {"fields": fields, **logs}
    made = directory / "chaos.toml"
    made.write_text(dumps(raw), encoding="utf-8")
    return made


@pytest.mark.parametrize("style", STYLES if EVERY else ("otel", "slog"))
def test_healthy_is_clear(suite, tmp_path, style):
    result = suite(shaped(tmp_path, style, STYLES[style]), only=ALL if EVERY else QUICK)
    assert result.failed == set(), result.open_checks
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.open_checks
    passed = {check["id"] for check in result.evidence["checks"] if check["outcome"] == "pass"}
    assert {"request_id.logs", "privacy.logs", "errors_4xx.metrics", "unknown_host.metrics"} <= passed


def test_what_is_promised_and_not_kept_is_red(suite, tmp_path):
    """A field that no line has, and a retention of two weeks."""
    rotation = tmp_path / "logrotate.conf"
    rotation.write_text("/var/log/notices.log {\n  weekly\n  rotate 2\n}\n", encoding="utf-8")
    fields = {**NESTED, "error_code": "error.number"}
    result = suite(shaped(tmp_path, "ecs", fields, retention_file=str(rotation)), only=QUICK)
    assert set(result.failed_checks) == {"error_code.logs", "retention.logs"}, result.open_checks
    assert result.failed == {"sec.logs"}
