"""Answers against the description of whoever gave them: which schema is for an answer, and what it finds wrong.

OpenAPI 3.1 schemas are JSON Schema (2020-12); those of 3.0 and Swagger 2.0 are brought to it (nullable, exclusiveMinimum).
`pattern` is left out: its language is another one (ECMA-262), and its time has no bound.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from chaos.checks.routes import bare, best

if TYPE_CHECKING:
    from chaos.traffic.openapi import Declared, Description

ROOT = "urn:chaos-gate:description"
MOST = 5  # contradictions told of one answer
REFERENCES = 50_000  # followed for one answer: a thousand items need some thousands, schemas that fork without end need all


class Claims:
    """What a description says about answers. Nothing in it can do harm: what cannot be used is taken for 'anything'."""

    def __init__(self, description: Description) -> None:
        from jsonschema import Draft202012Validator  # noqa: PLC0415  (0.1 s, and only the contract needs it)
        from jsonschema.validators import extend  # noqa: PLC0415
        from referencing import Registry  # noqa: PLC0415
        from referencing.jsonschema import DRAFT202012  # noqa: PLC0415

        self._description, self._base = description, description.base()
        self._document = _modern(description.document, old=not description.version.startswith("3.1"))
        resource = DRAFT202012.create_resource(self._document)
        self._followed = 0
        follow = Draft202012Validator.VALIDATORS["$ref"]

        def counted(validator: Any, reference: str, instance: Any, schema: Any) -> Any:
            self._followed += 1
            if self._followed > REFERENCES:
                raise RecursionError
            return follow(validator, reference, instance, schema)

        self._validator: Any = extend(Draft202012Validator, {"$ref": counted})  # type: ignore[no-untyped-call]  # so in its stubs
        self._unusable: set[str] = set()
        self._registry: Any = Registry().with_resource(ROOT, resource)
        self._declared: dict[str, list[Declared]] = {}
        for one in description.operations():
            self._declared.setdefault(self._base + one.path, []).append(one)
        self.checked = 0

    def contradicted(self, method: str, path: str, status: int, media: str, value: object) -> dict[str, str]:
        """Where and what ('GET /items 200: $.items[].id: type') -> an example in words. Routes that it does not know say nothing."""
        template = best(self._declared, bare(path))
        declared = next((one for one in self._declared.get(template, ()) if one.method == method), None)
        if declared is None:
            return {}
        where = f"{method} {template} {status}"
        described = self._description.resolve(declared.value.get("responses"))
        keys = (str(status), f"{status // 100}XX", f"{status // 100}xx", "default")
        key = next((one for one in keys if isinstance(described, dict) and one in described), None)
        if key is None:
            return {f"{where}: status": "not among the described responses"} if status < 400 else {}
        schema, known = self._schema(self._description.resolve(described[key]), media)
        if not known:
            return {f"{where}: media type": f"{media or '(none)'} is not described"}
        if schema is None or value is _nothing:
            return {}
        return self._invalid(schema, value, where)

    def _schema(self, response: Any, media: str) -> tuple[Any, bool]:
        """The schema for a media type (None: none), and whether the type is one of those described."""
        if not isinstance(response, dict):
            return None, True
        if "schema" in response:  # Swagger 2.0
            return response["schema"], True
        content = response.get("content")
        if not isinstance(content, dict) or not content:
            return None, True
        kinds = {str(name).partition(";")[0].strip().lower(): one for name, one in content.items()}
        found = next((kinds[one] for one in (media, f"{media.partition('/')[0]}/*", "*/*") if one in kinds), None)
        return (found.get("schema") if isinstance(found, dict) else None), found is not None

    def _invalid(self, schema: Any, value: object, where: str) -> dict[str, str]:
        wanted = _modern(schema, old=not self._description.version.startswith("3.1"))
        if not isinstance(wanted, dict) or where in self._unusable:
            return {}
        # References are to the whole document: the schema stands in a resource of that address.
        rooted, self._followed = _rooted(wanted), 0
        try:
            errors = list(self._validator(rooted, registry=self._registry).iter_errors(value))
        except Exception:  # noqa: BLE001  (a schema that cannot be used, or turns in a circle: it says nothing about the answer)
            self._unusable.add(where)
            return {}
        self.checked += 1
        told = {}
        for error in errors[:MOST]:
            place = re.sub(r"\[\d+\]", "[]", error.json_path)
            told[f"{where}: {place}: {error.validator}"] = " ".join(error.message.split())[:120]
        return told


_nothing = object()
NOTHING: object = _nothing  # an answer without JSON


def _rooted(schema: Any) -> Any:
    """A schema whose references name the document. Any: JSON."""
    if isinstance(schema, list):
        return [_rooted(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: ROOT + one if key == "$ref" and isinstance(one, str) and one.startswith("#") else _rooted(one)
        for key, one in schema.items()
    }


def _modern(value: Any, *, old: bool) -> Any:
    """Schemas as JSON Schema 2020-12 has them. Any: JSON."""
    if isinstance(value, list):
        return [_modern(one, old=old) for one in value]
    if not isinstance(value, dict):
        return value
    made = {
        key: _modern(one, old=old)
        for key, one in value.items()
        if not (key == "pattern" and isinstance(one, str)) and not (key in {"$id", "$schema", "$anchor"} and isinstance(one, str))
    }
    if not old:
        return made
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(made.get(exclusive), bool):
            strict = made.pop(exclusive)
            if strict and limit in made:
                made[exclusive] = made.pop(limit)
    if made.get("nullable") is True or made.get("x-nullable") is True:
        made.pop("nullable", None)
        made.pop("x-nullable", None)
        return {"anyOf": [made, {"type": "null"}]}
    return made
