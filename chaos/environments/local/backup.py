"""Base backup, archived WAL and the way back to a point in time, of a PostgreSQL of ours: PostgreSQL's own means, and no others.

https://www.postgresql.org/docs/current/continuous-archiving.html. Archiving needs a restart; `begin` and `end` are one each.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.environments.local.postgres import Postgres
    from chaos.errors import PartFailed

# {archive} is the archive's directory; %p and %f are PostgreSQL's. A segment has its name only when it is complete.
ARCHIVE = 'test ! -f "{archive}/%f" && cp "%p" "{archive}/%f.part" && mv "{archive}/%f.part" "{archive}/%f"'
FETCH = 'cp "{archive}/%f" "%p"'
NAME = "before the disaster"
ARCHIVING = 10.0  # s in which a segment that is complete has to be in the archive
_SEGMENT = re.compile(r"[0-9A-F]{24}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A recovery target: recovery_target_<kind> = value. `segment` is the WAL file that it is in."""

    kind: str
    value: str
    segment: str

    @property
    def settings(self) -> dict[str, str]:
        """For postgresql.conf."""
        return {f"recovery_target_{self.kind}": f"'{self.value}'", "recovery_target_action": "promote"}


class Backups:
    """Of one server. `archive_command` and `restore_command` as PostgreSQL has them, with {archive} for the archive's directory."""

    def __init__(self, server: Postgres, *, archive_command: str = ARCHIVE, restore_command: str = FETCH) -> None:
        self.server = server
        self.archive = server.home / "archive"
        self.base = server.home / "base"
        self._archive_command, self._restore_command = archive_command, restore_command

    def begin(self) -> None:
        """Archiving, from a restart on."""
        self._clear()
        self.archive.mkdir(mode=0o700)
        if self.server.owner:
            os.chown(self.archive, *self.server.owner)
        self.server.restart(self._settings())

    def end(self) -> None:
        """No archiving, from a restart on; nothing is left of all this."""
        self.server.restart({})
        self._clear()

    def take(self) -> None:
        """The base backup, while the server serves."""
        self.server.base_backup(self.base)

    def point(self, kind: str) -> Point:
        """Now, as a recovery target: by the server's clock, by its place in the WAL, or by a name that is written there."""
        asked = {
            "time": "clock_timestamp()::text",
            "lsn": "pg_current_wal_insert_lsn()::text",
            "name": f"pg_create_restore_point('{NAME}')::text",
        }[kind]
        with self._admin() as session:
            row = session.execute(f"SELECT {asked}, pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
        assert row is not None
        return Point(kind=kind, value=NAME if kind == "name" else str(row[0]), segment=str(row[1]))

    def secure(self) -> str:
        """Have the segment in progress archived too, as the last thing that the old server does; '' or why it was not."""
        with self._admin() as session:
            row = session.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
            last = str(row[0]) if row else ""
            deadline = time.monotonic() + ARCHIVING
            while time.monotonic() < deadline:
                told = session.execute("SELECT last_archived_wal, last_failed_wal, failed_count FROM pg_stat_archiver").fetchone()
                if told and str(told[0] or "") >= last:
                    return ""
                time.sleep(0.05)
        failed = f": archive_command failed {told[2]} times, at {told[1]} last" if told and told[2] else ""
        return f"{last} was not archived within {ARCHIVING:g} s{failed}"

    def restore(self, point: Point) -> None:
        """The server, on the base backup and the archived WAL up to `point`. PartFailed, with the server's words, when it cannot."""
        self.server.recover_from(self.base, {**self._settings(), **self._fetching(self._restore_command), **point.settings})

    def reinstate(self, point: Point) -> None:
        """The same with the former server's own WAL, where the archive was not enough: for what comes after, not for a verdict."""
        kept = f'cp "{self.server.home}/aside/pg_wal/%f" "%p"'
        self.server.recover_from(self.base, {**self._settings(), **self._fetching(f"{FETCH} || {kept}"), **point.settings})

    def missing(self, point: Point) -> tuple[str, ...]:
        """The segments from the base backup to `point` that the archive does not hold."""
        label = (self.base / "backup_label").read_text(encoding="utf-8")
        found = re.search(r"START WAL LOCATION: .*\(file ([0-9A-F]{24})\)", label)
        first = found[1] if found else point.segment
        per_id = 2**32 // self._segment_size()

        def number(name: str) -> int:
            return int(name[8:16], 16) * per_id + int(name[16:], 16)

        needed = [
            f"{point.segment[:8]}{each // per_id:08X}{each % per_id:08X}"
            for each in range(number(first), number(point.segment) + 1)
        ]
        there = {path.name for path in self.archive.iterdir() if _SEGMENT.fullmatch(path.name) and path.stat().st_size}
        return tuple(name for name in needed if name not in there)

    def _segment_size(self) -> int:
        sizes = {path.stat().st_size for path in (self.base / "pg_wal").iterdir() if _SEGMENT.fullmatch(path.name)}
        return max(sizes, default=2**24)

    def _settings(self) -> dict[str, str]:
        """A server that archives. It keeps its own WAL for a while, so that the environment can be put right whatever becomes of it."""
        return {
            "archive_mode": "on",
            "archive_command": f"'{_quoted(self._archive_command.replace('{archive}', str(self.archive)))}'",
            "wal_keep_size": "512MB",
            "hot_standby": "off",
        }

    def _fetching(self, command: str) -> Mapping[str, str]:
        return {"restore_command": f"'{_quoted(command.replace('{archive}', str(self.archive)))}'"}

    def _admin(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.server.admin_conninfo, autocommit=True, application_name="chaos-gate")

    def _clear(self) -> None:
        for name in ("archive", "base", "aside"):
            shutil.rmtree(self.server.home / name, ignore_errors=True)


def _quoted(text: str) -> str:
    """Within single quotes in postgresql.conf."""
    return text.replace("'", "''")


def words(error: PartFailed) -> str:
    """What the server said of a recovery that failed, in a line."""
    told = [line for line in error.tail if re.search(r"FATAL|PANIC|could not|missing", line)]
    return "; ".join(part.split(": ", 1)[-1].strip() for part in told[-2:]) or error.what
