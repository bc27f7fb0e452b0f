"""The record of a run on disk, in SQLite: readable after `kill -9` at any moment, and never smaller than it was.

Each worker appends to a file of its own, `segments/<worker>.sqlite`, one transaction an experiment: a rollback journal instead
of a write-ahead log, so that a segment is one file that can be copied, and so that a killed writer leaves at most one unfinished
transaction, which the next reader rolls back (https://www.sqlite.org/atomiccommit.html). `merge` makes `evidence.sqlite` of all
segments beside it and renames it into place; the segments stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Self

from chaos.errors import UsageError
from chaos.evidence import attested, chain, record
from chaos.evidence.disk import written
from chaos.evidence.redact import hide, in_json
from chaos.evidence.rows import DDL, FINDING, HISTORY, PARTS, SCHEMA_VERSION, TABLES, Table, added, storable

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from chaos.model import Finding, History

SEGMENTS = "segments"
STORE = "evidence.sqlite"


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]


def _readable(path: Path, version: int) -> None:
    if version <= SCHEMA_VERSION:
        return
    raise UsageError(
        f"this evidence was written by a newer chaos-gate (schema {version}; this one reads up to {SCHEMA_VERSION})",
        remedy="read it with the chaos-gate that wrote it, or a newer one",
        where=str(path),
    )


def _create(path: Path) -> sqlite3.Connection:
    """A connection that writes, with all tables there; an earlier version's tables get the columns they lack."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # check_same_thread off: a fixture's finaliser may run in another thread; `Segment` has a lock
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        _readable(path, version)
        with _transaction(connection):
            for statement in (*DDL, chain.DDL):
                connection.execute(statement)
            for table in TABLES:
                for statement in added(table, _columns(connection, table.name)):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors (full disk); then there is nothing left to roll back
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, table: Table, links: tuple[Any, ...], values: Iterable[Any], clean: _Clean) -> None:
    names = ", ".join([*(link.split()[0] for link in table.links), *(f'"{name}"' for name in table.names)])
    marks = ", ".join("?" * (len(links) + len(table.columns)))
    rows = [links + table.encode(value, clean) for value in values]
    statement = f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})'  # noqa: S608  (names of our own dataclasses)
    connection.execute("SAVEPOINT rows")
    try:
        connection.executemany(statement, rows)
    except UnicodeEncodeError:
        connection.execute("ROLLBACK TO rows")
        connection.executemany(statement, [storable(row) for row in rows])
    connection.execute("RELEASE rows")


_Clean = Callable[[str], str]


class Segment:
    """One worker's own file. Secrets, those of a known shape and the `secrets` given, are hidden before anything reaches the disk.

    Appending to a file that is there already goes on behind what it holds. Raises EvidenceUnwritable.
    """

    def __init__(self, path: Path, *, secrets: Iterable[str] = ()) -> None:
        self.path = path
        self.worker = path.stem
        self._chain = chain.Chain(path)
        self._lock = threading.Lock()
        hidden = tuple(sorted({item for item in secrets if len(item) >= 4}))
        # Paths, media types and samples come again and again; what is new each time, such as a body, passes through.
        self._clean: _Clean = lru_cache(maxsize=2_048)(partial(hide, secrets=hidden))
        with written(path):
            self._connection = _create(path)

    def append(self, history: History, findings: Iterable[Finding] = ()) -> None:
        """One experiment, whole or not at all."""
        clean = self._clean
        with self._lock, written(self.path), _transaction(self._connection):
            number = self._connection.execute("SELECT coalesce(max(number), 0) + 1 FROM history").fetchone()[0]
            _insert(self._connection, HISTORY, (number, self.worker), [history], clean)
            for field, table in PARTS.items():
                _insert(self._connection, table, (number,), getattr(history, field), clean)
            lines = [(number, clean(line)) for line in history.logs]
            self._connection.executemany("INSERT INTO log VALUES (?, ?)", [(item, _text(line)) for item, line in lines])
            _insert(self._connection, FINDING, (number,), findings, clean)
            self._chain.link(self._connection, chain.HISTORY, number)

    def add(self, findings: Iterable[Finding]) -> None:
        """Findings that belong to no history of their own (of the whole run, or of something that could not even start)."""
        with self._lock, written(self.path), _transaction(self._connection):
            number = chain.lowest(self._connection) - 1
            _insert(self._connection, FINDING, (number,), findings, self._clean)
            self._chain.link(self._connection, chain.FINDINGS, number)

    def phase(self, name: str, at: float) -> None:
        """When a phase of the worker began."""
        with self._lock, written(self.path), _transaction(self._connection):
            self._connection.execute("INSERT INTO phase VALUES (?, ?, ?)", (self.worker, name, at))
            self._chain.link(self._connection, chain.PHASE, 0)

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _text(line: str) -> str | bytes:
    try:
        line.encode()
    except UnicodeEncodeError:
        return line.encode("utf-8", "surrogatepass")
    return line


class Store:
    """Reads a segment, or the evidence of a run. Histories come in the order in which the experiments began."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UsageError("there is no evidence here", remedy="name a directory that `chaos-gate run` wrote", where=str(path))
        try:
            self._connection = _open(path)
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            tables = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.Error as error:
            raise _unreadable(path, str(error)) from error
        try:
            _readable(path, version)
        except UsageError:
            self.close()
            raise
        if not {"history", "meta"} <= tables:
            self.close()
            raise _unreadable(path, "it is empty, or something else than an evidence store")

    def close(self) -> None:
        """Idempotent."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def meta(self) -> dict[str, str]:
        """Single values: 'schema_version', 'run' (see `run`), 'damaged' (see `damaged`)."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    @property
    def damaged(self) -> tuple[str, ...]:
        """What could not be read when the segments were merged, one sentence each: a run with any has lost observations."""
        return tuple(json.loads(self.meta.get("damaged", "[]")))

    def numbers(self) -> list[int]:
        """The keys of the histories, in order of time."""
        return [row[0] for row in self._connection.execute("SELECT number FROM history ORDER BY started, number")]

    def recordings(self) -> Iterator[tuple[str, History]]:
        """(worker, history), one at a time: only one history is in memory."""
        readers = {table.name: self._reader(table) for table in (HISTORY, *PARTS.values())}
        names = [item for item in _columns(self._connection, "history") if item != "number"]
        quoted = ", ".join(f'"{item}"' for item in names)
        query = f"SELECT {quoted} FROM history WHERE number = ?"  # noqa: S608  (column names of the store itself)
        head = HISTORY.decoder(names)
        for number in self.numbers():
            row = self._connection.execute(query, (number,)).fetchone()
            parts: dict[str, Any] = {field: tuple(readers[table.name](number)) for field, table in PARTS.items()}
            logs = tuple(_line(item[0]) for item in self._connection.execute(_LOGS, (number,)))
            yield str(row[names.index("worker")]), replace(head(row), **parts, logs=logs)

    def histories(self) -> Iterator[History]:
        """All that was recorded, one experiment at a time."""
        return (history for _, history in self.recordings())

    def findings(self) -> Iterator[Finding]:
        """As the checks made them during the run, in order of time."""
        decode = FINDING.decoder(names := _columns(self._connection, "finding"))
        quoted = ", ".join(f'f."{item}"' for item in names)
        query = (
            f"SELECT {quoted} FROM finding f LEFT JOIN history h ON h.number = f.history "  # noqa: S608  (as above)
            "ORDER BY h.started IS NULL, h.started, h.number, f.rowid"
        )
        return (decode(row) for row in self._connection.execute(query).fetchall())

    def seconds(self) -> dict[str, float]:
        """Experiment -> how long it took, all its repetitions together."""
        query = "SELECT experiment, sum(max(0.0, finished - started)) FROM history GROUP BY experiment"
        return dict(self._connection.execute(query).fetchall())

    def phases(self) -> tuple[tuple[str, str, float], ...]:
        """(worker, name, when it began), in order of time."""
        return tuple(self._connection.execute("SELECT worker, name, at FROM phase ORDER BY at, rowid").fetchall())

    def attested(self) -> attested.Attested:
        """What an attestation says of the store as a whole."""
        return attested.attested(self._connection)

    def ended(self) -> list[str]:
        """What ended the run early, as the controller chained it; nothing for one that came to its end."""
        return [name.removeprefix(attested.ENDED) for _, name, _ in self.phases() if name.startswith(attested.ENDED)]

    def run(self) -> record.Run:
        """The run as `save` kept it, with this store's histories behind it."""
        text = self.meta.get("run")
        if text is None:
            raise UsageError(
                "the run that wrote this evidence did not come to its end, so it holds no verdict",
                remedy="`chaos-gate recheck` makes one of what was recorded",
                where=str(self.path),
            )
        return record.loads(text, self.recordings)

    def save(self, run: record.Run, *, secrets: Iterable[str] = ()) -> None:
        """Keeps the run's own words (verdict, gates, findings) beside what they were made of. Raises EvidenceUnwritable."""
        text = json.dumps(in_json(json.loads(record.dumps(run)), partial(hide, secrets=tuple(secrets))))
        with written(self.path), _transaction(self._connection):
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('run', ?)", (text,))

    def _reader(self, table: Table) -> Callable[[int], Iterator[Any]]:
        names = [item for item in _columns(self._connection, table.name) if item in table.names]
        decode = table.decoder(names)
        quoted = ", ".join(f'"{item}"' for item in names)
        query = f'SELECT {quoted} FROM "{table.name}" WHERE history = ? ORDER BY rowid'  # noqa: S608  (as above)
        return lambda number: map(decode, self._connection.execute(query, (number,)))


_LOGS = "SELECT line FROM log WHERE history = ? ORDER BY rowid"


def _line(item: str | bytes) -> str:
    return item.decode("utf-8", "surrogatepass") if isinstance(item, bytes) else item


def _open(path: Path) -> sqlite3.Connection:
    """To read; a journal that a killed writer left is rolled back, which needs write access. Without it: as the file stands."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        connection = sqlite3.connect(f"file:{path.as_posix()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection


def _unreadable(path: Path, why: str) -> UsageError:
    what = f"this is no readable evidence store ({why})"
    return UsageError(what, remedy="name a directory that `chaos-gate run` wrote", where=str(path))


def kept(directory: Path) -> Iterator[Finding]:
    """The findings that the segments hold already, as far as they can be read."""
    for segment in sorted((directory / SEGMENTS).glob("*.sqlite")):
        with contextlib.suppress(UsageError, sqlite3.Error), Store(segment) as store:
            yield from store.findings()


def merge(directory: Path) -> Store:
    """`evidence.sqlite` of all segments, made anew and renamed into place; what an earlier one held in `meta` is kept.

    A damaged segment does not stop the others: what of it can be read is taken, and the rest is named in `Store.damaged`.
    Raises EvidenceUnwritable, and UsageError when there is nothing to merge.
    """
    path = directory / STORE
    segments = sorted((directory / SEGMENTS).glob("*.sqlite"))
    if not segments:
        return Store(path)
    kept = {}
    if path.exists():
        with contextlib.suppress(UsageError), Store(path) as earlier:
            kept = {key: value for key, value in earlier.meta.items() if key not in {"schema_version", "damaged"}}
    partial = directory / f".{STORE}.{os.getpid()}"
    damaged: list[str] = []
    with written(path):
        partial.unlink(missing_ok=True)
        try:
            connection = _create(partial)
            try:
                # Nobody reads it before it is whole, so nothing has to reach the disk before then: 72 hours have 4,320 transactions.
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute("PRAGMA journal_mode = MEMORY")
                for segment in segments:
                    damaged += _take(connection, segment)
                kept["damaged"] = json.dumps(damaged)
                with _transaction(connection):
                    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", kept.items())
            finally:
                connection.close()
            with partial.open("rb+") as whole:
                os.fsync(whole.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return Store(path)


def _take(connection: sqlite3.Connection, segment: Path) -> list[str]:
    """Copies one segment, an experiment at a time; answers with what could not be read."""
    damaged = []
    try:
        with Store(segment) as source:
            numbers = source.numbers()
    except UsageError as error:
        if segment.stat().st_size == 0:
            return []  # the worker was killed before its first write
        return [f"{segment.name}: {error.what}"]
    except sqlite3.Error as error:
        return [f"{segment.name}: {error}"]
    connection.execute("ATTACH ? AS segment", (str(segment),))
    try:
        offset = connection.execute("SELECT coalesce(max(number), 0) FROM history").fetchone()[0]
        down = -chain.lowest(connection)
        for number in [*numbers, 0]:
            try:
                with _transaction(connection):
                    _copy(connection, number, number + offset if number else -down)
                    if not number:
                        chain.copy(connection, up=offset, down=down)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                    raise
                damaged.append(f"{segment.name}: experiment {number} cannot be read ({error})")
    finally:
        connection.execute("DETACH segment")
    return damaged


def _copy(connection: sqlite3.Connection, number: int, new: int) -> None:
    """One experiment from the attached segment (number 0: what belongs to none, which is numbered downwards, and the phases)."""
    if number == 0:
        connection.execute("INSERT INTO phase SELECT worker, name, at FROM segment.phase")
    known = {row[0] for row in connection.execute("SELECT name FROM segment.sqlite_master WHERE type = 'table'")}
    for name in (*(table.name for table in TABLES), "log"):
        if name not in known or (name == "history" and not number):
            continue  # a store of an earlier version
        key = "number" if name == "history" else "history"
        there = {row[1] for row in connection.execute(f'PRAGMA segment.table_info("{name}")')}
        shared = [item for item in _columns(connection, name) if item in there and item != key]
        quoted = ", ".join(f'"{item}"' for item in shared)
        # what belongs to no history stays at 0 in a store of an earlier version, and is numbered downwards since
        moved, rows = (
            ("CASE WHEN history < 0 THEN history + ? ELSE 0 END", "history <= 0") if not number else ("?", f"{key} = {number}")
        )
        connection.execute(
            f'INSERT INTO main."{name}" ({key}, {quoted}) SELECT {moved}, {quoted} FROM segment."{name}" '  # noqa: S608  (our own names)
            f"WHERE {rows} ORDER BY rowid",
            (new,),
        )
