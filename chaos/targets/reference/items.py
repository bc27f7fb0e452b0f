"""What the service does: items, for everybody and for partners. Input is checked first; only then is the database asked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

from chaos.targets.reference import checking
from chaos.targets.reference.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from starlette.requests import Request
    from starlette.responses import Response

    from chaos.targets.reference.checking import NewItem
    from chaos.targets.reference.database import Database, Session
    from chaos.targets.reference.settings import Settings

_LIST = "SELECT id, name, created_at FROM items ORDER BY id DESC LIMIT %(limit)s"
_BY_NAME = "SELECT id, name, created_at FROM items WHERE name = %(name)s ORDER BY id LIMIT %(limit)s"
_BY_ID = "SELECT id, name, created_at FROM items WHERE id = %(id)s"
_CLAIM = """INSERT INTO idempotency_keys (key, fingerprint) VALUES (%(key)s, %(fingerprint)s)
            ON CONFLICT (key) DO NOTHING RETURNING key"""
_CLAIMED = """SELECT k.fingerprint, i.id, i.name, i.created_at
              FROM idempotency_keys k JOIN items i ON i.id = k.item_id WHERE k.key = %(key)s"""
# One statement: the item, its line in the ledger, and the answer to the key. The ledger has no unique constraint on purpose: what was
# applied twice is there twice.
_INSERT = """WITH item AS (INSERT INTO items (name, email) VALUES (%(name)s, %(email)s) RETURNING id, name, created_at),
                  entry AS (INSERT INTO item_ledger (item_id, name) SELECT id, name FROM item),
                  answer AS (UPDATE idempotency_keys SET item_id = item.id FROM item WHERE key = %(key)s)
             SELECT id, name, created_at FROM item"""


@dataclass(frozen=True, slots=True)
class Item:
    """A row of `items`, without what is private."""

    id: int
    name: str
    created_at: datetime

    def as_json(self) -> dict[str, object]:
        """As the API shows it."""
        return {"id": self.id, "name": self.name, "created_at": self.created_at.isoformat()}


@dataclass(frozen=True, slots=True)
class Written:
    """An item that is committed. `replayed`: an earlier request with the same key had done it."""

    item: Item
    replayed: bool


class KeyReused(Refused):
    """The Idempotency-Key belongs to another request (draft-ietf-httpapi-idempotency-key-header, 2.7)."""

    def __init__(self) -> None:
        super().__init__(422, "idempotency_key_reused", "This Idempotency-Key was used with a different request.")


def fingerprint(new: NewItem) -> str:
    """What a key stands for. Kept as a hash: the table of keys holds nothing private."""
    return hashlib.sha256(f"{new.name}\0{new.email or ''}".encode()).hexdigest()


async def insert(session: Session, new: NewItem, key: str | None) -> Written:
    """Write an item once. With a key, twice is once: claim, item and ledger are one transaction.

    A second request with the same key waits in its claim for the first to commit or roll back (or for lock_timeout).
    """
    values = {"name": new.name, "email": new.email, "key": key, "fingerprint": fingerprint(new)}
    async with session.transaction():
        if key is not None and await session.row(_CLAIM, values) is None:
            found = await session.row(_CLAIMED, values)
            if found is None or found[0] != values["fingerprint"]:
                raise KeyReused
            return Written(Item(*found[1:]), replayed=True)
        row = await session.row(_INSERT, values)
    assert row is not None  # RETURNING of one inserted row
    return Written(Item(*row), replayed=False)


@dataclass(frozen=True, slots=True)
class Items:
    """The endpoints. Partners' idempotency keys are kept apart from everybody else's."""

    database: Database
    settings: Settings

    def routes(self) -> list[Route]:
        """Everybody's, and the partners', which need a key."""
        return [
            Route("/api/items", self.collection, methods=["GET", "POST"]),
            Route("/api/items/{id}", self.one, methods=["GET"]),
            Route("/provider/v1/items", self._for_partners(self.collection), methods=["GET", "POST"]),
            Route("/provider/v1/items/{id}", self._for_partners(self.one), methods=["GET"]),
        ]

    def _for_partners(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            checking.provider(request, self.settings)
            return await endpoint(request)

        return guarded

    async def collection(self, request: Request) -> Response:
        """GET or POST: one route, so that a 405 names both in Allow."""
        return await (self.created(request) if request.method == "POST" else self.listed(request))

    async def listed(self, request: Request) -> Response:
        """GET: the newest items, or those of one name."""
        name = checking.name_wanted(request)
        values = {"limit": checking.limit(request), "name": name}
        rows = await self.database.run(lambda session: session.rows(_LIST if name is None else _BY_NAME, values), repeatable=True)
        return JSONResponse({"items": [Item(*row).as_json() for row in rows]})

    async def one(self, request: Request) -> Response:
        """GET: one item."""
        values = {"id": checking.item_id(request)}
        row = await self.database.run(lambda session: session.row(_BY_ID, values), repeatable=True)
        if row is None:
            raise Refused(404, "no_such_item", "There is no such item.")
        return JSONResponse(Item(*row).as_json())

    async def created(self, request: Request) -> Response:
        """POST: a new item. The answer is made from what was committed."""
        key = checking.idempotency_key(request)
        new = await checking.new_item(request, self.settings)
        scope = "provider:" if request.url.path.startswith("/provider/") else "api:"
        scoped = None if key is None else scope + key
        written = await self.database.run(lambda session: insert(session, new, scoped), repeatable=key is not None)
        # Relative: nothing is ever built from Host.
        headers = {"Location": f"/api/items/{written.item.id}", "Idempotent-Replayed": str(written.replayed).lower()}
        return JSONResponse(written.item.as_json(), status_code=201, headers=headers)
