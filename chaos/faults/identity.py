"""Errors that no retry mends: the password is wrong (28P01), the database is not there (3D000). Said by PostgreSQL itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import psycopg
from psycopg import sql

from chaos.faults.database import ADMIN, Server, terminate
from chaos.faults.probe import connect
from chaos.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable


class Known(Server, Protocol):
    """A server whose application's password is known, and so can be put back."""

    app_password: str


SAYS = {"28P01": "password authentication failed", "3D000": "does not exist"}  # libpq gives no SQLSTATE for a failed connection
AWAY = "chaos_gate_elsewhere"  # the database's name meanwhile


@dataclass(slots=True)
class Final:
    """`code` is what PostgreSQL refuses every new connection with, '28P01' or '3D000'; the target's sessions are closed."""

    code: str
    server: Known
    probe_conninfo: str
    pause: Callable[[float], None]
    broken: bool = False

    @property
    def id(self) -> str:
        """For the ledger."""
        return f"refused.{self.code}"

    @property
    def title(self) -> str:
        """For people."""
        return f"PostgreSQL refuses every connection with {self.code}"

    def inject(self) -> None:
        """The role gets another password; or the database another name, which takes a moment without a session in it."""
        self.broken = True
        if self.code == "28P01":
            self._password(f"not {self.server.app_password}")
            terminate(self.server)
        else:
            self._rename(self.server.app_database, AWAY)

    def confirm(self) -> Effect:
        """A session of our own."""
        seen = connect(self.probe_conninfo)
        return Effect(took=SAYS[self.code] in seen.text, seen=f"a session of our own: {seen.text[-120:] or seen.how}", count=1)

    def heal(self) -> None:
        """Idempotent."""
        if not self.broken:
            return
        if self.code == "28P01":
            self._password(self.server.app_password)
        else:
            self._rename(AWAY, self.server.app_database)
        self.broken = False

    def _password(self, password: str) -> None:
        with self._session() as session:
            session.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(self.server.app_user), sql.Literal(password))
            )

    def _rename(self, old: str, new: str) -> None:
        """Idempotent; whoever is in it is put out, again and again, for some connect faster than that."""
        command = sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
        with self._session() as session:
            session.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 0").format(sql.Identifier(self.server.app_user)))
            try:
                for _ in range(100):
                    session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (old,))
                    try:
                        session.execute(command)
                    except psycopg.errors.ObjectInUse:
                        self.pause(0.05)
                    except psycopg.errors.InvalidCatalogName:
                        return
                    else:
                        return
            finally:
                session.execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT -1").format(sql.Identifier(self.server.app_user)))

    def _session(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.server.admin_conninfo, autocommit=True, application_name=ADMIN, connect_timeout=10)
