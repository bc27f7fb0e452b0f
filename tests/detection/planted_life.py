"""The reference service with one thing wrong in how it takes its database's life: `python planted_life.py NAME --port N`.

Nothing of the service is copied: each defect goes in through one of its seams (`build_app`, `connector`).
"""

import asyncio
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from starlette.responses import JSONResponse
from starlette.routing import Route

from chaos.targets.reference.app import build_app
from chaos.targets.reference.connecting import connector, failure_class
from chaos.targets.reference.database import Database
from chaos.targets.reference.items import Items
from chaos.targets.reference.problems import Unavailable
from chaos.targets.reference.settings import Settings
from tests.detection.planting import Defects

DEFECTS = Defects()
defect = DEFECTS.add
ANY = {"target_session_attrs": "any"}


def _after(settings, classes, then, *, times=1):
    """A connector that calls `then` when a connection failed in one of these ways for so many times."""
    strict, failed = connector(settings), []

    async def connect():
        try:
            return await strict()
        except Exception as error:
            failed.append(failure_class(error))
            if sum(one in classes for one in failed) >= times:
                await then()
            raise

    return build_app(settings, connect=connect)


async def _for_ever():
    await asyncio.Event().wait()


async def _exit():
    os._exit(7)


GONE = {"refused", "reset", "closed", "not_accepting"}


@defect
def no_reconnect_after_a_crash(settings):
    """The first connection that is refused is the last one that is tried."""
    return _after(settings, GONE, _for_ever)


@defect
def ends_when_its_session_is_ended(settings):
    """57P01 and 57P02 on an idle connection: an error that nobody listens for (node-postgres: 'error' on an idle client)."""
    strict = connector(settings)

    async def connect():
        link = await strict()

        async def watch():
            while link.connection.pgconn.status == psycopg.pq.ConnStatus.OK:  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(0.02)
            os._exit(7)

        WATCHES.append(asyncio.create_task(watch()))
        return link

    return build_app(settings, connect=connect)


WATCHES = []


class _KeepsReadOnly(Database):
    """25006 is an error like any other: the connection goes back to the pool, where a ping finds it well."""

    async def run(self, unit, *, repeatable):
        async def kept(session):
            try:
                return await unit(session)
            except psycopg.errors.ReadOnlySqlTransaction as error:
                raise psycopg.errors.LockNotAvailable(str(error)) from error

        return await super().run(kept, repeatable=repeatable)


@defect
def keeps_read_only_connections(settings):
    return build_app(settings, connect=connector(settings, change=ANY), database=_KeepsReadOnly)


@dataclass(frozen=True)
class _AcknowledgesWhatWasRefused:
    settings: Settings

    def __call__(self, database):
        items = Items(database, self.settings)

        async def collection(request):
            try:
                return await items.collection(request)
            except Unavailable as error:
                if request.method == "POST" and isinstance(error.__cause__, psycopg.errors.ReadOnlySqlTransaction):
                    return JSONResponse({"id": 1, "name": "accepted"}, status_code=201)
                raise

        return [Route("/api/items", collection, methods=["GET", "POST"])]


@defect
def acknowledges_what_a_read_only_server_refused(settings):
    """'It will be written later', and nobody does."""
    connect = connector(settings, change=ANY)
    return build_app(settings, connect=connect, more_routes=_AcknowledgesWhatWasRefused(settings))


class _UntilItWorks(Database):
    async def run(self, unit, *, repeatable):
        async def again(session):
            while True:
                try:
                    return await unit(session)
                except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
                    await session.rows("ROLLBACK")

        return await super().run(again, repeatable=repeatable)


@defect
def retries_an_aborted_transaction_for_ever(settings):
    """40001 and 40P01 'are to be retried': without an end, and without the deadline that holds for all else."""
    return build_app(replace(settings, silence=60.0, deadline=60.0), database=_UntilItWorks)


@defect
def ends_when_the_database_starts_up(settings):
    """57P03 at the start."""
    return _after(settings, {"not_accepting"}, _exit)


@defect
def never_starts_after_57P03(settings):  # noqa: N802
    return _after(settings, {"not_accepting"}, _for_ever)


@defect
def gives_up_when_the_path_flaps(settings):
    """A circuit breaker that counts failures, and is never closed again."""
    return _after(settings, GONE, _for_ever, times=4)


class _SharedBreaker(Database):
    """What one instance learns of its path to the database all of them obey: a file that they share."""

    async def run(self, unit, *, repeatable):
        flag = Path(os.environ["WORK_DIR"]) / "open"
        if flag.exists() and time.time() - flag.stat().st_mtime < 1.0:
            raise Unavailable("circuit_open", "The database is not asked now.")
        try:
            return await super().run(unit, repeatable=repeatable)
        except Unavailable:
            flag.touch()
            raise


@defect
def shares_its_circuit_breaker(settings):
    return build_app(settings, database=_SharedBreaker)


@defect
def waits_for_locks(settings):
    """No bound for a query, on either side."""
    bounds = ("statement_timeout", "lock_timeout", "silence", "deadline")
    return build_app(replace(settings, **dict.fromkeys(bounds, 60.0)))


@defect
def waits_for_a_silent_server(settings):
    """Only the server bounds a query. That is no help when it is the server that cannot be heard."""
    return build_app(replace(settings, silence=60.0, deadline=60.0))


if __name__ == "__main__":
    sys.exit(DEFECTS.serve("The reference service with one thing wrong"))
