"""Orders: aiohttp over an asyncpg pool. Starts without its database and becomes ready when that is there.

Why it is healthy:
- asyncpg reads sslmode and sslrootcert out of the URL: verify-full checks chain and name, and there is no second try in plaintext.
- Every request has at most a second to get a connection and a second and a half to use it. A connection whose work ran out of time is
  thrown away (`terminate`), never given back: its state is unknown. Nothing waits for a cancel request to get through.
- asyncpg's pool connects when a connection is asked for, so in an outage as often as requests come. `Connector` stands in between: one
  try at a time, the wait doubling up to two seconds, fully jittered. `min_size=0` keeps the pool from trying on a beat of its own.
- Giving a connection back costs no round trip (`reset`), so a network that breaks just then harms no answer that is already known.
- Idempotency-Key is stored in the transaction that stores the order. A COMMIT without an answer is a 503; the same key may come again.

Style: 400 for malformed input, 422 for a key used for something else; one label before a wildcard domain; no dot after a host name;
JSON lines as log. DEFECT=name plants one mistake; each stands in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import sys
import time

import asyncpg
from aiohttp import web

DEFECT = os.environ.get("DEFECT", "")
SSLMODE = {"verify_ca": "verify-ca", "require": "require", "prefer": "prefer"}.get(DEFECT, "verify-full")
ACQUIRE_SECONDS = None if DEFECT == "no_connect_timeout" else 1.0
WORK_SECONDS = None if DEFECT == "no_query_timeout" else 1.5
LIMITS = {} if DEFECT == "no_query_timeout" else {"statement_timeout": "1400", "lock_timeout": "1000", "idle_in_transaction_session_timeout": "5000"}
HOSTS = frozenset(os.environ["ALLOWED_HOSTS"].split(","))
PROBES = {"127.0.0.1": {"/healthz", "/readyz"}}
LABEL = "(?!-)[a-z0-9-]{1,63}(?<!-)"
HOST = re.compile(rf"({LABEL}(?:\.{LABEL})*)(?::([1-9][0-9]{{0,4}}))?")
OUTAGE = ("08", "28", "53", "55", "57", "58")  # SQLSTATE classes: PostgreSQL, Appendix A
SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, reference text NOT NULL, quantity int NOT NULL);
CREATE INDEX IF NOT EXISTS orders_reference ON orders (reference);
CREATE TABLE IF NOT EXISTS idempotency (key text PRIMARY KEY, digest text NOT NULL, order_id bigint);
INSERT INTO orders (reference, quantity) SELECT 'seed', 1 WHERE NOT EXISTS (SELECT FROM orders);
"""


class Unavailable(Exception):
    """The database cannot be used now."""


class Wrong(Exception):
    """The caller's mistake: status, detail."""


def say(event: str, **fields: object) -> None:
    print(json.dumps({"at": round(time.time(), 3), "event": event, **fields}), flush=True)


async def storm(*args, **kwargs) -> asyncpg.Connection:
    for _ in range(4):
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            return await asyncpg.connect(*args, **kwargs)
    return await asyncpg.connect(*args, **kwargs)


class Connector:
    """Stands in for asyncpg.connect in the pool: refuses at once while the last try failed, but for one try after each wait."""

    def __init__(self) -> None:
        self.failures, self.next_try, self.trying, self.made = 0, 0.0, 0, []

    async def __call__(self, *args, **kwargs) -> asyncpg.Connection:
        if self.failures and (self.trying or time.monotonic() < self.next_try):
            raise Unavailable("waiting to connect again")
        if DEFECT == "no_reconnect" and any(connection.is_closed() for connection in self.made):
            raise Unavailable("the connection is closed")
        self.trying += 1
        good = False
        try:
            connection = await (storm if DEFECT == "storm" else asyncpg.connect)(*args, **kwargs)
            good = True
            self.made += [connection] if DEFECT == "no_reconnect" else []
            return connection
        finally:  # also when the caller's time ran out
            self.trying -= 1
            wait = 0.0 if good or DEFECT in ("hot_reconnect", "storm") else min(2.0, 0.03 * 2 ** min(self.failures, 12))
            wait = 1.0 if DEFECT == "fixed_interval" else wait if DEFECT == "no_jitter" else random.uniform(0, wait)
            self.failures = 0 if good else self.failures + 1
            self.next_try = time.monotonic() + wait


class Database:
    def __init__(self, dsn: str) -> None:
        self.dsn = dsn.replace("sslmode=verify-full", f"sslmode={SSLMODE}")
        if DEFECT in ("require", "prefer"):  # with a root certificate, `require` would still check the chain, as in libpq
            self.dsn = re.sub(r"&sslrootcert=[^&]*", "", self.dsn)
        self.pool: asyncpg.Pool | None = None
        self.warm = False

    async def open(self) -> None:
        async def no_reset(_: asyncpg.Connection) -> None:
            """Nothing here changes a session's state."""

        self.pool = await asyncpg.create_pool(
            self.dsn, min_size=0, max_size=5, connect=Connector(), reset=no_reset, server_settings=LIMITS,
            timeout=None if DEFECT == "no_connect_timeout" else 2, max_inactive_connection_lifetime=120,
        )

    async def warm_up(self) -> None:
        while not self.warm:
            try:
                await asyncio.gather(*(self.run(lambda c: c.fetchval("SELECT pg_sleep(0.05)")) for _ in range(3)))  # three connections
                self.warm = True
            except Unavailable:
                await asyncio.sleep(random.uniform(0.05, 0.3))

    async def run(self, work):
        pool, connection, keep = self.pool, None, True
        if pool is None:
            raise Unavailable("no pool")
        try:
            connection = await pool.acquire(timeout=ACQUIRE_SECONDS)
            async with asyncio.timeout(WORK_SECONDS):
                return await work(connection)
        except Wrong:
            raise
        except BaseException as error:
            state = getattr(error, "sqlstate", None) or ""
            keep = state[:2] in ("22", "23", "55")
            if state[:2] in OUTAGE or isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
                raise Unavailable(type(error).__name__) from error
            raise
        finally:
            if connection is not None:
                with contextlib.suppress(asyncpg.InterfaceError, TimeoutError):  # a connection that was lost went back by itself
                    if not keep or connection.is_in_transaction():
                        connection.terminate()
                    await pool.release(connection, timeout=0.5)


def problem(status: int, detail: str, **headers: str) -> web.Response:
    body = {"type": f"https://shop.test/problems/{status}", "title": detail.split(":")[0], "status": status, "detail": detail}
    if DEFECT == "status_member_wrong":
        body["status"] = 200
    if status == 503:
        headers["Retry-After"] = "2"
    if DEFECT == "plain_text_errors":
        return web.Response(status=status, text=detail, headers=headers)
    return web.json_response(body, status=status, content_type="application/problem+json", headers=headers)


def known(host: str, path: str) -> bool:
    if DEFECT == "any_host":
        return True
    found = HOST.fullmatch(host.strip(" \t").lower())
    if not found or int(found[2] or 80) > 65535:
        return False
    name = found[1]
    if name in PROBES:
        return path in PROBES[name]
    if DEFECT == "wildcard_suffix_match":
        return name in HOSTS or any(name.endswith(entry[2:]) for entry in HOSTS if entry.startswith("*."))
    return name in HOSTS or "*." + name.partition(".")[2] in HOSTS


@web.middleware
async def outermost(request: web.Request, handler) -> web.StreamResponse:
    hosts = request.headers.getall("Host", [])
    target = request.raw_path
    if not target.startswith("/") and "://" in target.partition("?")[0]:
        hosts = [*hosts, target.partition("://")[2].partition("/")[0]]
    if not hosts or not all(known(host, request.path) for host in hosts):
        say("host_refused", hosts=hosts[:4])
        return problem(400, "Unknown host")
    try:
        return await handler(request)
    except Wrong as wrong:
        return problem(*wrong.args)
    except web.HTTPException as error:
        keep = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return problem(error.status, error.reason, **keep) if error.status >= 400 else error
    except Unavailable as error:
        say("unavailable", why=str(error), path=request.path)
        if DEFECT == "crash_on_db_error" and request.path != "/readyz":  # not while it starts, when nothing is warm yet
            os._exit(3)
        return problem(503, "Unavailable: orders cannot be read or stored at the moment")
    except Exception as error:
        say("bug", kind=type(error).__name__)
        return problem(500, "Internal error")


def number(value: object, name: str, low: int, high: int) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Wrong(400, f"Bad value: {name} is a number from {low} to {high}")
    return value


def word(value: object, name: str) -> str:
    if not isinstance(value, str) or not re.fullmatch("[A-Za-z0-9_-]{1,80}", value):
        raise Wrong(400, f"Bad value: {name} is 1 to 80 letters, digits, _ or -")
    return value


def shown(row) -> dict[str, object]:
    return {"id": row["id"], "reference": row["reference"], "quantity": row["quantity"]}


async def live(request: web.Request) -> web.Response:
    if DEFECT == "liveness_db":
        await request.app[DB].run(lambda c: c.fetchval("SELECT 1"))
    return web.json_response({"alive": True})


async def ready(request: web.Request) -> web.Response:
    if not request.app[DB].warm:
        raise Unavailable("not warm yet")
    await request.app[DB].run(lambda c: c.fetchval("SELECT 1"))
    return web.json_response({"ready": True})


async def one(request: web.Request) -> web.Response:
    if DEFECT == "invalid_hits_db_first":
        await request.app[DB].run(lambda c: c.fetchval("SELECT 1"))
    wanted = number(request.match_info["id"], "id", 1, 10**17)
    row = await request.app[DB].run(lambda c: c.fetchrow("SELECT * FROM orders WHERE id = $1", wanted))
    if row is None:
        raise Wrong(404, "No such order")
    return web.json_response(shown(row))


async def search(request: web.Request) -> web.Response:
    reference = word(request.query.get("reference"), "reference")
    rows = await request.app[DB].run(lambda c: c.fetch("SELECT * FROM orders WHERE reference = $1 LIMIT 20", reference))
    return web.json_response({"orders": [shown(row) for row in rows]})


async def create(request: web.Request) -> web.Response:
    if request.content_type != "application/json":
        raise Wrong(415, "Send application/json")
    try:
        body = await request.json()
    except ValueError:
        raise Wrong(400, "Not JSON") from None
    if not isinstance(body, dict):
        raise Wrong(400, "Bad value: an object is expected")
    reference, quantity = word(body.get("reference"), "reference"), number(body.get("quantity", 1), "quantity", 1, 1000)
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch("[!-~]{1,128}", key):
        raise Wrong(400, "Bad value: Idempotency-Key is 1 to 128 visible characters")
    store = request.app[DB].run(lambda c: insert(c, reference, quantity, key))
    if DEFECT == "ack_before_commit":
        request.app["tasks"].add(asyncio.create_task(store))
        return web.json_response({"reference": reference}, status=201)
    return web.json_response(shown(await store), status=201)


async def insert(connection, reference: str, quantity: int, key: str | None):
    if DEFECT == "double_write":  # the key is not looked at, and one message both stores and commits
        await connection.execute(f"INSERT INTO orders (reference, quantity) VALUES ('{reference}', {quantity})")
        return {"id": 0, "reference": reference, "quantity": quantity}
    digest = hashlib.sha256(f"{reference}\n{quantity}".encode()).hexdigest()
    transaction = connection.transaction()  # not `async with`: its rollback would wait, without a limit, on a connection that is stuck
    await transaction.start()
    try:
        if key and not await connection.fetchval("INSERT INTO idempotency VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING key", key, digest):
            old = await connection.fetchrow("SELECT o.*, i.digest FROM idempotency i JOIN orders o ON o.id = i.order_id WHERE i.key = $1", key)
            if old is None or old["digest"] != digest:
                raise Wrong(422, "This Idempotency-Key was used for another order")
            await transaction.rollback()
            return old
        row = await connection.fetchrow("INSERT INTO orders (reference, quantity) VALUES ($1, $2) RETURNING *", reference, quantity)
        if key:
            await connection.execute("UPDATE idempotency SET order_id = $2 WHERE key = $1", key, row["id"])
        await transaction.commit()
        return row
    except Wrong:
        await transaction.rollback()
        raise


async def landing(request: web.Request) -> web.Response:
    rows = await request.app[DB].run(lambda c: c.fetch("SELECT quantity FROM orders LIMIT 10"))
    return web.Response(text=f"<!doctype html><title>Deals</title><h1>{len(rows)} deals</h1>", content_type="text/html")


async def watch(app: web.Application) -> None:
    while True:
        await asyncio.sleep(1)
        try:
            await app[DB].run(lambda c: c.fetchval("SELECT 1"))
        except Unavailable:
            os._exit(1)


async def lifetime(app: web.Application):
    await app[DB].open()
    app["tasks"].add(asyncio.create_task(app[DB].warm_up()))
    if DEFECT == "exits_on_outage":
        app["tasks"].add(asyncio.create_task(watch(app)))
    yield
    if app[DB].pool:
        app[DB].pool.terminate()  # close() would wait for connections that may be stuck


DB = web.AppKey("db", Database)


def build() -> web.Application:
    app = web.Application(middlewares=[outermost], client_max_size=65536)
    app[DB] = Database(os.environ["DATABASE_URL"])
    app["tasks"] = set()
    app.cleanup_ctx.append(lifetime)
    app.router.add_get("/healthz", live)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/", landing)
    app.router.add_get("/v1/orders", search)
    app.router.add_get("/v1/orders/{id}", one)
    app.router.add_post("/v1/orders", create)
    return app


async def migrate() -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"], timeout=5)
    await connection.execute(SCHEMA)
    await connection.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["migrate"]:
        asyncio.run(migrate())
    else:
        web.run_app(build(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, shutdown_timeout=0.5)
