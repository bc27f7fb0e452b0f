"""Dataclass <-> SQLite row, exactly.

A column a field, under the field's own name, so that a sceptic can query the store without this program. Numbers, text and
flags are themselves; enumerations are their values; tuples, mappings and `Effect` are JSON. Reading ignores columns it does not
know and leaves missing ones to the field's default, so a store of an older version stays readable: only a field that goes, or
changes its type, needs a new SCHEMA_VERSION.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from chaos.model import Connection, Effect, Finding, Gauge, History, Interval, Operation, Window

SCHEMA_VERSION = 1

# Any stands for a SQLite value (None, int, float, str, bytes) on one side and a field's value on the other: both are only known
# by the dataclass's annotations, which is what this module reads.
Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One field: its name, its SQL type, and the way there and back (None: as it is)."""

    name: str
    sql: str
    encode: Convert | None
    decode: Convert | None


@dataclass(frozen=True, slots=True)
class Table:
    """One dataclass as a table. `links` are columns before the fields' own, such as the history a row belongs to."""

    name: str
    kind: type[Any]
    links: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' columns, in order."""
        return tuple(column.name for column in self.columns)

    def ddl(self) -> str:
        """The CREATE TABLE statement."""
        parts = [*self.links, *(f'"{column.name}" {column.sql}' for column in self.columns)]
        return f'CREATE TABLE IF NOT EXISTS "{self.name}" (\n  ' + ",\n  ".join(parts) + "\n)"

    def encode(self, value: Any, clean: Callable[[str], str] | None = None) -> tuple[Any, ...]:
        """A row of a value; `clean` is applied to every text (to keep known secrets from the disk)."""
        row = [one.encode(getattr(value, one.name)) if one.encode else getattr(value, one.name) for one in self.columns]
        return tuple(clean(item) if clean and isinstance(item, str) else item for item in row)

    def decoder(self, names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
        """From rows with exactly these columns to values."""
        known = {column.name: column for column in self.columns}
        used = [(index, name, known[name].decode) for index, name in enumerate(names) if name in known]

        def decode(row: Sequence[Any]) -> Any:
            values = {}
            for index, name, convert in used:
                item = row[index]
                if isinstance(item, bytes):
                    item = item.decode("utf-8", "surrogatepass")
                values[name] = convert(item) if convert else item
            return self.kind(**values)

        return decode


def storable(row: Sequence[Any]) -> tuple[Any, ...]:
    """The row with its text as bytes, for lone surrogates (from bytes of a target), which SQLite takes in no other way."""
    return tuple(item.encode("utf-8", "surrogatepass") if isinstance(item, str) else item for item in row)


def _number(value: Any) -> float:
    # SQLite keeps a NaN as NULL
    return math.nan if value is None else float(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _column(name: str, hint: Any) -> Column:
    """How a field of this type is kept. A type that is not listed is a mistake of ours and fails on import of the store."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        kept = _column(name, next(item for item in arguments if item is not type(None)))
        decode = kept.decode
        return Column(name, kept.sql, kept.encode, (lambda item: None if item is None else decode(item)) if decode else None)
    if origin is tuple:
        return Column(name, "TEXT", _json, lambda item: _tuples(json.loads(item)))
    if origin is dict:
        return Column(name, "TEXT", _json, json.loads)
    if hint is Effect:
        return Column(name, "TEXT", lambda item: _json(asdict(item)), lambda item: Effect(**json.loads(item)))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Column(name, "INTEGER" if issubclass(hint, int) else "TEXT", lambda item: item.value, hint)
    plain = {
        float: Column(name, "REAL", None, _number),
        bool: Column(name, "INTEGER", None, bool),
        int: Column(name, "INTEGER", None, None),
        str: Column(name, "TEXT", None, None),
    }
    return plain[hint]


def _table(name: str, kind: type[Any], links: tuple[str, ...], *, without: tuple[str, ...] = ()) -> Table:
    hints = get_type_hints(kind)
    names = [item.name for item in fields(kind) if item.name not in without]
    return Table(name, kind, links, tuple(_column(item, hints[item]) for item in names))


_OF_HISTORY = ("history INTEGER NOT NULL",)
HISTORY = _table(
    "history",
    History,
    ("number INTEGER PRIMARY KEY", "worker TEXT NOT NULL"),
    without=("windows", "operations", "connections", "logs", "intervals", "gauges"),
)
WINDOW = _table("window", Window, _OF_HISTORY)
OPERATION = _table("operation", Operation, _OF_HISTORY)
CONNECTION = _table("connection", Connection, _OF_HISTORY)
INTERVAL = _table("interval", Interval, _OF_HISTORY)
GAUGE = _table("gauge", Gauge, _OF_HISTORY)
FINDING = _table("finding", Finding, _OF_HISTORY)

TABLES = (HISTORY, WINDOW, OPERATION, CONNECTION, INTERVAL, GAUGE, FINDING)

PARTS: Mapping[str, Table] = {
    "windows": WINDOW,
    "operations": OPERATION,
    "connections": CONNECTION,
    "intervals": INTERVAL,
    "gauges": GAUGE,
}
"""The fields of `History` that are tables of their own."""

DDL = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS phase (worker TEXT NOT NULL, name TEXT NOT NULL, at REAL NOT NULL)",
    "CREATE TABLE IF NOT EXISTS log (history INTEGER NOT NULL, line TEXT NOT NULL)",
    *(table.ddl() for table in TABLES),
    *(
        f'CREATE INDEX IF NOT EXISTS "{name}_of_history" ON "{name}" (history)'
        for name in (*(table.name for table in TABLES if table.name != "history"), "log")
    ),
)


def added(table: Table, present: Iterable[str]) -> list[str]:
    """The statements that give an earlier version's table the columns that it lacks, filled with the fields' defaults."""
    have = set(present)
    statements = []
    for item in fields(table.kind):
        column = next((one for one in table.columns if one.name == item.name), None)
        if column is None or column.name in have:
            continue
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        encoded = column.encode(default) if column.encode else default
        literal = "NULL" if encoded is None else str(int(encoded)) if isinstance(encoded, bool) else repr(encoded)
        statements.append(f'ALTER TABLE "{table.name}" ADD COLUMN "{column.name}" {column.sql} DEFAULT {literal}')
    return statements


def plain(value: Any) -> dict[str, Any]:
    """A flat dataclass as a JSON-ready mapping (`GateResult`, `Finding`)."""
    return {
        item.name: (found.value if isinstance(found := getattr(value, item.name), Enum) else found)
        for item in fields(value)
        if item.default is MISSING or getattr(value, item.name) != item.default
    }


def revive(kind: type[Any], data: Mapping[str, Any]) -> Any:
    """The inverse of `plain`."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, item in data.items():
        if name not in hints:
            continue
        hint = hints[name]
        values[name] = hint(item) if isinstance(hint, type) and issubclass(hint, Enum) else _tuples(item)
    return kind(**values)
