"""The reference service with one thing changed about requests that deserve a 4xx: `python corpus_defects.py DEFECT PORT`.

None of them shows in what chaos.toml lists: it takes requests that somebody makes up.
"""

import asyncio
import json
import sys
from dataclasses import replace
from urllib.parse import parse_qs, unquote

import psycopg
from starlette.responses import Response

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.settings import Settings

LISTED = {"1000"}  # what chaos.toml knows already


def problem(status, title):
    body = {"type": "about:blank", "title": title, "status": status}
    return Response(json.dumps(body), status, headers={"Content-Type": "application/problem+json"})


CRASH = problem(500, "Internal Server Error")
SERVED = Response(b'{"items": []}', 200, headers={"Content-Type": "application/json"})


def limit(scope):
    """The value of `limit` that the service would refuse, or None."""
    given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("limit", [""])[-1]
    wrong = not (given.isdigit() and 1 <= int(given) <= 100) if len(given) < 1000 else True
    return (
        given if given and wrong and given not in LISTED and scope["path"] == "/api/items" and scope["method"] == "GET" else None
    )


async def asks_the_database(settings):
    """True when it answers."""
    try:
        async with await psycopg.AsyncConnection.connect(settings.database_url, connect_timeout=2) as link:
            await link.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def changed(when):
    """A build of the service in whose front `when(scope, receive, settings, app)` may answer instead."""

    def build(settings):
        app = build_app(settings)
        inner = app.gate

        async def gate(scope, receive, send):
            answer = None
            if scope["type"] == "http":
                answer, receive = await when(scope, receive, settings, app)
            await (answer or inner)(scope, receive, send)

        return replace(app, gate=gate)

    return build


def plain(choose):
    async def when(scope, receive, settings, app):
        return await choose(scope, settings, app), receive

    return changed(when)


@plain
async def any_exception_is_a_500(scope, settings, app):
    """int('abc') in the handler, and one `except Exception` around everything."""
    given = limit(scope)
    return CRASH if given is not None and not given.lstrip("-").isdigit() else None


@plain
async def too_large_a_number(scope, settings, app):
    """What fits no bigint goes to the database all the same."""
    given = (limit(scope) or "").lstrip("-")
    return CRASH if given.isdigit() and int(given) >= 1 << 63 else None


@plain
async def nul_in_text(scope, settings, app):
    """PostgreSQL refuses it, and nobody expected that."""
    query = scope["query_string"].decode("latin-1")
    return CRASH if scope["path"] == "/api/items" and "\0" in unquote(query) and "name=%00" not in query else None


@changed
async def hangs_on_a_bad_body(scope, receive, settings, app):
    """It waits for the end of a JSON text that has none."""
    if scope["method"] != "POST":
        return None, receive
    message = await receive()

    async def again():
        return message

    if message.get("body", b"")[:2] == b"[[":
        await asyncio.sleep(60)
    return None, again


@plain
async def validates_after_a_query(scope, settings, app):
    """The session is opened first, and a lost one is nobody's business."""
    return CRASH if limit(scope) is not None and not await asks_the_database(settings) else None


@plain
async def holds_a_connection_it_does_not_need(scope, settings, app):
    """A connection is taken out of the pool for every request: nothing is sent over it, and without one there is no answer."""
    counts = app.pool.counts
    return problem(503, "Service Unavailable") if limit(scope) is not None and counts["idle"] + counts["busy"] == 0 else None


@plain
async def error_handler_writes_to_the_database(scope, settings, app):
    """Each refusal is written into a table before it is sent."""
    word = scope["path"].removeprefix("/api/items/")
    refused = word != scope["path"] and not word.isdigit() and word != "not-a-number"
    return CRASH if refused and not await asks_the_database(settings) else None


@plain
async def candidate_makes_a_500_of_it(scope, settings, app):
    """Only the new release."""
    return CRASH if settings.release == "v2" and limit(scope) is not None else None


@plain
async def candidate_accepts_it(scope, settings, app):
    """Only the new release: without a key, anybody reads the provider's items."""
    keyless = not any(name == b"x-api-key" for name, _ in scope["headers"])
    return (
        SERVED
        if settings.release == "v2" and scope["path"] == "/provider/v1/items" and keyless and scope["method"] == "GET"
        else None
    )


DEFECTS = {
    "any_exception_is_a_500": any_exception_is_a_500,
    "too_large_a_number": too_large_a_number,
    "nul_in_text": nul_in_text,
    "hangs_on_a_bad_body": hangs_on_a_bad_body,
    "validates_after_a_query": validates_after_a_query,
    "holds_a_connection_it_does_not_need": holds_a_connection_it_does_not_need,
    "error_handler_writes_to_the_database": error_handler_writes_to_the_database,
    "candidate_makes_a_500_of_it": candidate_makes_a_500_of_it,
    "candidate_accepts_it": candidate_accepts_it,
}

if __name__ == "__main__":
    made = replace(Settings.from_environment(), port=int(sys.argv[2]))
    sys.exit(serve(DEFECTS[sys.argv[1]](made), made))
