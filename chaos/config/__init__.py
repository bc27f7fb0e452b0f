"""chaos.toml -> a typed, frozen model: `load(path).target.read[0].accepts(200)`. The only place that reads the file.

`expand(config.target.env, {"port": "8000"})` fills in what is known only at run time.
"""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from chaos.config.locate import Locator
from chaos.config.models import (
    Config,
    Database,
    Deploy,
    Edge,
    Environment,
    Errors,
    Flag,
    Flags,
    Hosts,
    Invalid,
    LogFields,
    Logs,
    Metrics,
    OpenApi,
    Prepare,
    Read,
    Request,
    Run,
    Target,
    Write,
)
from chaos.config.placeholders import ALWAYS, DEPLOY, EDGE, REQUEST, expand, names_in, slips
from chaos.config.problems import Problem, problems, raised
from chaos.config.rules import shown
from chaos.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "Config",
    "Database",
    "Deploy",
    "Edge",
    "Environment",
    "Errors",
    "Flag",
    "Flags",
    "Hosts",
    "Invalid",
    "LogFields",
    "Logs",
    "Metrics",
    "OpenApi",
    "Prepare",
    "Read",
    "Request",
    "Run",
    "Target",
    "Write",
    "candidate_of",
    "expand",
    "load",
    "names_in",
]

_REQUESTS = ("prepare", "read", "write", "invalid")
_KINDS = ("start", "image", "url")  # exactly one of them says what the target is
_STARTED = ("start", "env", "setup", "cwd", "edge")  # means nothing to a target that is already running


def load(path: Path) -> Config:
    """The configuration in `path`.

    Raises UsageError when there is no such file, and ConfigError, with 'path:line', for the first mistake in it; all others are
    listed below that one.
    """
    path = path.absolute()
    text = _read(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(str(error), text, shown(path)) from None
    locator = Locator(text)
    found: list[Problem] = []
    target = data.get("target")
    candidate = target.pop("candidate", None) if isinstance(target, dict) else None
    config: Config | None = _validated(Config, data, locator, path, found)
    if isinstance(target, dict):
        known = _known_names(target, candidate)
        found += _slips(target, ("target",), known, locator)
        if candidate is not None:
            resolved = _candidate(target, candidate, locator, path, found)
            found += _slips(candidate, ("target", "candidate"), known, locator) if isinstance(candidate, dict) else []
    if found or config is None:
        raise raised(found, shown(path))
    ours = config.target.located(path, _lines(locator, ("target",)))
    if candidate is not None:
        ours = ours.model_copy(update={"candidate": resolved})
    return config.located(path, ours)


def candidate_of(target: Target) -> Target:
    """The release under judgement: [target] with the keys of [target.candidate] on top.

    Tables (env, headers, hosts, ...) are laid over each other key by key; anything else is replaced.
    Raises UsageError when there is no candidate.
    """
    if target.candidate is None:
        raise UsageError(
            f"{target.name} has no candidate to be judged",
            remedy='add [target.candidate] with the keys that differ, for example env = { RELEASE = "v2" }',
            where=target.where(""),
        )
    return target.candidate


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        raise UsageError(f"no such file: {shown(path)}", remedy="write one with: chaos-gate init") from None
    except IsADirectoryError:
        raise UsageError(f"{shown(path)} is a directory", remedy=f"name the file: -c {shown(path / 'chaos.toml')}") from None
    except OSError as error:
        raise UsageError(f"{shown(path)} cannot be read: {error.strerror}", remedy="make it readable for this user") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        where = f"{shown(path)}:{line}"
        raise ConfigError("TOML is UTF-8, and this is not", remedy="save the file as UTF-8", where=where) from None


def _syntax(message: str, text: str, file: str) -> ConfigError:
    """The parser's own words, its line, and for the commonest slips what to write instead."""
    lines = text.split("\n")
    position = re.search(r" ?\(at (?:line (\d+), column \d+|end of document)\)", message)
    what = message[: position.start()] if position else message
    number = int(position[1]) if position and position[1] else max(1, len(text.rstrip().split("\n")))
    line = lines[number - 1] if number <= len(lines) else ""
    remedy = "mend the syntax (https://toml.io/en/v1.0.0)"
    if re.search(r"[\"'\]}\w]\s*;", line):
        remedy = "TOML has no ';': give each key a line of its own"
    elif re.search(r"=\s*(?:True|False|None|yes|no|on|off)\b", line):
        remedy = "TOML says true and false, in lower case; what has no value is left out"
    elif re.match(r"\s*\w[\w.-]*\s*=\s*[A-Za-z/{]", line) and "invalid value" in what.lower():
        remedy = "put text in quotes"
    return ConfigError(f"this is not TOML: {what[:1].lower()}{what[1:]}", remedy=remedy, where=f"{file}:{number}")


def _validated(model: type[Any], data: Any, locator: Locator, path: Path, found: list[Problem]) -> Any:
    try:
        return model.model_validate(data, context={"base": path.parent})
    except ValidationError as error:
        found += problems(error, model, data, locator)
        return None


def _candidate(target: dict[str, Any], candidate: Any, locator: Locator, path: Path, found: list[Problem]) -> Target | None:
    """Both tables as one target. Only mistakes that the candidate itself makes are added to `found`."""
    own = ("target", "candidate")
    if not isinstance(candidate, dict) or "candidate" in candidate:
        what = "target.candidate: expected a table of the keys that differ"
        found.append(Problem(locator.line(own), what, 'for example env = { RELEASE = "v2" }'))
        return None
    data = {"target": laid_over(target, candidate)}
    mistakes: list[Problem] = []
    config = _validated(Config, data, locator, path, mistakes)
    known = {(*one.path, one.what) for one in found}
    for one in mistakes:
        inner = (*own, *one.path[1:])
        if one.path[1:2] and one.path[1] in candidate:
            found.append(Problem(locator.line(inner), f"in [target.candidate], {one.what}", one.remedy, inner))
        elif (*one.path, one.what) not in known:  # the two tables do not fit together
            found.append(Problem(locator.line(own), f"[target.candidate] over [target]: {one.what}", one.remedy, own))
    if config is None:
        return None
    lines = _lines(locator, ("target",)) | {"": locator.line(own)} | {key: locator.line((*own, key)) for key in candidate}
    merged: Target = config.target.located(path, lines)
    return merged


def laid_over(target: Mapping[str, Any], candidate: Mapping[str, Any]) -> dict[str, Any]:
    """[target.candidate] over [target], both as TOML gave them. A candidate of another kind sheds what only the old kind knew."""
    below = dict(target)
    if any(kind in candidate and kind not in target for kind in _KINDS):
        shed = _STARTED if "url" in candidate else _KINDS
        below = {key: value for key, value in below.items() if key not in (*shed, *_KINDS)}
    merged = below | dict(candidate)
    for key in below.keys() & candidate.keys():
        if isinstance(below[key], dict) and isinstance(candidate[key], dict) and key != "openapi":  # there, path excludes file
            merged[key] = below[key] | candidate[key]
    return merged


def _known_names(target: Mapping[str, Any], candidate: Any) -> frozenset[str]:
    """What the prepare requests save, whoever's they are."""
    both = [target, candidate] if isinstance(candidate, dict) else [target]
    requests = [one for table in both if isinstance(table.get("prepare"), list) for one in table["prepare"]]
    saves = [one["save"] for one in requests if isinstance(one, dict) and isinstance(one.get("save"), dict)]
    return frozenset(name for save in saves for name in save)


def _slips(table: Mapping[str, Any], path: tuple[str, ...], saved: frozenset[str], locator: Locator) -> Iterator[Problem]:
    """Placeholders of a [target] table that cannot be meant as they stand."""
    known = ALWAYS | REQUEST | DEPLOY | EDGE | saved
    for key, value in table.items():
        here = ALWAYS
        if key in _REQUESTS or key == "headers":
            here |= REQUEST | saved
        elif key == "deploy":
            here |= DEPLOY
        elif key == "edge":
            here = EDGE
        for slip in slips(value, here=here, elsewhere=known - here):
            where = (*path, key, *slip.path)
            yield Problem(locator.line(where), slip.what, slip.remedy, where, rank=0)


def _lines(locator: Locator, table: tuple[str, ...]) -> dict[str, int]:
    """The line of each key of Target that the file holds; '' is the table's."""
    keys = ((field.alias or name) for name, field in Target.model_fields.items())
    return {"": locator.line(table)} | {key: locator.line((*table, key)) for key in keys if (*table, key) in locator}
