"""Whether a request, as it is on the wire, is certainly invalid by the target's own description. In doubt it is not.

A generator's word that a request is 'negative' is not enough to accuse anybody: what it meant as a number arrives as text, and
servers read text in more than one way. So every reading that a lenient server may make of a value is tried, and only when the schema
refuses all of them the request is wrong. `format` is asserted for int32 and int64 only (OpenAPI 3.1, 4.4.2), patterns as far as they
are valid in Python as well, and what is marked readOnly is not asked for in a request.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from chaos.traffic.corpus.ask import query_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jsonschema.protocols import Validator

    from chaos.traffic.corpus.ask import Ask
    from chaos.traffic.openapi import Declared, Description

TRUE, FALSE = {"true", "1", "yes", "on", "t", "y"}, {"false", "0", "no", "off", "f", "n"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
RANGES = {"int32": 1 << 31, "int64": 1 << 63}
BIGINT = 1 << 63  # PostgreSQL 8.1.1: nothing wider is an integer there
SHOWN = 40


@dataclass
class Rules:
    """What one description says of requests. `given` are headers, in lower case, that every request of the suite carries."""

    description: Description
    given: frozenset[str] = frozenset()
    _made: dict[str, Validator | None] = field(default_factory=dict)
    _shared: dict[str, Any] | None = None

    def why(self, ask: Ask, declared: Declared) -> str:
        """'schema: ...', 'unstorable: ...' or '', for a request that was made for this operation."""
        path = urlsplit(ask.target).path
        try:
            wrong = self._parameters(ask, declared, path) or self._body(ask, declared)
            return f"schema: {wrong}" if wrong else self._unstorable(ask, declared, path)
        except Exception:  # noqa: BLE001  (a schema that cannot be applied proves nothing, whichever library stumbles over it)
            return ""

    # -- parameters -------------------------------------------------------------------------------------------------------------

    def _values(self, ask: Ask, declared: Declared, path: str) -> Iterator[tuple[Mapping[str, Any], str, list[str]]]:
        """(parameter, where, its values on the wire) for path, query and header parameters."""
        in_path = path_values(declared.path, path.removeprefix(self.description.base()))
        query, headers = query_of(ask.target), {name.lower(): value for name, value in ask.headers}
        for parameter in declared.parameters:
            name, where = parameter["name"], parameter.get("in")
            if where == "path" and in_path is not None and name in in_path:
                yield parameter, "path", [in_path[name]]
            elif where == "query":
                yield parameter, "query", [value for key, value in query if key == name]
            elif where == "header" and name.lower() not in {"accept", "content-type", "authorization"}:
                found = headers.get(name.lower())
                if found is None and name.lower() in self.given:
                    continue
                yield parameter, "header", [] if found is None else [found]

    def _parameters(self, ask: Ask, declared: Declared, path: str) -> str:
        for parameter, where, values in self._values(ask, declared, path):
            if not values:
                if parameter.get("required") is True and self.simple(parameter):
                    return f"{where} {parameter['name']} is missing"
                continue
            schema = self.simple(parameter)
            if schema is None or len(values) > 1 or (values == [""] and parameter.get("allowEmptyValue")):
                continue
            if where == "path" and self._elsewhere(declared, path):
                return ""
            if not any(self._valid(schema, reading) for reading in readings(values[0])):
                return f"{where} {parameter['name']} = {_short(values[0])}"
        return ""

    def _elsewhere(self, declared: Declared, path: str) -> bool:
        """Whether the path may belong to another route as well."""
        own = path.removeprefix(self.description.base())
        others = {one.path for one in self.description.operations()} - {declared.path}
        return any(path_values(one, own) is not None for one in others)

    def simple(self, parameter: Mapping[str, Any]) -> Any:
        """The schema of a parameter whose value is a plain one; None where it may be spelt in more than one way."""
        schema = parameter.get("schema")
        if schema is None and "type" in parameter:  # Swagger 2.0
            schema = {key: value for key, value in parameter.items() if key not in {"name", "in", "required", "description"}}
        return schema if isinstance(schema, dict) and schema and self._scalar(schema, 0) else None

    def _scalar(self, schema: Any, depth: int) -> bool:
        """Whether it can be seen that no array and no object is meant."""
        schema = self.description.resolve(schema)
        if not isinstance(schema, dict) or depth > 8:
            return False
        if any(key in schema for key in ("items", "properties", "additionalProperties", "prefixItems")):
            return False
        kinds = schema.get("type", ())
        kinds = {kinds} if isinstance(kinds, str) else set(kinds)
        if kinds & {"array", "object", "file"}:
            return False
        parts = [one for key in ("anyOf", "oneOf", "allOf") for one in schema.get(key) or ()]
        if kinds or any(key in schema for key in ("enum", "const")):
            return True
        return bool(parts) and all(self._scalar(one, depth + 1) for one in parts)

    # -- bodies -----------------------------------------------------------------------------------------------------------------

    def _body(self, ask: Ask, declared: Declared) -> str:  # noqa: PLR0911  (a ladder of reasons)
        content, required = self.content(declared)
        if content is None:
            return ""
        if not ask.body:
            return "the body is missing" if required else ""
        sent = (
            next((value for name, value in ask.headers if name.lower() == "content-type"), "").partition(";")[0].strip().lower()
        )
        if not any("*" in media for media in content) and sent not in content:
            return f"media type {sent or '(none)'}" if content else ""
        if not (sent == "application/json" or sent.endswith("+json")) or sent not in content:
            return ""
        value = parsed(ask.body)
        if value is _NO_JSON:
            return "the body is no JSON"
        schema = content[sent]
        if not isinstance(schema, dict):
            return ""
        found = self._error(schema, value)
        return f"body {found}" if found else ""

    def content(self, declared: Declared) -> tuple[dict[str, Any] | None, bool]:
        """The schemas of the body by media type, in lower case and without parameters, and whether there has to be one."""
        if self.description.version.startswith("2"):
            body = next((one for one in declared.parameters if one.get("in") == "body"), None)
            media = declared.value.get("consumes") or self.description.document.get("consumes") or ["application/json"]
            return (
                ({str(one).lower(): body.get("schema") for one in media}, body.get("required") is True) if body else (None, False)
            )
        body = self.description.resolve(declared.value.get("requestBody"))
        found = body.get("content") if isinstance(body, dict) else None
        if not isinstance(found, dict) or not found:
            return None, False
        plain = {
            str(media).partition(";")[0].strip().lower(): one.get("schema")
            for media, one in found.items()
            if isinstance(one, dict)
        }
        return plain, body.get("required") is True

    # -- what no database can hold -----------------------------------------------------------------------------------------------

    def _unstorable(self, ask: Ask, declared: Declared, path: str) -> str:
        for parameter, where, values in self._values(ask, declared, path):
            if where != "header" and (found := unstorable(values, self.whole(parameter.get("schema", parameter)))):
                return f"unstorable: {where} {parameter['name']} {found}"
        value = parsed(ask.body) if ask.body else None
        schema = next(iter((self.content(declared)[0] or {}).values()), None)
        known = self.description.resolve(schema)
        names = known.get("properties", {}) if isinstance(known, dict) else {}
        if isinstance(value, dict):
            for name in names:
                if name in value and (found := unstorable([value[name]], self.whole(names[name]))):
                    return f"unstorable: body {name} {found}"
        return ""

    def whole(self, schema: Any) -> bool:
        """Whether an integer is meant, and nothing else."""
        known = self.description.resolve(schema)
        return isinstance(known, dict) and known.get("type") in ("integer", ["integer"], ["integer", "null"])

    # -- schemas ----------------------------------------------------------------------------------------------------------------

    def _valid(self, schema: Any, value: Any) -> bool:
        return not self._error(schema, value)

    def _error(self, schema: Any, value: Any) -> str:
        validator = self._validator(schema)
        if validator is None:
            return ""
        for error in validator.iter_errors(value):
            return f"{error.json_path.removeprefix('$.')}: {error.message[:SHOWN]}"
        return "" if in_range(self.description.resolve(schema), value) else f"{_short(str(value))} is out of its format's range"

    def _validator(self, schema: Any) -> Validator | None:
        key = json.dumps(schema, sort_keys=True, default=str)
        if key not in self._made:
            from jsonschema import Draft202012Validator  # noqa: PLC0415  (0.1 s, and only where there is a description)

            if self._shared is None:
                parts = ("components", "definitions")
                self._shared = {
                    name: modern(self.description.document[name]) for name in parts if name in self.description.document
                }
            root = modern(schema)
            usable = isinstance(root, dict)
            self._made[key] = Draft202012Validator({**self._shared, **root}) if usable else None
        return self._made[key]


_NO_JSON = object()


def parsed(body: bytes) -> Any:
    """The body as JSON (RFC 8259: no NaN), or `_NO_JSON`."""

    def no(_text: str) -> None:
        raise ValueError

    try:
        return json.loads(body.decode("utf-8"), parse_constant=no)
    except (ValueError, RecursionError):
        return _NO_JSON


def readings(text: str) -> Iterator[Any]:
    """What a lenient server may take a plain text for."""
    yield text
    plain = text.strip()
    if NUMBER.fullmatch(plain) and len(plain) < 400:
        number = float(plain)
        yield number
        if number == number // 1 and abs(number) != float("inf"):
            yield int(plain) if re.fullmatch(r"[+-]?\d+", plain) else int(number)
    if plain.lower() in TRUE | FALSE:
        yield plain.lower() in TRUE
    if plain.lower() in {"", "null", "none", "nil"}:
        yield None


def path_values(template: str, path: str) -> dict[str, str] | None:
    """The parameters that a path gives a template; None when it does not fit, or not for certain (dots, slashes, nothing)."""
    names = re.findall(r"\{([^{}]+)\}", template)
    pattern = "([^/]*)".join(re.escape(part) for part in re.split(r"\{[^{}]+\}", template))
    found = re.fullmatch(pattern, path)
    if found is None:
        return None
    values = [unquote(value, errors="surrogateescape") for value in found.groups()]
    if any(value.strip(" .") == "" or "/" in value or "\\" in value for value in values):
        return None
    return dict(zip(names, values, strict=True))


def in_range(schema: Any, value: Any) -> bool:
    """int32 and int64 are asserted: a number outside of them is what the format says it is not."""
    limit = RANGES.get(str(schema.get("format"))) if isinstance(schema, dict) else None
    if limit is None or isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return -limit <= value < limit


def unstorable(values: list[Any], whole: bool) -> str:
    """What PostgreSQL has no type for, in words: U+0000 in text (8.3), or, where `whole`, more than 64 bits; '' for neither."""
    for value in values:
        if isinstance(value, str) and "\0" in value:
            return "holds U+0000, which no text of PostgreSQL can"
        if not whole or isinstance(value, bool):
            continue
        number = int(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,400}", value) else value
        if isinstance(number, int) and not -BIGINT <= number < BIGINT:
            return "is an integer of more than 64 bits"
    return ""


def modern(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 or Swagger 2.0 as JSON Schema 2020-12 says it (OpenAPI 3.1 is that already)."""
    if isinstance(schema, list):
        return [modern(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: value if key in {"enum", "const", "example", "examples", "default"} else modern(value)
        for key, value in schema.items()
    }
    for edge, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(made.get(edge), bool):
            exclusive = made.pop(edge)
            if exclusive and plain in made:
                made[edge] = made.pop(plain)
    properties = made.get("properties")
    if isinstance(made.get("required"), bool):  # of a parameter, not of a schema
        del made["required"]
    elif isinstance(made.get("required"), list) and isinstance(properties, dict):
        shown = {name for name, one in properties.items() if isinstance(one, dict) and one.get("readOnly") is True}
        made["required"] = [name for name in made["required"] if name not in shown]
    if made.get("nullable") is True:
        del made["nullable"]
        return {"anyOf": [made, {"type": "null"}]}
    return made


def _short(text: str) -> str:
    shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return ascii(shown)
