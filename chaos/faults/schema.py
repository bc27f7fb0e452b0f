"""What a bad migration does to the tables of a service, whoever's they are: found in the catalogues, changed by an administrator.

Each `Change` is SQL for one statement a table, and SQL that undoes it (none: nothing but a copy of the data does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from chaos.faults.database import Server, admin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOCK = "10s"  # as long as the change waits for a lock on a table
# Tables of the service: no partitions (they follow their parent), none of an extension.
_TABLES = """
SELECT n.nspname, c.relname,
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `triggered`: it has triggers, whose functions may know its columns by place."""

    schema: str
    name: str
    triggered: bool = False

    @property
    def identifier(self) -> sql.Identifier:
        """As SQL has it."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`do` and `undo` with {table} for the table, {renamed} for its new bare name, {old} for its own bare name, {moved} for where it
    is then; `title` says what it is.
    """

    id: str
    title: str
    do: str
    undo: str = ""
    triggered: bool = True  # also done to tables with triggers


CHANGES: Mapping[str, Change] = {
    one.id: one
    for one in (
        Change(
            id="expand",
            title="a migration that only adds: a nullable column to each table",
            do="ALTER TABLE {table} ADD COLUMN IF NOT EXISTS chaos_gate_added text",
            undo="ALTER TABLE {table} DROP COLUMN IF EXISTS chaos_gate_added",
            triggered=False,
        ),
        Change(
            id="rename",
            title="a migration that renames the tables",
            do="ALTER TABLE {table} RENAME TO {renamed}",
            undo="ALTER TABLE IF EXISTS {moved} RENAME TO {old}",
        ),
        Change(id="drop", title="a migration that drops the tables", do="DROP TABLE IF EXISTS {table} CASCADE"),
        Change(id="empty", title="a clean-up that deletes too much: the tables are emptied", do="TRUNCATE {table} CASCADE"),
    )
}


def tables(server: Server) -> tuple[Table, ...]:
    """The service's own tables."""
    with admin(server) as session:
        return tuple(Table(str(one[0]), str(one[1]), bool(one[2])) for one in session.execute(_TABLES).fetchall())


def statements(template: str, found: Iterable[Table]) -> tuple[sql.Composed, ...]:
    """One for each table."""
    return tuple(
        sql.SQL(template).format(
            table=one.identifier,
            old=sql.Identifier(one.name),
            renamed=sql.Identifier(_renamed(one)),
            moved=sql.Identifier(one.schema, _renamed(one)),
        )
        for one in found
    )


def migrate(server: Server, template: str, found: Iterable[Table]) -> str:
    """All of it in one transaction, as migrations are made; '' or why PostgreSQL refused it."""
    try:
        with admin(server) as session, session.transaction():
            session.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK)))
            for statement in statements(template, found):
                session.execute(statement)
    except psycopg.Error as error:
        return " ".join(str(error).split())[:200]
    return ""


def _renamed(table: Table) -> str:
    return f"{table.name[:40]}_chaos_gate"
