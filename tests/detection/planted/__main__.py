"""The reference service with exactly one thing changed: `python tests/detection/planted NAME --port N`.

Nothing of the service is copied: each defect goes in through one of its seams (`build_app`, `Settings`, `Application.gate`).
"""

import asyncio
import json
import os
import re
import sys
import traceback
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from chaos.targets.reference.app import build_app
from chaos.targets.reference.connecting import connector, failure_class
from chaos.targets.reference.database import Database
from chaos.targets.reference.envelope import answer_for
from chaos.targets.reference.hosts import HostPolicy, Judgement, Surface
from chaos.targets.reference.items import Items
from chaos.targets.reference.problems import Unavailable
from chaos.targets.reference.settings import Settings
from chaos.targets.reference.telemetry import make_log
from tests.detection.planting import Defects

DEFECTS = Defects()
defect = DEFECTS.add
FOR_EVER = 60.0  # s: longer than any window of the suite


# -- deadlines ------------------------------------------------------------------------------------------------------------------


@defect
def waits_for_slow_queries(settings):
    """No bound for a query, on either side. A connection is still waited for only a second."""
    bounds = ("statement_timeout", "lock_timeout", "silence", "deadline")
    return build_app(replace(settings, **dict.fromkeys(bounds, FOR_EVER)))


@defect
def waits_for_a_silent_server(settings):
    """Only the server bounds a query. That is no help when it is the server that cannot be heard."""
    return build_app(replace(settings, silence=FOR_EVER, deadline=FOR_EVER))


@defect
def waits_for_a_free_connection(settings):
    """Queries are bounded, the wait for a connection is not."""
    return build_app(replace(settings, acquire_timeout=FOR_EVER, deadline=FOR_EVER))


@defect
def every_query_takes_its_time(settings):
    """0.16 s more each: above the 120 ms of P95, well below the 300 ms of P99."""

    class Slow(Database):
        async def run(self, unit, *, repeatable):
            await asyncio.sleep(0.16)
            return await super().run(unit, repeatable=repeatable)

    return build_app(settings, database=Slow)


# -- connecting -----------------------------------------------------------------------------------------------------------------


async def _for_ever():
    await asyncio.Event().wait()


async def _half_a_minute():
    await asyncio.sleep(30.0)


async def _exit():
    os._exit(7)


def _after_a_tls_failure(settings, then):
    """Other failures are met as they should be: only the gate of TLS failures can be red."""
    strict = connector(settings)

    async def connect():
        try:
            return await strict()
        except Exception as error:
            if failure_class(error) == "tls":
                await then()
            raise

    return build_app(settings, connect=connect)


@defect
def gives_up_on_a_bad_certificate(settings):
    return _after_a_tls_failure(settings, _for_ever)


@defect
def pauses_after_a_tls_failure(settings):
    return _after_a_tls_failure(settings, _half_a_minute)


@defect
def exits_on_a_bad_certificate(settings):
    return _after_a_tls_failure(settings, _exit)


@defect
def retries_without_backoff(settings):
    """Neither exponential nor jittered: a knock every 20 ms, for as long as it takes."""
    return build_app(settings, delay=lambda _failures: 0.02)


@defect
def retries_every_second(settings):
    """What many a loop sleeps: a second, each time, for all clients alike."""
    return build_app(settings, delay=lambda _failures: 1.0)


@defect
def never_reconnects(settings):
    """The pool is filled once. What is lost stays lost."""
    strict, made = connector(settings), []

    async def connect():
        if len(made) >= settings.pool_size:
            await _for_ever()
        made.append(await strict())
        return made[-1]

    return build_app(settings, connect=connect)


@defect
def tries_plaintext_first(settings):
    """sslmode=allow: TLS, unverified, and only where the server insists on it (libpq, table 34.1)."""
    return build_app(settings, connect=connector(settings, change={"sslmode": "allow"}))


@defect
def takes_two_handshakes(settings):
    """Every connection is first tried with the wrong authorities; the server sees its certificate refused."""
    wrong, right = connector(settings, change={"sslrootcert": "system"}), connector(settings)

    async def connect():
        try:
            return await wrong()
        except Exception:  # noqa: BLE001  (whatever it was, it is what the defect is about)
            return await right()

    return build_app(settings, connect=connect)


# -- hosts ----------------------------------------------------------------------------------------------------------------------


def _rewritten(app, rewrite):
    """The application behind something that changes the headers: `rewrite(headers) -> headers`."""

    async def gate(scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "headers": rewrite(scope["headers"])}
        await app.gate(scope, receive, send)

    return replace(app, gate=gate)


@defect
def trusts_x_forwarded_host(settings):
    def rewrite(headers):
        said = [value for name, value in headers if name == b"x-forwarded-host"]
        return [(b"host", said[0]), *((n, v) for n, v in headers if n != b"host")] if said else headers

    return _rewritten(build_app(settings), rewrite)


@defect
def left_in_monitor_mode(settings):
    return build_app(replace(settings, enforce_hosts=False))


class _SameBeginning(HostPolicy):
    def _by_name(self, name, path):
        listed = any(name.startswith(f"{pattern}.") for pattern, _ in self.served)
        return Judgement(surface=Surface.API, name=name) if listed else super()._by_name(name, path)


@defect
def compares_the_beginning(settings):
    """api.example.test.evil.example begins with api.example.test."""
    return build_app(settings, hosts=_SameBeginning.from_settings(settings))


class _DotIsAnything(HostPolicy):
    def _by_name(self, name, path):
        listed = any(re.fullmatch(pattern.replace("*", "[^.]+"), name) for pattern, _ in self.served)
        return Judgement(surface=Surface.API, name=name) if listed else super()._by_name(name, path)


@defect
def dot_means_any_letter(settings):
    """The list became regular expressions, and nobody escaped the dots: pr-7xpreview.example.test."""
    return build_app(settings, hosts=_DotIsAnything.from_settings(settings))


class _HostIsOptional(HostPolicy):
    def judge(self, hosts, *, target, path):
        return super().judge(hosts or [self.served[0][0].encode()], target=target, path=path)


@defect
def serves_requests_without_host(settings):
    return build_app(settings, hosts=_HostIsOptional.from_settings(settings))


class _NoPorts(HostPolicy):
    def judge(self, hosts, *, target, path):
        judged = super().judge(hosts, target=target, path=path)
        fine = judged.reason or judged.surface is Surface.HEALTH or b":" not in hosts[0]
        return judged if fine else replace(judged, reason="unknown")


@defect
def refuses_a_port(settings):
    """'api.example.test:8443' is compared with the list as it stands."""
    return build_app(settings, hosts=_NoPorts.from_settings(settings))


@defect
def forgets_the_crawlers(settings):
    return build_app(replace(settings, crawler_hosts=()))


class _NoHosts:
    """Standard output, with every host name taken out of the lines."""

    def write(self, text):
        return sys.stdout.write(re.sub(r'"host": "[^"]*"', '"host": ""', text))

    def flush(self):
        sys.stdout.flush()


@defect
def logs_no_hosts(settings):
    return build_app(settings, log=make_log(_NoHosts()))


# -- answers --------------------------------------------------------------------------------------------------------------------


@defect
def shows_a_stack_trace(settings):
    """As `detail`, when the database is away."""

    def answer(error):
        if isinstance(error, Unavailable):
            return Unavailable(error.code, "".join(traceback.format_exception(error)))
        return answer_for(error)

    return build_app(settings, answer=answer)


@dataclass(frozen=True)
class _Changed:
    """/api/items, where one method goes through `created(items, request)`; everything else is the service's own."""

    settings: Settings
    created: object
    method: str = "POST"

    def __call__(self, database):
        items = Items(database, self.settings)

        async def collection(request):
            return await (self.created(items, request) if request.method == self.method else items.collection(request))

        return [Route("/api/items", collection, methods=["GET", "POST"])]


@defect
def asks_the_database_before_it_reads_the_body(settings):
    async def created(items, request):
        await items.database.run(lambda session: session.row("SELECT 1"), repeatable=True)
        return await items.collection(request)

    return build_app(settings, more_routes=_Changed(settings, created))


@defect
def acknowledges_and_forgets(settings):
    """201 for a write that the database did not take. Only in an outage: nobody notices in the steady state."""

    async def created(items, request):
        try:
            return await items.collection(request)
        except Unavailable:
            return JSONResponse({"id": 1, "name": "accepted"}, status_code=201)

    return build_app(settings, more_routes=_Changed(settings, created))


@defect
def ignores_the_idempotency_key(settings):
    return _rewritten(build_app(settings), lambda headers: [(n, v) for n, v in headers if n != b"idempotency-key"])


@defect
def looks_the_key_up_first(settings):
    """The key is looked up, and remembered when all is done: later repetitions are seen, one at the same time is not."""
    known = {}

    async def created(items, request):
        key = request.headers.get("idempotency-key")
        if key in known:
            return JSONResponse(known[key], status_code=201)
        headers = [(name, value) for name, value in request.scope["headers"] if name != b"idempotency-key"]
        answer = await items.collection(Request({**request.scope, "headers": headers}, request.receive))
        if answer.status_code == 201 and key:
            known[key] = json.loads(answer.body)
        return answer

    return build_app(settings, more_routes=_Changed(settings, created))


@defect
def lists_nothing_in_an_outage(settings):
    """200 and an empty list, where the database cannot be asked."""

    async def listed(items, request):
        try:
            return await items.collection(request)
        except Unavailable:
            return JSONResponse({"items": []})

    return build_app(settings, more_routes=_Changed(settings, listed, "GET"))


@defect
def answers_from_an_old_copy_in_an_outage(settings):
    """200 with what was listed some time ago, so that what was written since is missing."""
    copy = []

    async def listed(items, request):
        name = request.query_params.get("name")
        try:
            answer = await items.collection(request)
            if not copy and name is None:
                copy.extend(json.loads(answer.body)["items"])
        except Unavailable:
            return JSONResponse({"items": [one for one in copy if name in {None, one["name"]}]})
        return answer

    return build_app(settings, more_routes=_Changed(settings, listed, "GET"))


if __name__ == "__main__":
    sys.exit(DEFECTS.serve("The reference service with one thing changed"))
