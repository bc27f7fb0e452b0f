"""A target's own description (OpenAPI 3.x, Swagger 2.0), loaded so that no file can do harm: `read`, `fetch`, `parse`.

Whatever is wrong with it is one ConfigError: broken, too large, nested without end, no description at all. What is merely dubious
(a reference that leads nowhere, or out of the file) is replaced by 'anything' and told in `notes`: nothing is ever fetched because a
description says so. A schema that refers to itself is legal, and is kept as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from chaos.config import expand
from chaos.errors import ConfigError
from chaos.model import now
from chaos.traffic.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from chaos.traffic.requests import Session

MEBIBYTE = 1 << 20
LARGEST_JSON = 32 * MEBIBYTE  # parsed in under a second
LARGEST_YAML = 4 * MEBIBYTE  # libyaml needs some three seconds for it
DEEPEST = 120  # levels of nesting; a written description has a dozen or two
MOST = 2_000_000  # values, an alias counted as often as it stands for them (YAML's 'billion laughs')
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
NOTED = 20  # notes that are kept

Document = dict[str, Any]  # an OpenAPI description is JSON, of any shape until it is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One operation: `method` in capitals, `path` as the template says it ('/items/{id}'), `value` the Operation Object.

    `parameters` are those of the path and its own, resolved, its own ones winning (OpenAPI 3.1, Path Item Object).
    """

    method: str
    path: str
    value: Mapping[str, Any]
    parameters: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A usable description. `where` is the file or the path it came from, `version` such as '3.1.0', `notes` what is dubious."""

    document: Document
    where: str
    version: str
    notes: tuple[str, ...] = ()

    def resolve(self, value: Any) -> Any:
        """What a reference stands for, itself no reference; {} for what turns in a circle. Anything else as it is."""
        seen: set[str] = set()
        while isinstance(value, dict) and isinstance(value.get("$ref"), str):
            if value["$ref"] in seen:
                return {}
            seen.add(value["$ref"])
            value = _pointed(self.document, value["$ref"])
        return value

    def operations(self) -> Iterator[Declared]:
        """Every operation, in the order of the file. What is no operation is passed over."""
        paths = self.document.get("paths")
        for path, item in paths.items() if isinstance(paths, dict) else ():
            shared = self.resolve(item)
            if not isinstance(shared, dict) or not path.startswith("/"):
                continue
            for method in METHODS:
                own = shared.get(method)
                if isinstance(own, dict):
                    listed = (*_list(shared.get("parameters")), *_list(own.get("parameters")))
                    yield Declared(method=method.upper(), path=path, value=own, parameters=self._parameters(listed))

    def base(self) -> str:
        """The path under which all others are ('' or '/v1'): `basePath`, or that of the first server, where it is a plain one."""
        if self.version.startswith("2"):
            found = str(self.document.get("basePath") or "")
        else:
            first = next((one for one in _list(self.document.get("servers")) if isinstance(one, dict)), {})
            url = str(first.get("url") or "")
            found = "/" + url.partition("://")[2].partition("/")[2] if "://" in url else url
        return "" if "{" in found or not found.startswith("/") else found.rstrip("/")

    def _parameters(self, listed: tuple[Any, ...]) -> tuple[Mapping[str, Any], ...]:
        found = [one for one in map(self.resolve, listed) if isinstance(one, dict) and isinstance(one.get("name"), str)]
        return tuple({(one["name"], one.get("in")): one for one in found}.values())


def read(path: Path, shown: str = "") -> Description:
    """The description in a file, which errors call `shown`. Raises ConfigError."""
    where = shown or str(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_JSON + 1)
    except OSError as error:
        raise _wrong(f"cannot be read: {error.strerror}", where, "make it readable for this user") from None
    return parse(data, where=where)


async def fetch(session: Session, location: str, *, deadline: float) -> Description:
    """The description that the target serves. Raises ConfigError: also when it serves none."""
    from chaos.config import Request  # noqa: PLC0415  (the model is only needed where one is served)
    from chaos.traffic.exchange import classify  # noqa: PLC0415
    from chaos.traffic.requests import within  # noqa: PLC0415  (which imports the driver's parts)

    where = f"[target.openapi] path = {location!r}"
    remedy = "name the path at which the description is served, or its file"
    request = session.build(Request(method="GET", path=expand(location, session.values)), "", {"Accept": "application/json, */*"})
    started = now()
    try:
        answer = await within(deadline, exchange(request, kept=LARGEST_JSON), lambda: 0.0)
    except Exception as error:
        raise _wrong(f"no description within {now() - started:.1f} s: {classify(error)}", where, remedy) from error
    if answer.status != 200:
        raise _wrong(f"the target answered {answer.status} where its description should be", where, remedy)
    return parse(answer.body, where=where)


def parse(data: bytes, *, where: str) -> Description:
    """JSON or YAML text -> a description. Raises ConfigError, with the line where the parser knows it."""
    value = _value(data, where)
    _bounded(value, where)
    if not isinstance(value, dict):
        raise _wrong(f"a {type(value).__name__}, where a description is an object", where)
    version = next((str(value[key]) for key in ("openapi", "swagger") if isinstance(value.get(key), str | int | float)), "")
    if not version.startswith(("2.", "3.")) and version not in {"2", "3"}:
        what = f"version {version[:20]!r} is not known" if version else "neither `openapi` nor `swagger` says which version it is"
        raise _wrong(what, where, "name an OpenAPI 3.x or Swagger 2.0 description")
    if not isinstance(value.get("paths", {}), dict):
        raise _wrong("`paths` is no object", where)
    notes: list[str] = []
    document = _cleaned(value, value, notes)
    found = Description(document=document, where=where, version=version, notes=tuple(dict.fromkeys(notes))[:NOTED])
    if not any(True for _ in found.operations()):
        raise _wrong("it declares no operation", where, "describe the routes under `paths`")
    return found


def _value(data: bytes, where: str) -> Any:
    if len(data) > LARGEST_JSON:
        raise _too_large(data, LARGEST_JSON, where)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _wrong("it is not UTF-8 text", where) from None
    if not text.strip():
        raise _wrong("it is empty", where)
    try:
        if text.lstrip()[0] in "{[":
            return _json(text, where)
        return _yaml(text, where)
    except RecursionError:
        raise _wrong(f"nested too deeply (more than {DEEPEST} levels)", where) from None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        if len(text) <= LARGEST_YAML:  # YAML in flow style begins as JSON does
            try:
                return _yaml(text, where)
            except ConfigError:
                pass
        line = getattr(error, "lineno", 0)
        raise _wrong(f"no JSON: {getattr(error, 'msg', error)}", f"{where}:{line}" if line else where) from None


class _Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of two classes
    """YAML as JSON has it: no dates, which would be objects of Python's."""


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(text: str, where: str) -> Any:
    if len(text) > LARGEST_YAML:
        raise _too_large(text, LARGEST_YAML, where, " of YAML; as JSON it may have 32")
    try:
        return yaml.load(text, Loader=_Plain)  # noqa: S506  (a safe loader, with fewer types yet)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise _wrong(f"neither JSON nor YAML: {what}", f"{where}:{mark.line + 1}" if mark else where) from None
    except (ValueError, TypeError) as error:  # a number of a million digits, a list as a key
        raise _wrong(f"no YAML that can be used: {str(error)[:120]}", where) from None


def _bounded(value: Any, where: str) -> None:
    """ConfigError for what is nested, or multiplies itself, without end. A stack of our own: Python's would be the first to end."""
    stack, count = [(value, 1)], 0
    while stack:
        one, depth = stack.pop()
        count += 1
        if depth > DEEPEST:
            raise _wrong(f"nested more than {DEEPEST} levels deep, or an alias that holds itself", where)
        if count > MOST:
            raise _wrong(f"more than {MOST:,} values", where, "name a part of it: the routes that are to be judged")
        if isinstance(one, dict):
            stack += [(each, depth + 1) for each in one.values()]
        elif isinstance(one, list):
            stack += [(each, depth + 1) for each in one]


def _cleaned(value: Any, document: Document, notes: list[str]) -> Any:
    """A copy with text as keys (YAML reads 200: as a number), and no reference that cannot be followed inside of the document."""
    if isinstance(value, list):
        return [_cleaned(one, document, notes) for one in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if isinstance(reference, str):
        if not reference.startswith("#"):
            notes.append(f"{reference[:80]!r} is outside of it, and taken for 'anything'")
            return {}
        if _pointed(document, reference) is None:
            notes.append(f"{reference[:80]!r} leads nowhere, and is taken for 'anything'")
            return {}
    return {_key(key): _cleaned(one, document, notes) for key, one in value.items()}


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _pointed(document: Document, reference: str) -> Any:
    """What '#/components/schemas/Item' names (RFC 6901); None for nothing."""
    value: Any = document
    for token in reference.lstrip("#").split("/")[1:]:
        step = token.replace("~1", "/").replace("~0", "~").replace("%7B", "{").replace("%7D", "}")
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _too_large(data: bytes | str, limit: int, where: str, of: str = "") -> ConfigError:
    size = f"more than {limit // MEBIBYTE} MiB" if len(data) == limit + 1 else f"{len(data) / MEBIBYTE:.0f} MiB"
    return _wrong(
        f"it has {size}, and at most {limit // MEBIBYTE} are read{of}",
        where,
        "name a part of it: the routes that are to be judged",
    )


def _wrong(what: str, where: str, remedy: str = "mend the OpenAPI description, or remove [target.openapi]") -> ConfigError:
    return ConfigError(what, remedy=remedy, where=where)
