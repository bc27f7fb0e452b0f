"""What certainly deserves a 4xx, and what only looks like it; the same corpus from the same seed; smaller and smaller requests."""

import itertools
import json
from dataclasses import replace

import pytest

from chaos.config import Target
from chaos.targets.reference import openapi as reference
from chaos.traffic.corpus import Corpus, build, curl, thawed
from chaos.traffic.corpus.ask import Ask
from chaos.traffic.corpus.deserving import Rules
from chaos.traffic.corpus.generating import Maker
from chaos.traffic.corpus.shrink import shrink, tamed
from chaos.traffic.openapi import parse
from chaos.traffic.requests import Session

JSON = (("Content-Type", "application/json"),)
PARAMETERS = [
    {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "format": "int32", "minimum": 1}},
    {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
    {"name": "big", "in": "query", "schema": {"type": "integer"}},
    {"name": "deep", "in": "query", "schema": {"type": "boolean"}},
    {"name": "kind", "in": "query", "schema": {"$ref": "#/components/schemas/Kind"}},
    {"name": "tags", "in": "query", "schema": {"type": "array", "items": {"type": "integer"}}},
    {"name": "maybe", "in": "query", "schema": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
    {"name": "note", "in": "query", "schema": {"type": "string", "maxLength": 5}},
    {"name": "odd", "in": "query", "schema": {"type": "string", "pattern": "^\\p{L}+$"}},
    {"name": "X-Trace", "in": "header", "required": True, "schema": {"type": "string"}},
]
ITEM = {
    "type": "object",
    "required": ["name", "id"],
    "properties": {
        "id": {"type": "integer", "readOnly": True},
        "name": {"type": "string", "minLength": 1},
        "size": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "nullable": True},
        "child": {"$ref": "#/components/schemas/Item"},
    },
}


def described(version="3.0.3", **more):
    document = {
        "openapi": version,
        "paths": {
            "/items/{id}": {"parameters": PARAMETERS, "get": {"responses": {}}},
            "/items/special": {"get": {"responses": {}}},
            "/items": {
                "post": {
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
                    },
                    "responses": {},
                }
            },
        },
        "components": {"schemas": {"Kind": {"type": "string", "enum": ["a", "b"]}, "Item": ITEM}},
        **more,
    }
    return parse(json.dumps(document).encode(), where="openapi.json")


def why(target, *, method="GET", headers=(("X-Trace", "t"),), body=b"", given=frozenset()):
    found = described()
    ask = Ask(key="x", source="boundary", method=method, target=target, headers=headers, body=body)
    declared = next(one for one in found.operations() if one.method == method and ("{" in one.path) == (method == "GET"))
    return Rules(found, given).why(ask, declared)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/items/abc", "schema: path id"),
        ("/items/0", "schema: path id"),
        ("/items/1.5", "schema: path id"),
        ("/items/2147483648", "schema: path id"),
        ("/items/1?limit=101", "schema: query limit"),
        ("/items/1?limit=1e9", "schema: query limit"),
        ("/items/1?limit=", "schema: query limit"),
        ("/items/1?deep=maybe", "schema: query deep"),
        ("/items/1?kind=c", "schema: query kind"),
        ("/items/1?maybe=x", "schema: query maybe"),
        ("/items/1?note=123456", "schema: query note"),
        ("/items/1?note=a%00b", "unstorable: query note"),
        ("/items/1?big=9223372036854775808", "unstorable: query big"),
        ("/items/1?big=-99999999999999999999", "unstorable: query big"),
    ],
)
def test_certainly_wrong(target, says):
    assert why(target).startswith(says)


@pytest.mark.parametrize(
    "target",
    [
        "/items/1",
        "/items/%2B1",
        "/items/1.0",  # a lenient server reads it as a whole number
        "/items/special",  # another route
        "/items/1%2F2",  # one segment or two?
        "/items/",
        "/items/..",
        "/items/1?limit=100&other=x",
        "/items/1?limit=5&limit=x",  # the first or the last?
        "/items/1?deep=TRUE",
        "/items/1?deep=on",
        "/items/1?kind=a",
        "/items/1?tags=x",  # an array can be spelt in many ways
        "/items/1?maybe=",
        "/items/1?note=12345",
        "/items/1?note=99999",
        "/items/1?odd=7",  # a pattern that Python does not know
        "/items/1?big=9223372036854775807",
    ],
)
def test_perhaps_right(target):
    assert why(target) == ""


def test_headers():
    assert why("/items/1", headers=()).startswith("schema: header X-Trace is missing")
    assert why("/items/1", headers=(), given=frozenset({"x-trace"})) == ""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "schema: the body is missing"),
        (b"{", "schema: the body is no JSON"),
        (b'{"name": NaN}', "schema: the body is no JSON"),
        (b"\xff", "schema: the body is no JSON"),
        (b"[]", "schema: body"),
        (b"{}", "schema: body"),
        (b'{"name": ""}', "schema: body"),
        (b'{"name": "x", "size": 0}', "schema: body"),
        (b'{"name": "x", "child": {"name": 7}}', "schema: body"),
        (b'{"name": "a\\u0000"}', "unstorable: body name"),
        (b'{"name": "x", "size": 99999999999999999999}', "unstorable: body size"),
        (b'{"name": "x"}', ""),  # what is readOnly is not asked for
        (b'{"name": "x", "size": null, "more": 1}', ""),
        (b'{"name": "99999999999999999999"}', ""),
    ],
)
def test_bodies(body, says):
    found = why("/items", method="POST", headers=JSON, body=body)
    assert found.startswith(says)
    assert bool(found) == bool(says)


def test_a_media_type_that_is_not_declared():
    assert why("/items", method="POST", headers=(("Content-Type", "text/plain"),), body=b"x").startswith("schema: media type")


def session(**more):
    target = Target.model_validate(
        {
            "name": "t",
            "url": "http://127.0.0.1:9",
            "live": "/healthz",
            "headers": {"Authorization": "Bearer s3cret"},
            "read": [{"path": "/api/items/7?name=x"}],
            "invalid": [{"path": "/api/items/x", "expect": 400}, {"path": "/api/items", "method": "POST", "json": {"name": ""}}],
            **more,
        }
    )
    return Session(target, "http://127.0.0.1:9")


def made(seed=1, **more):
    found = parse(json.dumps(reference.document("v1")).encode(), where="x")
    return build(session(), description=found, wanted=100, seed=seed, thesis=False, **more)


def test_the_same_corpus_from_the_same_seed():
    first, again, other = made(), made(), made(seed=2)
    assert first == again
    assert {one.identity for one in first.asks} != {one.identity for one in other.asks}
    assert len({one.identity for one in first.asks}) == len(first.asks)
    assert first.asks[0].why == "listed"


def test_all_of_it_comes_back_from_the_disk():
    first = made()
    assert thawed(first.frozen(), session()) == first


def test_a_target_elsewhere_is_sent_nothing_made_up_that_could_change_it():
    assert {one.method for one in made().asks if one.source != "listed"} <= {"GET", "HEAD"}


def test_requests_that_could_harm_what_others_need_are_left_out():
    found = described(
        paths={"/api/items/{id}": {one: {"parameters": PARAMETERS[:1], "responses": {}} for one in ("get", "put", "delete")}}
    )
    known = Ask(key="", source="good", method="GET", target="/api/items/7")
    rules = Rules(found)
    asks = list(Maker(rules, (known,), 1).boundary())
    operations = {f"{one.method} {one.path}": one for one in found.operations()}
    deleted = [one for one in asks if one.method == "DELETE"]
    assert deleted
    assert all(rules.why(one, operations[one.route]).startswith("schema: path") for one in deleted)
    assert not [one for one in asks if one.method in {"PUT", "DELETE"} and one.target == "/api/items/7"]


def test_schemathesis_makes_the_same_from_the_same_seed():
    found = described(
        info={"title": "t", "version": "1"}, paths={"/items/{id}": {"get": {"parameters": PARAMETERS[:2], "responses": {}}}}
    )
    few = [list(Maker(Rules(found), (), 5).negative(20)) for _ in range(2)]
    assert few[0] == few[1]
    assert len(few[0]) >= 15
    assert all(one.known() for one in few[0])


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/components/schemas/Tree"},
        {"allOf": [{"$ref": "#/components/schemas/Tree"}]},
        {"type": "nonsense"},
        {"type": "string", "pattern": "["},
        {"type": "object", "properties": 7},
        {"minimum": "x"},
        True,
        7,
    ],
)
def test_schemas_that_turn_in_circles_or_are_nonsense(schema):
    tree = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "child": {"$ref": "#/components/schemas/Tree"}},
    }
    post = {
        "requestBody": {"content": {"application/json": {"schema": schema}}},
        "parameters": [{"name": "q", "in": "query", "schema": schema}],
    }
    document = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/a": {"post": post}}}
    found = parse(json.dumps({**document, "components": {"schemas": {"Tree": tree}}}).encode(), where="x")
    corpus = build(replace_url(session()), description=found, wanted=40, seed=1, thesis=True)
    assert isinstance(corpus, Corpus)
    assert any(one.source == "boundary" for one in corpus.asks)


def replace_url(one):
    """The same target, but started by us: then it may be written to."""
    target = one.target.model_copy(update={"url": None})
    return Session(target, one.base_url)


def test_smaller_and_smaller():
    ask = Ask(
        key="x",
        source="generated",
        method="POST",
        target="/items?a=1&limit=x&b=2&c=3",
        headers=(("X-One", "1"), *JSON, ("X-Two", "2")),
        body=json.dumps({"name": 7, "size": 1, "child": {"name": "x" * 300, "list": [1, 2, 3]}}).encode(),
    )
    calls = []

    def holds(one):
        calls.append(one)
        return "limit=x" in one.target and b'"name": 7' in one.body

    chain = shrink(ask, holds)
    assert chain[0] == ask
    assert (chain[-1].target, chain[-1].headers, chain[-1].body) == ("/items?limit=x", JSON, b'{"name": 7}')
    assert all(later.size < earlier.size for earlier, later in itertools.pairwise(chain))
    assert len(calls) <= 60
    assert len(shrink(ask, lambda _: True, tries=3)) <= 4


def test_a_text_that_is_no_json_is_cut_down_too():
    ask = Ask(key="x", source="boundary", method="POST", target="/items", headers=JSON, body=b"[" * 2000)
    assert len(shrink(ask, lambda one: one.body.startswith(b"["))[-1].body) <= 16


def test_what_no_database_can_hold_made_harmless():
    ask = Ask(
        key="x", source="boundary", method="POST", target="/a/99999999999999999999?q=a%00b", body=b'{"n": 1e3, "t": "\\u0000"}'
    )
    assert tamed(ask) == replace(ask, target="/a/1?q=axb", body=b'{"n": 1e3, "t": "x"}')


def test_curl_holds_no_secret_and_can_be_pasted():
    ask = Ask(
        key="x", source="recorded", method="POST", target="/a?token=s3cret&q='x'", headers=(("X-API-Key", "s3cret"),), body=b"a'b"
    )
    line = curl(ask, session())
    assert "s3cret" not in line
    assert "Authorization: ***" in line
    assert "token=***" in line
    assert "--data-binary 'a'\"'\"'b'" in line
    assert curl(replace(ask, body=b"\x00\xff"), session()).startswith("printf '\\000\\377' | curl")
