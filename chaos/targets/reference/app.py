"""The service put together. Each part can be given instead of made: that is how a test plants exactly one defect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.routing import Route, Router

from chaos.targets.reference.backoff import RetryBudget, full_jitter
from chaos.targets.reference.connecting import connector
from chaos.targets.reference.database import Database
from chaos.targets.reference.envelope import Envelope, ErrorBoundary, Reporter, answer_for
from chaos.targets.reference.health import Health
from chaos.targets.reference.hosts import HostGate, HostPolicy, Judgement, Surface, refusal
from chaos.targets.reference.items import Items
from chaos.targets.reference.landing import Landing
from chaos.targets.reference.pool import Pool
from chaos.targets.reference.problems import render
from chaos.targets.reference.telemetry import Audit, Metrics, PoolTelemetry, make_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import structlog
    from starlette.types import ASGIApp, Receive, Scope, Send

    from chaos.targets.reference.pool import Link
    from chaos.targets.reference.problems import Problem, Rendered
    from chaos.targets.reference.settings import Settings


@dataclass(frozen=True, slots=True)
class Dispatch:
    """ASGI: the routes of the surface that the host is for."""

    surfaces: dict[Surface, Router]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route by path and method. Unknown ones raise HTTPException, because "app" is set (starlette.routing.Router.not_found)."""
        judgement: Judgement = scope["reference.host"]
        router = self.surfaces[judgement.surface]
        scope["app"] = router
        await router(scope, receive, send)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The service as one ASGI application, and its life. `gate` is the outermost layer of it."""

    gate: ASGIApp
    pool: Pool
    health: Health
    reporter: Reporter
    log: structlog.typing.FilteringBoundLogger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Requests go to the gate; start and end of the process open and close the pool."""
        if scope["type"] != "lifespan":
            await self.gate(scope, receive, send)
            return
        await receive()
        self.pool.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.health.watch.close()
        await self.pool.close()
        await send({"type": "lifespan.shutdown.complete"})


def build_app(
    settings: Settings,
    *,
    log: structlog.typing.FilteringBoundLogger | None = None,
    connect: Callable[[], Awaitable[Link]] | None = None,
    delay: Callable[[int], float] | None = None,
    pool: Callable[..., Pool] = Pool,
    database: Callable[..., Database] = Database,
    hosts: HostPolicy | None = None,
    answer: Callable[[Exception], Problem] = answer_for,
    rendered: Callable[[Problem, str], Rendered] = render,
    more_routes: Callable[[Database], Sequence[Route]] = lambda _: (),
) -> Application:
    """The service. What is not given is made from the settings.

    `connect` makes one connection, `delay` says how long to wait after n failures, `pool` and `database` make those two (a subclass,
    or a partial with another `session`); `hosts` judges requests; `answer` turns exceptions into problems, `rendered` problems into
    bytes; `more_routes` come before the service's own on the API surface. Around all of it: `replace(app, gate=...)`.
    """
    log = log or make_log()
    metrics = Metrics()
    telemetry = PoolTelemetry(log, metrics)
    made = pool(
        connect=connect or connector(settings),
        delay=delay or (lambda failures: full_jitter(failures, base=settings.reconnect_base, cap=settings.reconnect_cap)),
        observer=telemetry,
        size=settings.pool_size,
        waiting=settings.waiting,
    )
    metrics.watch(made)
    work = database(
        settings=settings,
        pool=made,
        retried=lambda outcome: metrics.retries.labels(outcome).inc(),
        budget=RetryBudget(ratio=settings.retry_ratio),
    )
    health = Health(database=work, settings=settings, metrics=metrics)
    routes = more_routes(work)
    items, landing = Items(work, settings).routes(), Landing(work, settings).routes()
    operators = health.routes()
    public = [route for route in items if route.path.startswith("/api/")]
    surfaces = {
        Surface.API: _router([*routes, *items, *operators]),
        # A landing page's own links and scripts ask for items under the page's host.
        Surface.LANDING: _router([*landing, *public, *operators[:2]]),
        Surface.HEALTH: _router(operators[:2]),
    }
    reporter = Reporter(
        log=log,
        metrics=metrics,
        pool=telemetry,
        audit=Audit(log, metrics),
        routes={route.endpoint: route.path for route in [*routes, *items, *landing, *operators]},
        trusted_proxies=settings.trusted_proxies,
    )

    def wrapped(inner: ASGIApp) -> ASGIApp:
        return Envelope(app=ErrorBoundary(inner, answer, rendered, log), release=settings.release, reporter=reporter)

    gate = HostGate(
        wrapped(Dispatch(surfaces)),
        policy=hosts or HostPolicy.from_settings(settings),
        refuse=wrapped(refusal),
        audit=reporter.refused,
    )
    return Application(gate=gate, pool=made, health=health, reporter=reporter, log=log)


def _router(routes: Sequence[Route]) -> Router:
    # Redirecting '/api/items/' would build an absolute URL from Host.
    return Router(routes=list(routes), redirect_slashes=False)
