"""Secrets of more than twenty kinds in URLs, headers, logs, errors and configuration: none is found in anything that is left behind."""

import base64
import gzip
import json
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.detection.conftest import dumps
from tests.detection.tiny_run import Run

SERVICE = Path(__file__).with_name("telling_service.py")
HEX = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
B64 = "Zk9xT1p2Wm1KdU5xUnNWd1h5QmNEZUZn"
BEGIN = "-----" + "BEGIN"  # written apart, so that no file of ours looks as if it held a key
TOLD = {  # kind -> (the secret, how it stands in the wild)
    "password in a URL": ("pgUrlPa55word", "postgresql://app:pgUrlPa55word@db/app"),
    "libpq password": ("libpqPa55word", "host=db user=app password=libpqPa55word dbname=app"),
    "PGPASSWORD": ("envPa55word", "PGPASSWORD=envPa55word"),
    "ALTER ROLE": ("rolePa55word", "ALTER ROLE app PASSWORD 'rolePa55word'"),
    "SCRAM verifier": (B64 + "scram=", f"SCRAM-SHA-256$4096:{B64}${B64}=:{B64}scram="),
    "bearer": ("bearer." + HEX, f"Authorization: Bearer bearer.{HEX}"),
    "basic": ("dXNlcjpiYXNpY1BhNTU=", "authorization: Basic dXNlcjpiYXNpY1BhNTU="),
    "cookie": ("sid" + HEX, f"Cookie: theme=dark; sid=sid{HEX}"),
    "set-cookie": ("set" + HEX, f"Set-Cookie: sid=set{HEX}; HttpOnly"),
    "api key header": ("key" + HEX, f"X-Api-Key: key{HEX}"),
    "JSON web token": (f"eyJhbGciOi{B64}.eyJzdWIiOi{B64}.c2ln{B64}", f"got eyJhbGciOi{B64}.eyJzdWIiOi{B64}.c2ln{B64}"),
    "AWS key id": ("AKIA" + "ABCDEFGHIJKLMNOP", "AKIA" + "ABCDEFGHIJKLMNOP"),
    "AWS secret": ("awsSecret" + B64, f"AWS_SECRET_ACCESS_KEY=awsSecret{B64}"),
    "GitHub token": ("ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "with ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"),
    "GitLab token": ("glpat-" + "x1Y2z3A4b5C6d7E8f9G0", "using glpat-" + "x1Y2z3A4b5C6d7E8f9G0"),
    "Slack token": ("xoxb-" + "123456789012-abcdefABCDEF", "slack xoxb-" + "123456789012-abcdefABCDEF"),
    "Slack web-hook": ("T0/B0/" + HEX, f"https://hooks.slack.com/services/T0/B0/{HEX}"),
    "Stripe key": ("sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"),
    "Google key": ("AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "AIza" + "SyA1234567890abcdefghijklmnopqrstuv"),
    "npm token": ("npm_" + "a" * 30 + "B1c2D3", "npm_" + "a" * 30 + "B1c2D3"),
    "PyPI token": ("pypi-" + "AgEIcHlwaS5vcmc" + HEX, "pypi-" + "AgEIcHlwaS5vcmc" + HEX),
    "SendGrid key": (
        "SG." + "a1B2c3D4e5F6g7H8i9J0k1.L2m3N4o5P6q7R8s9T0u1V2",
        "SG." + "a1B2c3D4e5F6g7H8i9J0k1.L2m3N4o5P6q7R8s9T0u1V2",
    ),
    "Azure SAS": ("sas" + HEX, f"https://x.blob.example/y?sv=2026&sig=sas{HEX}"),
    "client secret in JSON": ("client" + HEX, json.dumps({"client_secret": "client" + HEX})),
    "form": ("form" + HEX, f"grant_type=password&passwd=form{HEX}"),
    "query": ("query" + HEX, f"GET /x?access_token=query{HEX}&page=2"),
    "private key": ("MIIE" + B64, f"{BEGIN} PRIVATE KEY-----\\nMIIE{B64}\\n-----END PRIVATE KEY-----"),
}
GIVEN = {  # what chaos.toml itself holds
    "header": "Bearer cfgheader" + HEX,
    "api key": "cfgapikey" + HEX,
    "environment": "cfgenv" + HEX,
    "read header": "cfgread" + HEX,
    "path": "cfgpath" + HEX,
}


@pytest.fixture
def config(tmp_path):
    def make(mode):
        tells = tmp_path / "tells.txt"
        tells.write_text("".join(f"{kind}\t{text}\n" for kind, (_, text) in TOLD.items()), encoding="utf-8")
        raw = {
            "target": {
                "name": "telling",
                "start": [sys.executable, str(SERVICE), "{port}", mode],
                "env": {"DATABASE_URL": "{database_url}", "TELLS": str(tells), "STRIPE_API_KEY": GIVEN["environment"]},
                "live": "/healthz",
                "ready": "/healthz",
                "startup_timeout": 10,
                "headers": {"Authorization": GIVEN["header"], "X-Api-Key": GIVEN["api key"]},
                "read": [{"path": f"/one?token={GIVEN['path']}", "headers": {"X-Auth-Token": GIVEN["read header"]}}],
                "invalid": [{"path": "/nothing", "expect": 404}],
                "errors": {"schema": "problem+json"},
            }
        }
        made = tmp_path / "chaos.toml"
        made.write_text(dumps({"target": {**raw["target"]}}), encoding="utf-8")
        return made

    return make


def shapes(secret):
    raw = secret.encode()
    return {raw, quote(secret, safe="").encode(), base64.b64encode(raw), json.dumps(secret)[1:-1].encode()}


def leaked(run):
    """Kind -> the files (and streams) in which its secret is found."""
    texts = {"stdout": run.stdout.encode(), "stderr": run.stderr.encode()}
    texts |= {
        str(path.relative_to(run.place)): path.read_bytes() for path in (run.place / "evidence").rglob("*") if path.is_file()
    }
    texts |= {name: gzip.decompress(text) for name, text in texts.items() if text.startswith(b"\x1f\x8b")}
    secrets = {kind: secret for kind, (secret, _) in TOLD.items()} | {
        kind: value.rpartition(" ")[2] for kind, value in GIVEN.items()
    }
    found = {
        kind: [name for name, text in texts.items() if any(one in text for one in shapes(secret))]
        for kind, secret in secrets.items()
    }
    return {kind: names for kind, names in found.items() if names}


def test_more_than_twenty_kinds():
    assert len(TOLD) >= 20
    assert all(secret in text for secret, text in TOLD.values())


def test_none_is_found_after_a_run_that_was_told_all_of_them(tmp_path, config):
    run = Run(tmp_path, config("serves"), only=("network.refused.new", "network.refused.pooled", "steady"))
    assert run.wait() == 1, run.told()
    assert (run.directory / "evidence.sqlite").stat().st_size > 0
    assert b"***" in (run.directory / "evidence.sqlite").read_bytes()  # they were there, and were taken out
    (gate,) = [one for one in run.evidence["gates"] if one["id"] == "rel.error_schema"]
    assert gate["verdict"] == "fail", gate
    assert leaked(run) == {}


def test_none_is_found_in_the_last_words_of_one_that_does_not_start(tmp_path, config):
    run = Run(tmp_path, config("dies"))
    assert run.wait() == 4, run.told()
    assert "***" in run.stderr
    assert leaked(run) == {}
