"""Work on the database within a deadline, and what its failures mean.

A unit of work runs in a task of its own. The request waits for that task, never inside it, so the caller's deadline holds whatever the
driver is doing: a unit that has to be given up is hung up on (`Link.hang_up`) and cleans up behind the request's back, at once. No
CancelRequest is ever sent: it would be one more connection in an outage, and before libpq 17 a plaintext one (catalogue row P16). A
query given up ends in the server by itself, `statement_timeout` after it began.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import stamina
from psycopg.pq import TransactionStatus

from chaos.targets.reference.backoff import RetryBudget, retry_hook
from chaos.targets.reference.pool import Link, Pool, PoolExhausted
from chaos.targets.reference.problems import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from chaos.targets.reference.settings import Settings

T = TypeVar("T")
Row = tuple[Any, ...]  # what a row holds is the query's business


class Lost(Exception):  # noqa: N818  (a state of affairs)
    """The connection failed at work, or the server fell silent on it."""


@dataclass(slots=True)
class Session:
    """A connection during one unit of work. Each answer of the server is noted: the silence after it is what counts as dead.

    `committing` is true from sending COMMIT to its acknowledgement; when it stays true, nobody knows whether it happened.
    """

    link: Link
    committing: bool = False

    async def rows(self, query: str, values: Mapping[str, object] | None = None) -> list[Row]:
        """Run a statement; all its rows."""
        cursor = await self.link.connection.execute(query.encode(), values)
        self.link.heard = asyncio.get_running_loop().time()
        return await cursor.fetchall() if cursor.description else []

    async def row(self, query: str, values: Mapping[str, object] | None = None) -> Row | None:
        """Run a statement; its first row."""
        return next(iter(await self.rows(query, values)), None)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """BEGIN ... COMMIT. The answer to the caller is made after this has ended, so after COMMIT was acknowledged."""
        await self.rows("BEGIN")
        yield
        self.committing = True
        await self.rows("COMMIT")
        self.committing = False


@dataclass(slots=True, kw_only=True)
class Database:
    """The pool, with deadlines and retries around it. `retried` is told 'retried', 'budget_empty', 'succeeded' or 'failed'.

    `session` makes what a unit of work gets.
    """

    settings: Settings
    pool: Pool
    retried: Callable[[str], None]
    budget: RetryBudget = field(default_factory=RetryBudget)
    session: Callable[[Link], Session] = Session
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def run(self, unit: Callable[[Session], Awaitable[T]], *, repeatable: bool) -> T:
        """What `unit` returns, within `deadline` seconds. Raises Unavailable.

        `repeatable` says that doing it twice is the same as doing it once: a read, or a write with an idempotency key. Only then it
        is tried again after a lost connection.
        """
        self.budget.first_try()
        sessions: list[Session] = []
        hook = retry_hook(
            retryable=lambda error: repeatable and _transient(error),
            budget=self.budget,
            base=self.settings.retry_base,
            cap=self.settings.retry_cap,
            seen=self.retried,
        )
        try:
            async with asyncio.timeout(self.settings.deadline):
                async for attempt in stamina.retry_context(on=hook, attempts=self.settings.retry_attempts, timeout=None):
                    with attempt:
                        result = await self._once(unit, sessions)
        except Exception as error:
            if len(sessions) > 1:
                self.retried("failed")
            problem = as_problem(error, uncertain=any(session.committing for session in sessions))
            if problem is error:
                raise
            raise problem from error
        if len(sessions) > 1:
            self.retried("succeeded")
        return result

    async def _once(self, unit: Callable[[Session], Awaitable[T]], sessions: list[Session]) -> T:
        link = await self.pool.acquire(self.settings.acquire_timeout)
        loop = asyncio.get_running_loop()
        link.heard = loop.time()
        session = self.session(link)
        sessions.append(session)
        task = asyncio.create_task(self._work(unit, session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_retrieve)
        try:
            while not task.done():
                left = link.heard + self.settings.silence - loop.time()
                if left <= 0:
                    raise Lost
                await asyncio.wait({task}, timeout=left)
        finally:
            if not task.done():
                link.hang_up()
        return task.result()

    async def _work(self, unit: Callable[[Session], Awaitable[T]], session: Session) -> T:
        """Run the unit, and give the connection back however it ends."""
        broken = suspect = True
        try:
            result = await unit(session)
            broken = suspect = False
        except psycopg.Error as error:
            if session.link.connection.closed:
                raise Lost from error
            session.committing = False  # the server is there and said no
            suspect = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)  # the server was demoted: all of them point at it
            broken = suspect or not await _rolled_back(session)
            raise
        except Exception:
            suspect = False
            broken = not await _rolled_back(session)
            raise
        else:
            broken = session.link.connection.pgconn.transaction_status != TransactionStatus.IDLE
            return result
        finally:
            self.pool.release(session.link, broken=broken, suspect_others=suspect)


async def _rolled_back(session: Session) -> bool:
    """Whether the connection is fit for the next caller; a transaction that is still open is rolled back first."""
    connection = session.link.connection
    try:
        if connection.pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            await session.rows("ROLLBACK")
    except psycopg.Error:
        return False
    return connection.pgconn.transaction_status == TransactionStatus.IDLE


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Look at the outcome of a unit that was given up, so that asyncio does not report it as forgotten."""
    if not task.cancelled():
        task.exception()


def _transient(error: Exception) -> bool:
    """What another attempt may mend. Time-outs in the server and a full queue are load: trying again would add to it."""
    return isinstance(
        error,
        Lost | psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected | psycopg.errors.ReadOnlySqlTransaction,
    )


_SERVER_SAYS_LATER = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
_CANNOT_ANSWER = (Lost, psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction)


def as_problem(error: Exception, *, uncertain: bool = False) -> Exception:
    """What to tell the caller. Errors that are a mistake of ours (bad SQL, a constraint) stay as they are and become a 500."""
    code, detail, retry_after = "", "", 1
    if uncertain:
        code, detail = "outcome_unknown", "The write may have been applied. Repeat it with the same Idempotency-Key to find out."
    elif isinstance(error, TimeoutError):
        code, detail = "database_timeout", "The database did not answer in time."
    elif isinstance(error, PoolExhausted) and error.full:
        code, detail, retry_after = "overloaded", "Too many requests are waiting for the database.", 2
    elif isinstance(error, PoolExhausted):
        code, detail = "database_unavailable", "No database connection came free in time."
    elif isinstance(error, _SERVER_SAYS_LATER):
        code, detail = "database_busy", "The database is busy."
    elif isinstance(error, _CANNOT_ANSWER):
        code, detail = "database_unavailable", "The database cannot answer now."
    return Unavailable(code, detail, retry_after=retry_after) if code else error
