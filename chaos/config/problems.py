"""From pydantic's errors to sentences with a line: what was wrong, what was expected, and what would be right."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from chaos.config.rules import did_you_mean
from chaos.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic.fields import FieldInfo

    from chaos.config.locate import Locator

Path = tuple[str | int, ...]
_KINDS: Mapping[str, str] = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "tuple_type": "an array",
    "list_type": "an array",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. Sorted by line, people mend a file from the top; on one line, what explains the other (`rank`) comes first."""

    line: int
    what: str
    remedy: str
    path: Path = ()
    rank: int = 1


def problems(error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], locator: Locator) -> list[Problem]:
    """Each of pydantic's errors, located. `data` is what was validated, as TOML gave it."""
    return [_problem(dict(one), model, data, locator) for one in error.errors(include_url=False)]


def raised(found: Sequence[Problem], file: str, *, most: int = 20) -> ConfigError:
    """One error that holds them all: the first as its sentence, the others below it."""
    first, *rest = sorted(set(found), key=lambda one: (one.line, one.rank, one.what))
    tail = [f"{file}:{one.line}: {one.what} ({one.remedy})" for one in rest[:most]]
    if len(rest) > most:
        tail.append(f"and {len(rest) - most} more")
    return ConfigError(first.what, remedy=first.remedy, where=f"{file}:{first.line}", tail=tuple(tail))


def _problem(one: Mapping[str, Any], model: type[BaseModel], data: Mapping[str, Any], locator: Locator) -> Problem:
    path = _in_data(one["loc"], data)
    context = one.get("ctx", {})
    if one["type"] == "rule":
        key = context["key"]
        path = path if key is None or key == "" else (*path, key)
        return Problem(locator.line(path), f"{_named(path)}{context['what']}", context["remedy"], path)
    owner, field = _owner(model, path)
    if one["type"] == "extra_forbidden":
        known = _keys(owner)
        return Problem(
            locator.line(path),
            f"unknown key {path[-1]!r} in {_table(path[:-1])}{did_you_mean(str(path[-1]), known)}",
            f"the keys known here: {', '.join(known)}",
            path,
        )
    if one["type"] == "missing":
        what = f"{_table(path[:-1])} needs {path[-1]!r}"
        return Problem(locator.line(path), what, f"add {path[-1]} = {_example(field)}", path)
    expected = _expected(one["type"], context) or str(one["msg"]).removeprefix("Input should be ")
    remedy = f"give {expected}"
    if field and field.examples and isinstance(path[-1], str):
        remedy = f"for example {path[-1]} = {_example(field)}"
    if one["type"] == "string_type" and isinstance(one["input"], int | float):
        remedy = f'put it in quotes: "{str(one["input"]).lower()}"'
    return Problem(locator.line(path), f"{_named(path)}expected {expected}, got {_got(one['input'])}", remedy, path)


def _in_data(loc: Sequence[Any], data: Any) -> Path:
    """The steps of pydantic's location that lead through the data; the last may be a key that is missing there."""
    path: Path = ()
    for n, step in enumerate(loc):
        if (isinstance(data, dict) and step in data) or (isinstance(data, list) and isinstance(step, int) and step < len(data)):
            data = data[step]
            path = (*path, step)
        elif isinstance(data, dict) and n == len(loc) - 1 and step != "[key]":
            path = (*path, step)
    return path


def _expected(kind: str, context: Mapping[str, Any]) -> str:
    match kind:
        case "literal_error":
            return str(context["expected"])
        case "greater_than":
            return f"more than {context['gt']:g}"
        case "greater_than_equal":
            return f"at least {context['ge']:g}"
        case "finite_number":
            return "a finite number"
        case "string_too_short":
            return "a text that is not empty"
        case _:
            return _KINDS.get(kind, "")


def _got(value: Any) -> str:
    """What was there instead. Texts are not repeated: they may be secrets."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    kinds: dict[type, str] = {str: "text", list: "an array", tuple: "an array", dict: "a table"}
    return "an empty text" if value == "" else kinds.get(type(value), "a date or time")


def _owner(model: type[BaseModel], path: Path) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The model that holds the last key of `path`, and that key's field."""
    owner: type[BaseModel] | None = model
    field: FieldInfo | None = None
    for n, step in enumerate(path):
        if isinstance(step, int) or owner is None:
            continue
        field = next((f for name, f in owner.model_fields.items() if (f.alias or name) == step), None)
        if field is not None and n < len(path) - 1:
            owner = _model_in(field.annotation)
    return owner, field


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model within `X | None`, `tuple[X, ...]` and `Annotated[X, ...]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _keys(owner: type[BaseModel] | None) -> list[str]:
    return [] if owner is None else [field.alias or name for name, field in owner.model_fields.items()]


def _example(field: FieldInfo | None) -> str:
    return str(field.examples[0]) if field and field.examples else "..."


def _named(path: Path) -> str:
    return f"{_dotted(path)}: " if path else ""


def _table(path: Path) -> str:
    return f"[{_dotted(path)}]" if path else "the file"


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
