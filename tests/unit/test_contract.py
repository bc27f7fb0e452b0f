"""The contract's parts: shapes and their comparison, what a release says about itself, and what becomes of it."""

import json

import pytest
from genson import SchemaBuilder

from chaos.checks.contract import check
from chaos.checks.limits import Limits
from chaos.checks.shapes import compare, control, members
from chaos.environments.local import go_module, oasdiff
from chaos.errors import ConfigError, EvidenceUnwritable, PartMissing
from chaos.experiment.claims import NOTHING, Claims
from chaos.experiment.differ import difference
from chaos.experiment.recorded import Recorded
from chaos.model import History, Outcome
from chaos.traffic.openapi import parse


def schema(*values):
    builder = SchemaBuilder(schema_uri=None)
    for value in values:
        builder.add_object(value)
    return builder.to_schema()


def shape(*values, media="application/json", headers=("location",), seen=None):
    return {
        "count": len(values) or 1,
        "media": [media],
        "headers": list(headers),
        "seen": list(headers if seen is None else seen),
        "schema": schema(*values) if values else None,
    }


ITEM = {"id": 1, "name": "a", "tags": [{"k": "v"}], "price": 1}
BREAKING = [
    ({"id": 1, "name": "a", "price": 1, "tags": []}, {"id": 1, "price": 1, "tags": []}, "member $.name is gone"),
    (ITEM, {**ITEM, "id": "1"}, "$.id was integer and is string"),
    (ITEM, {**ITEM, "name": None}, "$.name was string and is null"),
    (ITEM, {**ITEM, "tags": {}}, "$.tags was array and is object"),
    (ITEM, {**ITEM, "tags": [{}]}, "member $.tags[].k is gone"),
    ([ITEM], ITEM, "$ was array and is object"),
]
HARMLESS = [
    (ITEM, {**ITEM, "more": 1}),
    (ITEM, {**ITEM, "price": 1.5}),
    ({**ITEM, "price": 1.5}, ITEM),
    (ITEM, {**ITEM, "tags": []}),
    ({**ITEM, "tags": []}, ITEM),
    ({**ITEM, "name": None}, ITEM),
    (ITEM, {**ITEM, "name": "another", "id": 77}),
]


@pytest.mark.parametrize(("before", "after", "said"), BREAKING)
def test_what_breaks(before, after, said):
    assert said in [one.text for one in members(schema(before), schema(after)) if one.breaking]


@pytest.mark.parametrize(("before", "after"), HARMLESS)
def test_what_does_not_break(before, after):
    assert not [one.text for one in members(schema(before), schema(after)) if one.breaking]


def test_optional_members_and_keys_that_are_data_are_not_expected():
    before = schema({"a": 1, "counts": {"x1": 1}}, {"a": 1, "b": 2, "counts": {"x2": 1}})
    assert not [one for one in members(before, schema({"a": 1, "counts": {"x3": 1}})) if one.breaking]


def test_a_member_that_is_only_sometimes_there_now():
    found = list(members(schema(ITEM, ITEM), schema(ITEM, {"id": 1, "tags": [], "price": 1})))
    assert [one.text for one in found if one.breaking] == ["member $.name was always there, and is not any more"]


def test_null_now_and_then_is_listed():
    found = list(members(schema(ITEM, ITEM), schema(ITEM, {**ITEM, "name": None})))
    assert [(one.text, one.breaking) for one in found] == [("$.name can be null now", False)]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"200": shape(ITEM)}, {"201": shape(ITEM)}, "status 200 became 201"),
        ({"200": shape(ITEM)}, {}, "answered 200 before, and not at all now"),
        (
            {"404": shape(media="application/problem+json")},
            {"404": shape(media="text/html")},
            "media type application/problem+json",
        ),
        ({"201": shape(ITEM)}, {"201": shape(ITEM, headers=())}, "response header location is gone"),
    ],
)
def test_what_breaks_around_the_body(before, after, said):
    assert any(said in one.text for one in compare(before, after) if one.breaking)


def test_fields_of_the_connection_are_nobodys_contract():
    before = {"200": shape(ITEM, headers=("date", "server", "connection", "x-request-id"))}
    assert not compare(before, {"200": shape(ITEM, headers=("x-request-id",))})


def test_where_the_baseline_differs_from_itself_nothing_is_expected():
    unsteady = control({"200": shape(ITEM)}, {"200": shape({**ITEM, "price": "free"})})
    assert unsteady == {"200:$.price"}
    found = compare({"200": shape(ITEM)}, {"200": shape({**ITEM, "price": {"eur": 1}})})
    assert found
    assert all(one.within(unsteady) for one in found)
    assert not compare({"200": shape(ITEM)}, {"200": shape({"id": 1})})[0].within(unsteady)


# -- the description -----------------------------------------------------------------------------------------------------------------


def described(version="3.1.0", **responses):
    answers = {
        status: {"description": "x", "content": {"application/json": {"schema": one}}} for status, one in responses.items()
    }
    document = {
        "openapi": version,
        "info": {"title": "t", "version": "1"},
        "paths": {"/items/{id}": {"get": {"responses": answers}}},
        "components": {
            "schemas": {
                "Node": {
                    "type": "object",
                    "required": ["id"],
                    "properties": {"id": {"type": "integer"}, "next": {"$ref": "#/components/schemas/Node"}},
                },
                **{f"Fork{number}": {"anyOf": [{"$ref": f"#/components/schemas/Fork{number + 1}"}] * 2} for number in range(40)},
                "Fork40": {"type": "string"},
                "Loop": {"$ref": "#/components/schemas/Loop"},
                "Bad": {"type": "object", "properties": {"a": {"minimum": "x", "type": 7}}, "pattern": "(("},
            }
        },
    }
    return parse(json.dumps(document).encode(), where="x")


def told(description, value, *, status=200, media="application/json", path="/items/7?x=1"):
    return list(Claims(description).contradicted("GET", path, status, media, value))


NODE = {"$ref": "#/components/schemas/Node"}


def test_answers_against_their_own_description():
    one = described(**{"200": NODE})
    assert told(one, {"id": 1, "next": {"id": 2}}) == []
    assert told(one, {"id": 1, "next": {"id": "2"}}) == ["GET /items/{id} 200: $.next.id: type"]
    assert told(one, {"next": {}}) == ["GET /items/{id} 200: $: required", "GET /items/{id} 200: $.next: required"]
    assert told(one, NOTHING, media="text/html") == ["GET /items/{id} 200: media type"]
    assert told(one, {}, status=202) == ["GET /items/{id} 202: status"]
    assert told(one, {}, status=418) == []
    assert told(one, {}, path="/elsewhere") == []


def test_the_older_dialect():
    schema_30 = {"type": "string", "nullable": True}
    limits = {"type": "integer", "minimum": 0, "exclusiveMinimum": True}
    assert told(described("3.0.3", **{"200": schema_30}), None) == []
    assert told(described("3.0.3", **{"200": limits}), 0) == ["GET /items/{id} 200: $: exclusiveMinimum"]
    assert told(described("3.0.3", **{"200": limits}), 1) == []


@pytest.mark.parametrize("name", ["Loop", "Bad", "Missing", "Fork0"])
def test_a_schema_that_cannot_be_used_says_nothing(name):
    assert told(described(**{"200": {"$ref": f"#/components/schemas/{name}"}}), {"a": 1}) == []


def test_the_same_description_needs_no_tool(tmp_path):
    def none():
        raise PartMissing("not to be had", remedy="none", where="oasdiff")

    one, other = described(**{"200": NODE}), described(**{"200": {"type": "string"}})
    assert difference(one, one, room=tmp_path, tool=none) == {"same": True, "operations": 1}
    assert "not to be had" in difference(one, other, room=tmp_path, tool=none)["unasked"]


def test_a_tool_that_fails_leaves_it_open(tmp_path):
    tool = tmp_path / "oasdiff"
    tool.write_text("#!/bin/sh\necho cannot >&2\nexit 102\n")
    tool.chmod(0o755)
    one, other = described(**{"200": NODE}), described(**{"200": {"type": "string"}})
    assert difference(one, other, room=tmp_path, tool=lambda: tool) == {
        "unasked": "oasdiff cannot read them: cannot",
        "operations": 1,
    }


def test_a_description_nested_without_end_is_one_error():
    with pytest.raises(ConfigError):
        parse(b'{"openapi": "3.1.0", "paths": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, where="x")


# -- judging -------------------------------------------------------------------------------------------------------------------------


def findings(**facts):
    same = {"baseline": {"200": shape(ITEM)}, "first": {}, "second": {}, "candidate": {"200": shape(ITEM)}}
    known = {"shapes": json.dumps({"GET /items (read[0])": same})} | {key: json.dumps(one) for key, one in facts.items()}
    return {one.check: one for one in check(History(experiment="contract", started=0.0, facts=known), Limits())}


def change(level, **more):
    return {"id": "some-rule", "text": "changed", "level": level, "operation": "GET", "path": "/items", **more}


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        ({"same": True, "operations": 3}, Outcome.PASS),
        ({"changes": [], "operations": 3}, Outcome.PASS),
        ({"changes": [change(1), change(2)]}, Outcome.PASS),
        ({"changes": [change(3), change(1)]}, Outcome.FAIL),
        ({"lost": "no JSON"}, Outcome.FAIL),
        ({"broken": "no JSON"}, Outcome.INCONCLUSIVE),
        ({"unasked": "no tool"}, Outcome.INCONCLUSIVE),
    ],
)
def test_the_descriptions_finding(document, outcome):
    found = findings(document=document)
    assert found["document.contract"].outcome is outcome
    assert found["answers.contract"].outcome is Outcome.PASS
    assert {one.gate for one in found.values()} == {"rel.api_contract"}


def test_what_only_people_can_judge_is_reported():
    found = findings(document={"changes": [change(2), change(1, text="added")]})["document.contract"]
    assert found.severity == "medium"
    assert "For people to judge: GET /items: changed" in found.detail
    assert "added" in found.detail


def test_without_a_description_shapes_alone_are_compared():
    assert set(findings()) == {"answers.contract"}


def test_a_contradiction_fails_only_where_it_is_new():
    old = {"GET /a 200: $: type": "1 is not of type 'string'"}
    known = findings(claims={"checked": 4, "baseline": old, "candidate": old})["claims.contract"]
    assert (known.outcome, known.severity) == (Outcome.PASS, "medium")
    new = findings(claims={"checked": 4, "baseline": {}, "candidate": old})["claims.contract"]
    assert new.outcome is Outcome.FAIL
    assert findings(claims={"checked": 0, "baseline": {}, "candidate": {}})["claims.contract"].outcome is Outcome.NOT_APPLICABLE


def test_a_baseline_that_answers_nothing_proves_nothing():
    sides = {"baseline": {}, "first": {}, "second": {}, "candidate": {}}
    assert findings(shapes={"GET /items": sides})["answers.contract"].outcome is Outcome.INCONCLUSIVE


# -- where oasdiff comes from --------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Neither on PATH nor in the cache; Go is a script of the test's own."""
    monkeypatch.setenv("CHAOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    def go(script):
        path = tmp_path / "go"
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(go_module, "machines_go", lambda _oldest: path)

    return go


def test_a_machine_without_it_and_without_a_network_says_so(elsewhere):
    elsewhere('echo "dial tcp: lookup proxy: no such host" >&2; exit 1')
    with pytest.raises(PartMissing, match="could not be had from the Go module proxy") as raised:
        oasdiff.ensure()
    assert "no such host" in raised.value.render()
    assert oasdiff.find() is None


def test_another_module_than_the_pinned_one_is_not_used(elsewhere):
    elsewhere(
        """[ "$1" = version ] && exit 0; mkdir -p out; printf '#!/bin/sh\\necho oasdiff version 1.37.0' > out/oasdiff; chmod +x out/*"""
    )
    with pytest.raises(PartMissing, match="is not oasdiff"):
        oasdiff.ensure()
    assert oasdiff.find() is None


@pytest.mark.parametrize(
    ("version", "taken"), [("1.37.0", True), ("1.40.2", True), ("1.9.9", False), ("2.0.0", False), ("main", False)]
)
def test_what_is_on_path_is_taken_when_it_is_of_this_kind(elsewhere, tmp_path, version, taken):
    del elsewhere
    path = tmp_path / "oasdiff"
    path.write_text(f"#!/bin/sh\necho 'oasdiff version {version}'\n", encoding="utf-8")
    path.chmod(0o755)
    assert oasdiff.find() == (path if taken else None)


# -- the recorded contract -----------------------------------------------------------------------------------------------------------


def test_a_recorded_contract_comes_back_as_it_was(tmp_path):
    shapes = {"GET /items (read[0])": {"all": {"200": shape(ITEM)}, "first": {}, "second": {}}}
    made = Recorded(shapes=shapes, description=described(**{"200": NODE}), claims={"a": "b"})
    made.write(tmp_path / "contract.json")
    back = Recorded.read(tmp_path / "contract.json")
    assert (back.shapes, back.claims) == (shapes, {"a": "b"})
    assert back.description.document == made.description.document


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 2, "shapes": {}}', '{"version": 1, "shapes": {"a": {}}}', "[" * 9000]
)
def test_what_is_no_recorded_contract_is_one_error(tmp_path, text):
    place = tmp_path / "contract.json"
    place.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="not a recorded contract") as raised:
        Recorded.read(place)
    assert "records it anew" in raised.value.render()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(EvidenceUnwritable, match="cannot be recorded"):
        Recorded(shapes={}).write(tmp_path / "nowhere" / "contract.json")
