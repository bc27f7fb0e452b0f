"""Each seam of `build_app` takes: what tests/detection plants its defects with."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.unit.reference_service import Lab, lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = """
import sys
from dataclasses import replace
from functools import partial

from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.connecting import connector
from chaos.targets.reference.database import Database, Session
from chaos.targets.reference.hosts import HostPolicy, Judgement, Surface
from chaos.targets.reference.pool import Pool
from chaos.targets.reference.settings import Settings

settings = replace(Settings.from_environment(), port=int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("seams")) as made:
        yield made


def variant(directory: Path, body: str) -> tuple[str, ...]:
    program = directory / "variant.py"
    program.write_text(HEAD + textwrap.dedent(body) + "\nsys.exit(serve(app, settings))\n")
    return (str(program), "{port}")


def test_hosts_rendering_routes_and_gate(room: Lab, tmp_path: Path) -> None:
    body = """
    class Everybody(HostPolicy):
        def judge(self, hosts, *, target, path):
            return Judgement(surface=Surface.API)

    def plain(problem, request_id):
        return problem.status, [(b"content-type", b"text/plain")], problem.code.encode()

    async def own(request):
        return PlainTextResponse("mine")

    app = build_app(
        settings,
        hosts=Everybody(served=(), health=()),
        rendered=plain,
        more_routes=lambda database: [Route("/healthz", own)],
    )
    inner = app.gate

    async def outside(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/outside":
            await PlainTextResponse("outside")(scope, receive, send)
        else:
            await inner(scope, receive, send)

    app = replace(app, gate=outside)
    """
    service = room.start(program=variant(tmp_path, body))
    assert service.ask("/api/items", host="evil.test").status == 200
    assert service.ask("/api/items/x").body == b"invalid_id"
    assert service.ask("/healthz").body == b"mine"
    assert service.ask("/outside", host="evil.test").body == b"outside"
    assert service.stop() == 0


def test_connect_delay_session_and_pool(room: Lab, tmp_path: Path) -> None:
    body = """
    class Early(Session):
        async def row(self, query, values=None):
            return await super().row(query.replace("SELECT 1", "SELECT 1 / 0"), values)

    class Tiny(Pool):
        def __init__(self, **given):
            super().__init__(**{**given, "size": 2})

    app = build_app(
        settings,
        connect=connector(settings, change={"application_name": "variant"}),
        delay=lambda failures: 0.3,
        pool=Tiny,
        database=partial(Database, session=Early),
    )
    """
    service = room.start(program=variant(tmp_path, body), ready=False)
    service.wait("/api/items")
    until = time.monotonic() + 20
    while service.ask("/readyz").code == "pool_cold" and time.monotonic() < until:
        time.sleep(0.05)
    assert service.ask("/readyz").status == 500  # 22012, a mistake of ours: and not a word of it in the answer
    assert b"division" not in service.ask("/readyz").body
    assert service.metric("database_pool_size ") == 2
    assert service.metric('database_pool_connections{state="busy"}') == 0
    with psycopg.connect(room.environment.postgres.admin_conninfo) as session:
        row = session.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'variant'").fetchone()
    assert row == (2,)
    assert service.stop() == 0


def test_an_address_as_host_is_verified_strictly(room: Lab) -> None:
    """Rows C10 to C12: libpq alone would accept the last two."""
    authority, postgres = room.environment.authority, room.environment.postgres
    url = room.url.replace("@localhost:", "@127.0.0.1:")
    good = authority.issue("valid")
    try:
        for name, connects in (("ip", True), ("ip-in-dns", False), ("ip-in-cn", False)):
            identity = authority.issue(name)
            postgres.install_identity(identity.chain_file, identity.key_file)
            postgres.stop("fast")
            postgres.launch()
            service = room.start(url=url, ready=connects)
            service.wait("/healthz")
            if connects:
                assert service.ask("/api/items").status == 200
            else:
                assert service.ask("/api/items").status == 503
                assert service.metric('database_connection_failures_total{class="tls"') >= 1
            assert service.stop() == 0
    finally:
        postgres.stop("fast")
        postgres.install_identity(good.chain_file, good.key_file)
        postgres.start()
