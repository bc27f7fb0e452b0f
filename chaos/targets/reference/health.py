"""Is the process up (/healthz, no database), can it serve (/readyz, through the database), and how does it do (/metrics)?"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chaos.targets.reference import openapi
from chaos.targets.reference.chain import Chain, served_chain
from chaos.targets.reference.problems import NotReady

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from chaos.targets.reference.database import Database
    from chaos.targets.reference.settings import Settings
    from chaos.targets.reference.telemetry import Metrics

_LOOK_WAIT = 1.0  # seconds a health check waits for a look at the chain; later it uses the last one


@dataclass(slots=True, kw_only=True)
class ChainWatch:
    """The last look at the chain, at most `interval` seconds old when the health check asks. One look at a time."""

    look: Callable[[], Awaitable[Chain]]
    metrics: Metrics
    interval: float
    chain: Chain | None = None
    _next: float = 0.0
    _task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Look again when it is time; does not wait for it."""
        now = asyncio.get_running_loop().time()
        if self._task is None and now >= self._next:
            self._next = now + self.interval
            self._task = asyncio.create_task(self._look())

    async def fresh(self) -> Chain | None:
        """The chain, looked at again when it is time. None when it was never seen."""
        self.begin()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_LOOK_WAIT)
        return self.chain

    async def close(self) -> None:
        """End a look that is under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look(self) -> None:
        try:
            self.chain = await self.look()
            self.metrics.certificate_days.set(self.chain.days)
            self.metrics.certificate_checks.labels("seen").inc()
        except (OSError, TimeoutError, ValueError):
            self.metrics.certificate_checks.labels("failed").inc()
        finally:
            self._task = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The endpoints for operators. `watch` looks at the chain that the database serves."""

    database: Database
    settings: Settings
    metrics: Metrics
    watch: ChainWatch = field(init=False)

    def __post_init__(self) -> None:
        watch = ChainWatch(
            look=lambda: served_chain(self.settings.database_url), metrics=self.metrics, interval=self.settings.chain_interval
        )
        object.__setattr__(self, "watch", watch)  # the way to set a field of a frozen dataclass

    def routes(self) -> list[Route]:
        """Health, metrics and the contract."""
        return [
            Route("/healthz", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
            Route("/metrics", self.measured, methods=["GET"]),
            Route("/openapi.json", self.contract, methods=["GET"]),
        ]

    async def alive(self, _request: Request) -> Response:
        """GET /healthz. Without the database: restarting the process would not bring the database back."""
        return JSONResponse({"status": "alive", "release": self.settings.release})

    async def ready(self, _request: Request) -> Response:
        """GET /readyz: the pool was filled once, the database answers through it, and its chain holds a pinned key."""
        if not self.database.pool.warmed:
            raise NotReady("pool_cold", "The connection pool is being filled.")
        await self.database.run(lambda session: session.row("SELECT 1"), repeatable=True)
        chain = await self.watch.fresh()
        if chain is not None and not chain.pinned(self.settings.chain_pins):
            raise NotReady("chain_not_pinned", "The database's certificates are not the pinned ones.")
        days = None if chain is None else round(chain.days, 2)
        return JSONResponse({"status": "ready", "release": self.settings.release, "certificate_days": days})

    async def measured(self, _request: Request) -> Response:
        """GET /metrics: Prometheus text. Being asked keeps the chain's age fresh, unless the database is away anyway."""
        if self.database.pool.counts["idle"]:
            self.watch.begin()
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def contract(self, _request: Request) -> Response:
        """GET /openapi.json."""
        return JSONResponse(openapi.document(self.settings.release))
