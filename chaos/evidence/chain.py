"""The hash chain of a segment: each record's digest links to the one before it, and the first to the policy fixed before the start.

A record is what one transaction appended: a history with everything that belongs to it, findings by themselves, or a phase. Digests
are made of the rows *as SQLite stored them*, read back in the same transaction, so that whoever has the file can make them again.
The canonical form is written down in docs/attestation.md, for verifiers that are not ours; `chaos.verify` is one that shares no code
with this module.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Any

from chaos.evidence.rows import PARTS, TABLES
from chaos.model import now

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

FORM = 1  # of the canonical form; policy.json names it
POLICY = "policy.json"
DDL = (
    "CREATE TABLE IF NOT EXISTS chain (segment TEXT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, record INTEGER NOT NULL, "
    "at REAL NOT NULL, previous TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (segment, number))"
)
HISTORY, FINDINGS, PHASE = "history", "findings", "phase"  # kinds of records

_NAMES = {table.name: table.names for table in TABLES}
COVERED: Mapping[str, tuple[str, ...]] = {
    "history": ("worker", *_NAMES["history"]),
    **{table.name: table.names for table in PARTS.values()},
    "finding": _NAMES["finding"],
    "log": ("line",),
    "phase": ("name", "at"),
}
"""Table -> the columns that digests cover, in order. It stands in policy.json, so that a verifier need not know this version."""

_OF_KIND = {HISTORY: tuple(name for name in COVERED if name != "phase"), FINDINGS: ("finding",), PHASE: ("phase",)}

# Any: a SQLite value (None, int, float, str, bytes)
_ENCODE: Mapping[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"N",
    int: lambda item: b"I%d;" % item,
    float: lambda item: (
        b"F" + struct.pack(">d", item)
    ),  # its 64 bits (IEEE 754): no way of writing a number in digits is involved
    str: lambda item: _counted(b"T", item.encode()),
    bytes: lambda item: _counted(b"B", item),
}


def _counted(tag: bytes, raw: bytes) -> bytes:
    return b"%b%d:%b" % (tag, len(raw), raw)


def canonical(values: Iterable[Any]) -> bytes:
    """Values one after another, each with its type and length: no two different rows give the same bytes."""
    return b"".join([_ENCODE[type(item)](item) for item in values])


def genesis(policy: str, segment: str) -> str:
    """What a segment's first link has before it. `policy` is the SHA-256 of policy.json, in hexadecimal; '' when there is none."""
    return hashlib.sha256(b"chaos-gate/genesis/1\n" + canonical((policy, segment))).hexdigest()


class Chain:
    """Links what one segment's writer appends. Nothing is kept in memory between two records: the last link is read each time."""

    def __init__(self, segment: Path) -> None:
        self._segment = segment.stem
        self._policy = segment.parent.parent / POLICY
        self._genesis = ""

    def link(self, connection: sqlite3.Connection, kind: str, record: int) -> None:
        """Within the transaction that wrote the record. `record` is the `history` of its rows (below 0 for findings alone)."""
        last = connection.execute(
            "SELECT number, digest FROM chain WHERE segment = ? ORDER BY number DESC LIMIT 1", (self._segment,)
        ).fetchone()
        number, previous = (last[0] + 1, last[1]) if last else (1, self._first())
        at = now()
        digest = hashlib.sha256(b"chaos-gate/link/1\n" + canonical((number, kind, at, previous)))
        for table in _OF_KIND[kind]:
            rows = _rows(connection, table, record)
            digest.update(canonical((table, len(rows))))
            digest.update(b"".join(map(canonical, rows)))
        link = (self._segment, number, kind, record, at, previous, digest.hexdigest())
        connection.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?, ?)", link)

    def _first(self) -> str:
        """Read when the first record comes: the policy has been fixed by then, and not yet when a segment is opened early."""
        policy = hashlib.sha256(self._policy.read_bytes()).hexdigest() if self._policy.is_file() else ""
        return genesis(policy, self._segment)


def _rows(connection: sqlite3.Connection, table: str, record: int) -> list[tuple[Any, ...]]:
    names = ", ".join(f'"{name}"' for name in COVERED[table])
    if table == "phase":
        found = connection.execute(f"SELECT {names} FROM phase ORDER BY rowid DESC LIMIT 1")  # noqa: S608  (our own names)
    else:
        key = "number" if table == "history" else "history"
        found = connection.execute(
            f'SELECT {names} FROM "{table}" WHERE {key} = ? ORDER BY rowid',  # noqa: S608  (the same)
            (record,),
        )
    return found.fetchall()


def lowest(connection: sqlite3.Connection, schema: str = "main") -> int:
    """The `history` of the findings that were last appended by themselves: 0 when there are none."""
    found = connection.execute(f"SELECT coalesce(min(history), 0) FROM {schema}.finding").fetchone()[0]  # noqa: S608  (ours)
    return min(0, int(found))


def copy(connection: sqlite3.Connection, *, up: int, down: int) -> None:
    """The links of the segment that is attached as `segment`. Its histories were moved `up`, its lone findings `down`."""
    there = connection.execute("SELECT count(*) FROM segment.sqlite_master WHERE name = 'chain'").fetchone()[0]
    if there:  # not in a store of an earlier version
        connection.execute(
            "INSERT INTO main.chain SELECT segment, number, kind, CASE WHEN record > 0 THEN record + ? WHEN record < 0 THEN record - ? "
            "ELSE 0 END, at, previous, digest FROM segment.chain ORDER BY number",
            (up, down),
        )
