"""Descriptions that are broken, or that lie about the service: one finding, no crash, and the service is not blamed for it."""

import json
import tomllib

import pytest

from tests.detection.conftest import TARGETS, dumps

FLASK = TARGETS / "flask_psycopg2" / "chaos.toml"
TREE = {
    "type": "object",
    "required": ["title"],
    "properties": {"title": {"type": "string"}, "child": {"$ref": "#/components/schemas/Tree"}},
}
LYING = {
    "openapi": "3.0.3",
    "info": {"title": "tickets", "version": "1"},
    "paths": {
        "/tickets/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"responses": {}},
        },
        "/tickets": {
            # The service neither looks at `colour` nor knows of trees, and there is no /ghosts.
            "get": {"parameters": [{"name": "colour", "in": "query", "schema": {"type": "integer"}}], "responses": {}},
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}},
                },
                "responses": {},
            },
        },
        "/ghosts": {"get": {"parameters": [{"name": "n", "in": "query", "schema": {"type": "integer"}}], "responses": {}}},
    },
    "components": {
        "schemas": {
            "Tree": TREE,
            "Lost": {"$ref": "#/components/schemas/Nobody"},
            "Circle": {"$ref": "#/components/schemas/Circle"},
        }
    },
}


@pytest.fixture
def described(suite, tmp_path):
    """`described(text)`: a short run of the corpus against a Flask service with this description."""

    def run(text):
        (tmp_path / "openapi.yaml").write_text(text, encoding="utf-8")
        raw = tomllib.loads(FLASK.read_text(encoding="utf-8"))
        raw["target"]["cwd"] = str(FLASK.parent)
        raw["target"]["openapi"] = {"file": str(tmp_path / "openapi.yaml")}
        config = tmp_path / "chaos.toml"
        config.write_text(dumps(raw), encoding="utf-8")
        return suite(config, only=("corpus.sample",))

    return run


def test_one_that_lies_is_told_and_nobody_is_blamed(described):
    result = described(json.dumps(LYING))
    assert (result.code, result.evidence["verdict"]) == (0, "CLEAR"), result.open_checks
    (check,) = [one for one in result.evidence["checks"] if one["id"] == "corpus.sample"]
    assert "GET /ghosts" in check["detail"]
    assert "that the description calls invalid were served" in check["detail"]
    assert "'#/components/schemas/Nobody' leads nowhere" in check["detail"]


def test_one_that_is_broken_is_one_finding(described):
    result = described("openapi: 3.1.0\npaths:\n  /a: [}\n")
    assert (result.code, result.evidence["verdict"]) == (3, "INCONCLUSIVE"), result.open_checks
    outcomes = {check["id"]: (check["outcome"], check["detail"]) for check in result.evidence["checks"]}
    assert outcomes["corpus.sample"][0] == "pass"
    outcome, detail = outcomes["openapi.corpus.sample"]
    assert outcome == "inconclusive"
    assert "openapi.yaml:3: neither JSON nor YAML" in detail
    assert "Traceback" not in result.shown
