"""A small shop on uvicorn that does nothing well but validate hosts; DEFECT is the one thing that is wrong about that.

`Gate` is all of its validation, and every defect stands in one place of it, or in the route that it is about. Errors leave in the
standard schema, whoever made them (`Problems`), so that only hosts can be wrong here. DEFECT=trusted_host_middleware puts
Starlette's own middleware in the Gate's place: with Starlette 0.47.2 on PYTHONPATH that is the real old one.
"""

import json
import os
import re
import sys

import uvicorn
from psycopg import Error
from psycopg_pool import ConnectionPool, PoolTimeout
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route

DEFECT = os.environ.get("DEFECT", "")
URL = os.environ.get("DATABASE_URL", "")
SHOP, WILDCARDS = "shop.example.test", ("pages.example.test", "preview.example.test")
PROBES, PROBED = {"127.0.0.1"}, {"/healthz"}
HOST = re.compile(r"((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?::([0-9]{1,5}))?")
POOL = ConnectionPool(URL + "&connect_timeout=2", min_size=1, max_size=4, timeout=3, open=False) if URL else None


# -- what it sells --------------------------------------------------------------------------------------------------------------


def ask(sql, *values):
    if POOL is None:
        return [(1, "socks")]
    with POOL.connection() as connection:
        done = connection.execute(sql, values)
        return done.fetchall() if done.description else []


def item(request):
    return JSONResponse({"id": 1, "name": ask("SELECT 1, 'socks'")[0][1], "next": "/items/2"})


def items(request):
    found = ask("SELECT id, name FROM goods WHERE name = %s", request.query_params.get("name", ""))
    return JSONResponse([{"id": number, "name": name} for number, name in found])


async def add(request):
    name = json.loads(await request.body())["name"]
    ask("INSERT INTO goods (name) VALUES (%s)", name)
    base = f"https://{request.headers.get('x-forwarded-host', SHOP)}" if DEFECT == "mail_link" else ""
    # what a service that resets passwords would send by mail, and most show to their tests
    return JSONResponse({"name": name, "mail": f"To confirm, follow {base}/confirm/7f3a"}, 201)


def page(request):
    host = request.headers.get("x-forwarded-host", SHOP) if DEFECT == "canonical_link" else SHOP
    return HTMLResponse(f'<html><head><link rel="canonical" href="https://{host}/"></head></html>')


def health(request):
    return JSONResponse({"status": "up"})


async def unavailable(request, error):
    return PlainTextResponse("the database is away", 503, {"Retry-After": "1"})


SHOPS = Starlette(
    routes=[
        Route("/", page), Route("/items/1", item), Route("/items", items), Route("/items", add, methods=["POST"]),
        Route("/healthz", health),
    ],
    exception_handlers={Error: unavailable, PoolTimeout: unavailable},
)  # fmt: skip
SHOPS.router.redirect_slashes = False


# -- who may come in ------------------------------------------------------------------------------------------------------------


def named(value):
    """The host name of a Host value, lower case; '' when it is malformed."""
    if DEFECT == "port_not_looked_at":
        value = value.partition(":")[0]
    if DEFECT != "case_matters":
        value = value.lower()
    found = HOST.fullmatch(value.strip(" \t"))
    return found[1] if found and int(found[2] or 80) < 65536 else ""


def listed(name):
    if DEFECT == "suffix":
        return name.endswith((SHOP, *WILDCARDS))
    if DEFECT == "prefix":
        return name.startswith(SHOP) or name.endswith(tuple(f".{one}" for one in WILDCARDS))
    if DEFECT == "dot_is_any_letter":
        return any(re.fullmatch(one, name) for one in (SHOP, *(f"[^.]+.{one}" for one in WILDCARDS)))
    below = any(name.endswith(f".{one}") and "." not in name.removesuffix(f".{one}") for one in WILDCARDS)
    return name == SHOP or below


class Gate:
    def __init__(self, inner):
        self.inner, self.known = inner, set()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or self.welcome(scope):
            await self.inner(scope, receive, send)
        elif DEFECT == "redirects_first" and scope["path"] not in PROBED:
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), SHOP)
            await PlainTextResponse("", 301, {"Location": f"https://{host}{scope['path']}"})(scope, receive, send)
        else:
            await PlainTextResponse("unknown host", 400)(scope, receive, send)

    def welcome(self, scope):
        method, path = scope["method"], scope["path"]
        values = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if DEFECT == "route_outside" and path == "/items":
            return method == "GET" or self.judge(hosts, path)
        if DEFECT == "write_outside" and method == "POST" and path == "/items":
            return True
        if DEFECT == "options_outside" and method == "OPTIONS":
            scope["method"] = "GET"
            return True
        if DEFECT == "exempt_unanchored" and "/healthz" in f"{path}?{scope['query_string'].decode('latin-1')}":
            return True
        if DEFECT == "health_for_anybody" and path in PROBED:  # many good services do
            return True
        if DEFECT == "x_forwarded_host" and "x-forwarded-host" in values:
            hosts = [values["x-forwarded-host"]]
        if DEFECT == "forwarded" and (said := re.search(r"host=([^;,]+)", values.get("forwarded", ""))):
            hosts = [said[1]]
        if DEFECT == "last_line_counts":
            hosts = hosts[-1:]
        if DEFECT == "host_is_optional" and not any(hosts):
            return True
        if DEFECT == "once_a_connection":
            good = scope["client"] in self.known or self.judge(hosts, path)
            if good and values.get("connection") != "close":
                self.known.add(scope["client"])
            return good
        return self.judge(hosts, path)

    def judge(self, hosts, path):
        if DEFECT == "regex_not_anchored":
            return len(hosts) == 1 and re.search(rf"{re.escape(SHOP)}|[a-z0-9-]+\.(?:pages|preview)\.example\.test", hosts[0].lower()) is not None or (
                path in PROBED and hosts == ["127.0.0.1"])
        name = named(hosts[0]) if len(hosts) == 1 else ""
        return listed(name) or (name in PROBES and (path in PROBED or DEFECT == "probes_everywhere"))  # so do many


class Problems:
    """Every error in the standard schema (RFC 9457)."""

    def __init__(self, inner):
        self.inner = inner

    async def __call__(self, scope, receive, send):
        failed = []

        async def sent(message):
            if message["type"] == "http.response.start" and message["status"] >= 400:
                failed.append(message["status"])
                kept = [(name, value) for name, value in message["headers"] if name == b"retry-after"]
                body = json.dumps({"type": "about:blank", "title": "refused", "status": message["status"]}).encode()
                kept += [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
                await send({**message, "headers": kept})
                await send({"type": "http.response.body", "body": body})
            elif not failed:
                await send(message)

        await self.inner(scope, receive, sent)


def guarded():
    if DEFECT == "trusted_host_middleware":
        allowed = [SHOP, *(f"*.{one}" for one in WILDCARDS), "127.0.0.1"]
        return TrustedHostMiddleware(SHOPS, allowed_hosts=allowed, www_redirect=False)
    return Gate(SHOPS)


if __name__ == "__main__":
    if POOL is not None:
        POOL.open()
        ask("CREATE TABLE IF NOT EXISTS goods (id serial PRIMARY KEY, name text)")
    uvicorn.run(Problems(guarded()), host="127.0.0.1", port=int(sys.argv[1]), http="httptools", ws="none", log_level="warning", lifespan="off")
