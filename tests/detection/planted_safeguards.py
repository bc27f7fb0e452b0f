"""The reference service with one safeguard that is none: `python planted_safeguards.py NAME --port N`. Nothing of it is copied."""

import sys
from dataclasses import replace

from starlette.responses import JSONResponse

from chaos.targets.reference.app import build_app
from chaos.targets.reference.hosts import HostPolicy, Judgement, Surface
from chaos.targets.reference.pool import Pool
from tests.detection.planting import Defects

DEFECTS = Defects()
defect = DEFECTS.add


@defect
def flag_is_ignored(settings):
    """Whatever HOST_ALLOWLIST says, hosts are enforced: nobody can switch it off in an emergency."""
    return build_app(replace(settings, enforce_hosts=True))


@defect
def flag_never_enforces(settings):
    return build_app(replace(settings, enforce_hosts=False))


class _Everything(HostPolicy):
    def _by_name(self, name, path):
        judged = super()._by_name(name, path)
        return Judgement(surface=Surface.API, name=name) if self.bypass and judged.reason else judged


@defect
def bypass_opens_everything(settings):
    return build_app(settings, hosts=_Everything.from_settings(settings))


class _Cold(Pool):
    """Ready at once; a connection is made when somebody has to have one."""

    def open(self):
        self.warmed = True

    async def acquire(self, timeout):  # noqa: ASYNC109
        if not self._idle and len(self._busy) < self.size:
            self.observer.attempted()
            link = await self.connect()
            self.observer.connected(link)
            self._offer(link)
        return await super().acquire(timeout)


@defect
def cold_pool(settings):
    return build_app(settings, pool=_Cold)


@defect
def ready_without_looking(settings):
    return _answering(settings, "/readyz")


def _answering(settings, path):
    """Once it has started, the path is answered with a yes, whatever there is."""
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == path and app.pool.warmed:
            await JSONResponse({"status": "ready"})(scope, receive, send)
            return
        await inner(scope, receive, send)

    return replace(app, gate=gate)


@defect
def live_looks_at_the_database(settings):
    app = build_app(settings)
    inner = app.gate

    async def gate(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/healthz" and not app.pool.counts["idle"] + app.pool.counts["busy"]:
            await JSONResponse({"status": "dead"}, 503)(scope, receive, send)
            return
        await inner(scope, receive, send)

    return replace(app, gate=gate)


if __name__ == "__main__":
    sys.exit(DEFECTS.serve("The reference service with one safeguard that is none"))
