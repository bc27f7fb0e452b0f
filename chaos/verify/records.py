"""The recorded rows and their hash chain, read without this program's own reader and without a write to anything.

`immutable` keeps SQLite from rolling back a journal that somebody put beside the file, so what is read is what was digested.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from chaos.verify import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from chaos.verify.result import Step

TABLES_OF = {
    "history": ("history", "window", "operation", "connection", "interval", "gauge", "finding", "log"),
    "findings": ("finding",),
    "phase": ("phase",),
}
LINK = ("segment", "number", "kind", "record", "at", "previous", "digest")
UNCOVERED = {"meta": ("key", "value"), "chain": LINK}
KEYS = {"history": {"number"}, "phase": {"worker"}}  # columns that are no content; the others have `history`
SLACK = 1.0  # s by which the clocks of two processes may differ

Row = sqlite3.Row


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the table `chain`."""

    segment: str
    number: int
    kind: str
    record: int
    at: float
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class Record:
    """A link, and the rows that it covers."""

    link: Link
    tables: Mapping[str, Sequence[Row]]

    @property
    def history(self) -> Row | None:
        """The experiment; None for findings by themselves and phases."""
        rows = self.tables.get("history", ())
        return rows[0] if rows else None

    @property
    def facts(self) -> dict[str, str]:
        """Of the history."""
        found: dict[str, str] = json.loads(self.history["facts"]) if self.history is not None else {}
        return found

    @property
    def experiment(self) -> str:
        """The experiment's id; '' without a history."""
        return str(self.history["experiment"]) if self.history is not None else ""

    @property
    def effects(self) -> list[bool]:
        """Of each window, whether its fault took effect."""
        return [bool((parsed(one["effect"]) or {}).get("took")) for one in self.tables.get("window", ())]

    @property
    def name(self) -> str:
        """'gw0 link 12 (history 37, network.refused.pooled)'."""
        link = self.link
        what = f"{link.kind} {abs(link.record)}" if link.record else link.kind
        told = f", {self.history['experiment']}" if self.history is not None else ""
        return f"{link.segment} link {link.number} ({what}{told})"


class Database:
    """One SQLite file. Raises sqlite3.Error where it is none."""

    def __init__(self, path: Path, *, name: str, tables: Mapping[str, Sequence[str]]) -> None:
        self.name, self._tables = name, tables
        self._connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True)
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        self._connection.row_factory = sqlite3.Row
        self.present = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def integrity(self, step: Step) -> None:
        """That the file is whole, and holds what the policy says, and nothing that no digest covers."""
        said = [row[0] for row in self._connection.execute("PRAGMA integrity_check(5)")]
        for line in said if said != ["ok"] else ():
            step.wrong(self.name, f"SQLite says: {line}")
        known = {**{name: set(columns) | KEYS.get(name, {"history"}) for name, columns in self._tables.items()}}
        known |= {name: set(columns) for name, columns in UNCOVERED.items()}
        for name in sorted(self.present - known.keys()):
            step.wrong(f"{self.name}, table {name}", "no digest covers it")
        for name in sorted(known.keys() - self.present):
            step.wrong(f"{self.name}, table {name}", "is not there")
        for name in sorted(known.keys() & self.present):
            columns = {row[1] for row in self._connection.execute(f'PRAGMA table_info("{name}")')}
            for column in sorted(columns ^ known[name]):
                step.wrong(
                    f"{self.name}, table {name}, column {column}",
                    "is not there" if column not in columns else "no digest covers it",
                )
        for row in self._connection.execute("SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger')"):
            step.wrong(f"{self.name}, {row[0]} {row[1]}", "does not belong there")

    def meta(self) -> dict[str, str]:
        """The table of single values."""
        return dict(self._connection.execute("SELECT key, value FROM meta").fetchall())

    def links(self) -> list[Link]:
        """All of them, segment by segment, in their order."""
        rows = self._connection.execute(f"SELECT {', '.join(LINK)} FROM chain ORDER BY segment, number, rowid")  # noqa: S608  (ours)
        return [Link(*row) for row in rows]

    def records(self) -> Iterator[Record]:
        """One at a time."""
        phases: dict[str, int] = {}
        for link in self.links():
            tables: dict[str, Sequence[Row]] = {}
            for table in TABLES_OF.get(link.kind, ()):
                if table == "phase":
                    turn = phases.get(link.segment, 0)
                    phases[link.segment] = turn + 1
                    tables[table] = self._phase(link.segment, turn)
                else:
                    tables[table] = self._of(table, link.record)
            yield Record(link, tables)

    def counts(self) -> dict[str, int]:
        """Rows of each table that digests cover."""
        return {
            name: int(self._connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])  # noqa: S608  (from the policy)
            for name in self._tables
            if name in self.present
        }

    def _columns(self, table: str) -> str:
        return ", ".join(f'"{name}"' for name in self._tables[table])

    def _of(self, table: str, record: int) -> list[Row]:
        key = "number" if table == "history" else "history"
        query = f'SELECT {self._columns(table)} FROM "{table}" WHERE {key} = ? ORDER BY rowid'  # noqa: S608  (from the policy)
        return self._connection.execute(query, (record,)).fetchall()

    def _phase(self, segment: str, turn: int) -> list[Row]:
        query = f"SELECT {self._columns('phase')} FROM phase WHERE worker = ? ORDER BY rowid LIMIT 1 OFFSET ?"  # noqa: S608  (the same)
        return self._connection.execute(query, (segment, turn)).fetchall()


@dataclass(slots=True)
class Walk:
    """The chain of one file, while it is walked: the heads so far, and how many rows its links cover."""

    file: str
    policy: str
    heads: dict[str, Link]
    covered: dict[str, int]
    histories: dict[str, int]

    @classmethod
    def of(cls, file: str, policy: str) -> Walk:
        """Before the first link. `policy` is the SHA-256 of policy.json."""
        return cls(file, policy, {}, {}, {})

    def take(self, record: Record, step: Step) -> bool:
        """One link: after the one before it, and over exactly these rows. False: its digest is another."""
        link, before = record.link, self.heads.get(record.link.segment)
        where = f"{self.file}, chain, {record.name}"
        if record.link.kind not in TABLES_OF:
            step.wrong(where, f"an unknown kind of record: {link.kind!r}")
        wanted = before.number + 1 if before else 1
        if link.number != wanted:
            step.wrong(f"{where}, number", f"a gap: link {wanted} was expected")
        if link.previous != (before.digest if before else canonical.first(self.policy, link.segment)):
            where_first = (
                "the policy that was fixed before the start is another one"
                if not before
                else "it is not chained to the link before it"
            )
            step.wrong(f"{where}, previous", where_first)
        if before and link.at < before.at - SLACK:
            step.wrong(f"{where}, at", "it was written before the link before it")
        self.heads[link.segment] = link
        for table, rows in record.tables.items():
            self.covered[table] = self.covered.get(table, 0) + len(rows)
        self.histories[link.segment] = self.histories.get(link.segment, 0) + (link.kind == "history")
        if link.kind == "history" and len(record.tables.get("history", ())) != 1:
            step.wrong(where, "its history is not there")
        content = [(table, [tuple(row) for row in rows]) for table, rows in record.tables.items()]
        if canonical.link(link.number, link.kind, link.at, link.previous, content) != link.digest:
            step.wrong(where, "its digest is another: something in this record was changed, added or taken away")
            return False
        return True

    def finish(self, counts: Mapping[str, int], step: Step) -> None:
        """That no row is outside of the chain."""
        for table, number in counts.items():
            if number != self.covered.get(table, 0):
                step.wrong(
                    f"{self.file}, table {table}", f"{number:,} rows, of which the chain covers {self.covered.get(table, 0):,}"
                )


def pinpoint(record: Record, original: Database | None) -> str:
    """Which table, row and field of a record differ from the segment that it was merged from; '' when that cannot be told."""
    if original is None:
        return ""
    for link in original.links():
        if (link.segment, link.number) == (record.link.segment, record.link.number):
            break
    else:
        return ""
    for table, rows in record.tables.items():
        if table == "phase":
            continue
        there = original._of(table, link.record)  # noqa: SLF001  (the same class's, of another file)
        if len(rows) != len(there):
            return f"table {table}: {len(rows)} rows, {len(there)} in {original.name}"
        for number, (mine, theirs) in enumerate(zip(rows, there, strict=True), 1):
            for column in mine.keys():  # noqa: SIM118  (a sqlite3.Row iterates over values)
                if mine[column] != theirs[column]:
                    return f"table {table}, row {number} of the record, column {column}: not as in {original.name}"
    return ""


def segments(directory: Path) -> list[Path]:
    """The segments of a run, by name."""
    return sorted((directory / "segments").glob("*.sqlite"))


def readable(path: Path, scratch: Path) -> Path:
    """The segment itself; where a killed writer left a journal, a copy in `scratch` in which SQLite has rolled it back."""
    journal = path.with_name(path.name + "-journal")
    if not journal.is_file():
        return path
    copy = scratch / path.name
    shutil.copyfile(path, copy)
    shutil.copyfile(journal, scratch / journal.name)
    with suppress(sqlite3.Error), closing(sqlite3.connect(copy)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return copy


def parsed(text: object) -> Any:
    """JSON of a column (Any); None where it is none."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
