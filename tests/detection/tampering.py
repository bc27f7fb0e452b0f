"""Every way of changing a bundle that we could think of, made systematically from the bundle itself."""

import base64
import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

ENTRIES = {"host_rows", "tables", "plan", "parts", "rows", "not_applicable"}
STORE, ATTESTATION = "evidence.sqlite", "attestation.json"
TABLES = ("history", "window", "operation", "connection", "finding", "log", "phase", "chain", "meta")


@dataclass(frozen=True)
class Mutation:
    """`change` is done to a copy of the bundle; one of `places` has to be named by a step that does not only compare digests of files."""

    name: str
    change: object
    places: tuple


def copy(bundle, to):
    """A copy whose files are links, but for those that are changed: see `own`."""
    for path in bundle.rglob("*"):
        there = to / path.relative_to(bundle)
        there.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            os.link(path, there)
    return to


def own(path):
    """The file as one that may be written."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    return path


def sql(directory, *statements, file=STORE):
    with closing(sqlite3.connect(own(directory / file))) as connection:
        for statement, values in statements:
            assert connection.execute(statement, values).rowcount, statement
        connection.commit()


def other(value):
    """A value of the same kind that is not this one."""
    if isinstance(value, bool):
        return not value
    if value is None:
        return 1
    if isinstance(value, int | float):
        return value + 1000
    if isinstance(value, str):
        return (value[:-1] + ("0" if value[-1] != "0" else "1")) if value else "x"
    if isinstance(value, list):
        return [*value, "x"]
    return {**value, "x": 1}


# -- the store ----------------------------------------------------------------------------------------------------------------------


def of_columns(bundle):
    """One field of each column of each table."""
    with closing(sqlite3.connect(bundle / STORE)) as connection:
        for table in TABLES:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            for column in columns:
                row = connection.execute(f"SELECT rowid, {quoted(column)} FROM {table} ORDER BY rowid LIMIT 1").fetchone()
                assert row is not None or table == "log", table
                if row is not None:
                    yield field_of(table, column, *row)


def quoted(name):
    return f'"{name}"'


def field_of(table, column, row, value):
    def change(directory):
        sql(directory, (f"UPDATE {table} SET {quoted(column)} = ? WHERE rowid = ?", (other(value), row)))

    places = (
        (f"column {column}", f"{column}", table) if table not in {"chain", "meta"} else (column, "chain", "meta", "evidence.json")
    )
    return Mutation(f"{table}.{column}", change, places)


def of_rows(bundle):
    """A row gone, twice, or in another's place, in each table."""
    with closing(sqlite3.connect(bundle / STORE)) as connection:
        for table in TABLES[:-1]:
            rows = [row[0] for row in connection.execute(f"SELECT rowid FROM {table} ORDER BY rowid")]
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            listed = ", ".join(map(quoted, names))
            for what, row in (("first", rows[:1]), ("last", rows[-1:])):
                for number in row:
                    yield Mutation(
                        f"{table}: {what} row gone",
                        lambda directory, table=table, number=number: sql(
                            directory, (f"DELETE FROM {table} WHERE rowid = ?", (number,))
                        ),
                        (table, "chain"),
                    )
            if table in {"history", "chain"}:
                continue  # their keys are unique
            yield (
                Mutation(
                    f"{table}: a row twice",
                    lambda directory, table=table, listed=listed: sql(
                        directory, (f"INSERT INTO {table} ({listed}) SELECT {listed} FROM {table} ORDER BY rowid LIMIT 1", ())
                    ),
                    (table, "chain"),
                )
                if rows
                else None
            )
            if two := neighbours(connection, table):
                yield Mutation(f"{table}: two rows in each other's place", swapped(table, *two), (table, "chain"))


def neighbours(connection, table):
    """Two rows of one record that differ."""
    owner = "worker" if table == "phase" else "history"
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    for key, _ in connection.execute(f"SELECT {owner}, count(*) FROM {table} GROUP BY 1 HAVING count(*) > 1").fetchall():
        listed = ", ".join(map(quoted, names))
        rows = connection.execute(
            f"SELECT rowid, {listed} FROM {table} WHERE {owner} = ? ORDER BY rowid LIMIT 2", (key,)
        ).fetchall()
        if rows[0][1:] != rows[1][1:]:
            return rows[0][0], rows[1][0]
    return None


def swapped(table, one, two):
    def change(directory):
        move = f"UPDATE {table} SET rowid = ? WHERE rowid = ?"
        sql(directory, (move, (-1, one)), (move, (one, two)), (move, (two, -1)))

    return change


def of_histories(bundle):
    """A whole experiment gone, with its link; and the links after it moved up."""

    def gone(directory, *, tidy):
        with closing(sqlite3.connect(own(directory / STORE))) as connection:
            number, segment, link = connection.execute(
                "SELECT record, segment, number FROM chain WHERE kind = 'history' ORDER BY number LIMIT 1"
            ).fetchone()
            for table in ("window", "operation", "connection", "finding", "log", "interval", "gauge"):
                connection.execute(f"DELETE FROM {table} WHERE history = ?", (number,))
            connection.execute("DELETE FROM history WHERE number = ?", (number,))
            connection.execute("DELETE FROM chain WHERE segment = ? AND number = ?", (segment, link))
            if tidy:
                connection.execute("UPDATE chain SET number = number - 1 WHERE segment = ? AND number > ?", (segment, link))
            connection.commit()

    def segment_gone(directory):
        sql(directory, ("DELETE FROM chain WHERE segment = 'controller'", ()))

    def two_links(directory):
        sql(
            directory,
            ("UPDATE chain SET number = -1 WHERE segment = 'controller' AND number = 1", ()),
            ("UPDATE chain SET number = 1 WHERE segment = 'controller' AND number = 2", ()),
            ("UPDATE chain SET number = 2 WHERE segment = 'controller' AND number = -1", ()),
        )

    yield Mutation("an experiment gone", lambda directory: gone(directory, tidy=False), ("history", "coverage"))
    yield Mutation("an experiment gone, no gap left", lambda directory: gone(directory, tidy=True), ("history", "coverage"))
    yield Mutation("the links of a segment gone", segment_gone, ("segments", "finding"))
    yield Mutation("two links in each other's place", two_links, ("chain",))
    for name, statement in (
        ("a table that no digest covers", "CREATE TABLE more (x)"),
        ("a column that no digest covers", "ALTER TABLE operation ADD COLUMN more TEXT"),
        ("a trigger", "CREATE TRIGGER t AFTER INSERT ON log BEGIN SELECT 1; END"),
        ("a view", "CREATE VIEW v AS SELECT 1"),
    ):
        yield Mutation(name, lambda directory, statement=statement: schema(directory, statement), ("table", "trigger", "view"))


def schema(directory, statement):
    with closing(sqlite3.connect(own(directory / STORE))) as connection:
        connection.execute(statement)


def of_times(bundle):
    """All times of a kind shifted by an hour."""
    for table, columns in (("history", ("started", "finished")), ("window", ("injected", "healed")), ("chain", ("at",)), ("phase", ("at",)),
                           ("operation", ("planned", "started", "finished")), ("connection", ("opened", "closed"))):  # fmt: skip
        moved = ", ".join(f"{column} = {column} - 3600" for column in columns)
        yield Mutation(
            f"all times of {table} an hour earlier",
            lambda directory, table=table, moved=moved: sql(directory, (f"UPDATE {table} SET {moved}", ())),
            ("chain", table),
        )


# -- JSON ---------------------------------------------------------------------------------------------------------------------------


def members(value, path=()):
    """Every member, by path; of a list the first element and the last."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), item
            yield from members(item, (*path, key))
    elif isinstance(value, list):
        for index in dict.fromkeys((0, len(value) - 1)) if value else ():
            yield (*path, index), value[index]
            yield from members(value[index], (*path, index))


def shape(path):
    """Two members of one shape differ in nothing that a verifier could care about: elements of a list, and entries of a table."""
    parts = ["*" if isinstance(key, int) else key for key in path]
    for index, key in enumerate(parts[:-1]):
        if key in ENTRIES:
            parts[index + 1] = "*"
        if key == "configuration" and "policy" not in parts:
            return tuple(parts[: index + 2])
    return tuple(parts)


def at(value, path):
    for key in path:
        value = value[key]
    return value


def of_json(name, value, write):
    """One member of each shape changed, and one gone."""
    seen = set()
    for path, item in members(value):
        if shape(path) in seen:
            continue
        seen.add(shape(path))
        told = f"{name}: {'.'.join(map(str, path))}"
        yield Mutation(f"{told} changed", altered(value, path, write, lambda _, item=item: other(item)), (name, "policy"))
        yield Mutation(f"{told} gone", altered(value, path, write, None), (name, "policy"))
    for path, item in members(value):
        if isinstance(item, list) and len(item) > 1 and item[0] != item[1] and ("list", *shape(path)) not in seen:
            seen.add(("list", *shape(path)))
            yield Mutation(
                f"{name}: {'.'.join(map(str, path))} in another order",
                altered(value, path, write, lambda one: one[::-1]),
                (name,),
            )


def altered(value, path, write, make):
    def change(directory):
        new = json.loads(json.dumps(value))
        inside = at(new, path[:-1])
        if make is None:
            del inside[path[-1]]
        else:
            inside[path[-1]] = make(inside[path[-1]])
        write(directory, new)

    return change


def dumped(name):
    def write(directory, value):
        own(directory / name).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    return write


def repacked(directory, statement):
    envelope = json.loads((directory / ATTESTATION).read_text())
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    dumped(ATTESTATION)(directory, envelope)


def statement(bundle):
    return json.loads(base64.b64decode(json.loads((bundle / ATTESTATION).read_text())["payload"]))


# -- files --------------------------------------------------------------------------------------------------------------------------


def of_files(bundle):
    for path in sorted(one for one in bundle.rglob("*") if one.is_file()):
        name = path.relative_to(bundle).as_posix()
        yield Mutation(f"{name} gone", lambda directory, name=name: (directory / name).unlink(), (name,))
        yield Mutation(f"{name} cut off", lambda directory, name=name: cut(directory / name), (name,))
        yield Mutation(f"{name} longer", lambda directory, name=name: longer(directory / name), (name,))
        yield Mutation(f"{name} empty", lambda directory, name=name: own(directory / name).write_bytes(b""), (name,))
    for name in ("notes.txt", "evidence.sqlite-journal", "segments/gw9.sqlite", ".hidden"):
        yield Mutation(f"{name} beside", lambda directory, name=name: (directory / name).write_bytes(b"x"), (name,))

    def exchanged(directory):
        one, two = sorted((directory / "segments").glob("*.sqlite"))[:2]
        one.rename(directory / "x")
        two.rename(one)
        (directory / "x").rename(two)

    yield Mutation("two segments in each other's place", exchanged, ("segments/",))


def longer(path):
    content = path.read_bytes()
    own(path).write_bytes(content + b" \n")


def cut(path):
    own(path).write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def mutations(bundle):
    """All of them; attestation.json's are those of its envelope, and of the statement in it."""
    yield from filter(None, of_columns(bundle))
    yield from filter(None, of_rows(bundle))
    yield from of_histories(bundle)
    yield from of_times(bundle)
    for name in ("evidence.json", "policy.json"):
        yield from of_json(name, json.loads((bundle / name).read_text()), dumped(name))
    envelope = json.loads((bundle / ATTESTATION).read_text())
    yield from of_json(ATTESTATION, envelope, dumped(ATTESTATION))
    yield from of_json(ATTESTATION, statement(bundle), repacked)
    yield from of_files(bundle)


def tampered(bundle, mutation, place):
    """A copy with the mutation done."""
    directory = copy(bundle, Path(place) / "bundle")
    mutation.change(directory)
    return directory


def clear(place):
    shutil.rmtree(place, ignore_errors=True)
