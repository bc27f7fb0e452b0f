"""`{database_url}`, `{port}`, `{unique}`: the names a chaos.toml may use in its texts, and what becomes of them.

Only known names are touched. `${HOME}`, the braces of a JSON document and every other `{name}` go through as they are - but a
name that is nearly a known one is a slip of the pen, and an error when the file is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar

DATABASE = frozenset({"database_url", "pg_host", "pg_port", "pg_user", "pg_password", "pg_database", "ca_file"})
ALWAYS = DATABASE | {"port", "work_dir", "log_file"}
REQUEST = frozenset({"unique"})
DEPLOY = frozenset({"version", "weight"})
EDGE = frozenset({"edge_port", "edge_cert", "edge_key", "origin_port", "work_dir"})

# A dollar in front makes it the shell's. The name has the form of an identifier, which no JSON object begins with.
_PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)(?::([A-Za-z_][A-Za-z0-9_-]*))?\}")

T = TypeVar("T")


def expand(value: T, values: Mapping[str, str]) -> T:
    """`value` (text, or lists, tuples and tables of such) with each `{name}` that `values` knows put in.

    A named port is known as 'port:name'. What is put in is not expanded again, and keys of tables stay as they are.
    """
    return _expand(value, values)  # type: ignore[return-value]  # the shape is kept: text for text, list for list


def _expand(value: object, values: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: values.get(found.group()[1:-1], found.group()), value)
    if isinstance(value, Mapping):
        return {key: _expand(item, values) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_expand(item, values) for item in value)
    return value


def names_in(value: object) -> set[str]:
    """Everything in `value` that has the form of a placeholder: 'unique', 'port', 'port:admin'."""
    return {name if argument is None else f"{name}:{argument}" for _, name, argument in find(value)}


def find(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str, str | None]]:
    """(path within `value`, name, argument or None) of each placeholder."""
    if isinstance(value, str):
        for name, argument in _PLACEHOLDER.findall(value):
            yield path, name, argument or None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from find(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from find(item, (*path, index))


@dataclass(frozen=True, slots=True)
class Slip:
    """A placeholder that cannot be meant as it stands."""

    path: tuple[str | int, ...]
    what: str
    remedy: str


def slips(value: object, *, here: frozenset[str], elsewhere: frozenset[str]) -> Iterator[Slip]:
    """Near misses of the names known `here`, and names that are known only `elsewhere` in the file."""
    for path, name, argument in find(value):
        if argument is not None and name != "port":
            if name in here | elsewhere:
                yield Slip(path, f"{{{name}:{argument}}}: only {{port:name}} takes a name", f"write {{{name}}}")
            continue
        if name in here:
            continue
        if name in elsewhere:
            yield Slip(path, f"{{{name}}} has no value here", f"use one of: {_listed(here)}")
        elif near := _near(name, here | elsewhere):
            what = f"unknown placeholder {{{name}}}: did you mean {{{near}}}?"
            yield Slip(path, what, f"the names known here: {_listed(here)}")


def _near(name: str, known: frozenset[str]) -> str:
    """The known name that was meant, or ''. Strict, for `{anything}` may be the target's own; letters in another order count."""
    swapped = [one for one in sorted(known) if sorted(one) == sorted(name.lower())]
    return next(iter(swapped + get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.8)), "")


def _listed(names: frozenset[str]) -> str:
    return " ".join(f"{{{name}}}" for name in sorted(names))
