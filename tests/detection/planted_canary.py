"""The reference service as a candidate with one thing wrong: `python planted_canary.py NAME --port N`. Nothing of it is copied."""

import asyncio
import itertools
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import trustme
from starlette.responses import JSONResponse
from starlette.routing import Route

from chaos.targets.reference.app import build_app
from chaos.targets.reference.connecting import connector
from chaos.targets.reference.hosts import HostPolicy, Surface
from chaos.targets.reference.items import Items
from tests.detection.planting import Defects

DEFECTS = Defects()
defect = DEFECTS.add
DICE = random.Random(1)
KEPT = []


def _around(settings, strange):
    """`strange(scope)` is awaited before each request of the API; what it returns, if anything, is the answer."""
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] == "http" and scope["path"].startswith("/api/"):
            answer = await strange(scope)
            if answer is not None:
                await answer(scope, receive, send)
                return
        await inner(scope, receive, send)

    return replace(app, gate=gate)


@defect
def some_5xx(settings):
    """One request in twenty."""
    turn = itertools.count()

    async def strange(_scope):
        problem = {"type": "about:blank", "title": "Internal Server Error", "status": 500}
        return JSONResponse(problem, 500, media_type="application/problem+json") if next(turn) % 20 == 7 else None

    return _around(settings, strange)


@defect
def slow(settings):
    async def strange(_scope):
        await asyncio.sleep(0.2)

    return _around(settings, strange)


@defect
def turns_landing_hosts_away(settings):
    policy = HostPolicy.from_settings(settings)
    kept = tuple(one for one in policy.served if one[1] is not Surface.LANDING)
    return build_app(settings, hosts=replace(policy, served=kept))


@defect
def some_handshakes_fail(settings):
    """A third of its connections trusts the wrong authority, and none lasts longer than a second. Requests hardly notice."""
    room = tempfile.TemporaryDirectory()  # as long as this process lives
    KEPT.append(room)
    wrong = Path(room.name) / "wrong-ca.pem"
    trustme.CA().cert_pem.write_to_path(wrong)
    strict, broken = connector(settings), connector(settings, change={"sslrootcert": str(wrong)})
    made = []

    async def connect():
        link = await (broken if DICE.random() < 0.33 else strict)()
        asyncio.get_running_loop().call_later(1.0, recycle, link)
        return link

    def recycle(link):
        pool = made[0].pool
        if link in pool._idle:
            pool._drop(link, "recycled")
        elif link in pool._busy:
            asyncio.get_running_loop().call_later(0.05, recycle, link)

    made.append(build_app(settings, connect=connect))
    return made[0]


@defect
def acknowledges_and_forgets(settings):
    """One write in three is only said to be there."""

    def routes(database):
        items, turn = Items(database, settings), itertools.count()

        async def collection(request):
            if request.method == "POST" and next(turn) % 3 == 1:
                return JSONResponse({"id": 1, "name": "later"}, status_code=201)
            return await items.collection(request)

        return [Route("/api/items", collection, methods=["GET", "POST"])]

    return build_app(settings, more_routes=routes)


if __name__ == "__main__":
    sys.exit(DEFECTS.serve("The reference service as a candidate with one thing wrong"))
