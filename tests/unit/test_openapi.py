"""Descriptions that are broken, huge, without end, or lead out of the file: one clear error, or a note."""

import json
import time

import pytest

from chaos.errors import ConfigError
from chaos.traffic.openapi import LARGEST_JSON, LARGEST_YAML, MOST, parse, read

SMALL = {"openapi": "3.1.0", "paths": {"/items/{id}": {"get": {"responses": {}}}}}


def wrong(data):
    with pytest.raises(ConfigError) as caught:
        parse(data if isinstance(data, bytes) else json.dumps(data).encode(), where="openapi.yaml")
    assert caught.value.remedy
    return f"{caught.value.where}: {caught.value.what}"


def described(value):
    return parse(json.dumps({**SMALL, **value}).encode(), where="openapi.json")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"openapi": "3.1.0", "paths": ', "openapi.yaml:1: no JSON"),
        (b'{"openapi": "3.1.0",\n "paths": {,}}', "openapi.yaml:2: no JSON"),
        (b"openapi: 3.1.0\npaths:\n  - : :\n\t- x", "openapi.yaml:"),
        (b"[1, 2]", "a list, where a description is an object"),
        (b"<!doctype html><title>nothing here</title>", "a str, where a description is an object"),
        (b"{}", "neither `openapi` nor `swagger`"),
        (b'{"openapi": "4.0.0", "paths": {}}', "version '4.0.0' is not known"),
        (b'{"openapi": "3.1.0", "paths": []}', "`paths` is no object"),
        (b'{"openapi": "3.1.0", "paths": {}}', "declares no operation"),
        (b"!!python/object/apply:os.system ['true']", "neither JSON nor YAML"),
    ],
)
def test_a_broken_one_is_one_error(data, says):
    assert says in wrong(data)


def test_a_huge_one_is_refused_before_it_is_parsed(tmp_path):
    file = tmp_path / "openapi.json"
    with file.open("wb") as out:
        out.truncate(80 << 20)  # 80 MiB of nothing
    started = time.monotonic()
    with pytest.raises(ConfigError, match="at most 32 are read"):
        read(file)
    assert time.monotonic() - started < 5
    assert "at most 4 are read of YAML" in wrong(b"openapi: 3.1.0\n" + b"# padding\n" * (LARGEST_YAML // 10 + 1))


def test_a_large_one_below_the_limit_is_read():
    paths = {f"/things/{number}": {"get": {"description": "x" * 20_000, "responses": {}}} for number in range(1000)}
    data = json.dumps({"openapi": "3.0.3", "paths": paths}).encode()
    assert 15 << 20 < len(data) < LARGEST_JSON
    assert sum(1 for _ in parse(data, where="x").operations()) == 1000


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nested_without_end(opening):
    assert "nested" in wrong(opening.encode() * 100_000)
    assert "nested" in wrong({**SMALL, "x": json.loads("[" * 500 + "]" * 500)})


def test_aliases_that_hold_themselves_or_multiply():
    assert "nested more than" in wrong(b"openapi: 3.1.0\nx: &a [*a]\npaths: {/a: {get: {}}}")
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert f"more than {MOST:,} values" in wrong("\n".join(["openapi: 3.1.0", *laughs]).encode())


def test_a_schema_that_refers_to_itself_is_legal():
    tree = {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/Tree"}}}
    found = described({"components": {"schemas": {"Tree": tree}}})
    assert found.notes == ()
    assert found.resolve({"$ref": "#/components/schemas/Tree"})["type"] == "object"


def test_references_in_a_circle_out_of_the_file_or_nowhere():
    schemas = {
        "A": {"$ref": "#/components/schemas/B"},
        "B": {"$ref": "#/components/schemas/A"},
        "Far": {"$ref": "https://elsewhere.test/x.json"},
        "Near": {"$ref": "other.yaml#/x"},
        "Lost": {"$ref": "#/components/schemas/Nobody"},
    }
    found = described({"components": {"schemas": schemas}})
    assert found.resolve({"$ref": "#/components/schemas/A"}) == {}
    assert len(found.notes) == 3
    assert found.document["components"]["schemas"]["Far"] == {}


def test_yaml_with_numbers_and_dates():
    found = parse(
        b"swagger: '2.0'\nbasePath: /v1\ninfo: {version: 2026-11-27}\npaths:\n  /a/{id}:\n"
        b"    parameters: [{name: id, in: path}]\n    get: {responses: {200: {description: ok}}, parameters: [{name: q, in: query}]}\n",
        where="x",
    )
    (one,) = found.operations()
    assert (one.method, one.path, found.base()) == ("GET", "/a/{id}", "/v1")
    assert [each["name"] for each in one.parameters] == ["id", "q"]
    assert "200" in one.value["responses"]
    json.dumps(found.document)


@pytest.mark.parametrize(
    ("servers", "base"),
    [
        ([], ""),
        ([{"url": "/api/"}], "/api"),
        ([{"url": "https://api.acme.test/v2"}], "/v2"),
        ([{"url": "https://{region}.acme.test/v2"}], "/v2"),
        ([{"url": "/{tenant}"}], ""),
        ("nonsense", ""),
    ],
)
def test_where_the_paths_begin(servers, base):
    assert described({"servers": servers}).base() == base
