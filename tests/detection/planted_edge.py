"""The reference service with one defect that shows behind an edge: `python planted_edge.py DEFECT PORT`. Nothing of it is copied."""

import sys
from dataclasses import replace

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.settings import Settings

DEFECTS = {}


def defect(made):
    """Register a defect under its function's name: Settings -> Application."""
    DEFECTS[made.__name__] = made
    return made


def _header(scope, name):
    return next((value for key, value in scope["headers"] if key == name), None)


@defect
def validates_direct_requests_only(settings):
    """'What comes through the edge was looked at there': nobody did."""
    app = build_app(settings)

    async def gate(scope, receive, send):
        if scope["type"] == "http" and _header(scope, b"x-forwarded-for"):
            scope = {**scope, "headers": [(n, v if n != b"host" else b"api.example.test") for n, v in scope["headers"]]}
        await app.gate(scope, receive, send)

    return replace(app, gate=gate)


@defect
def caches_by_path(settings):
    """An answer's link is built from X-Forwarded-Host, and what was answered once is answered to everybody who asks for that path."""
    app = build_app(settings)
    kept = {}

    async def gate(scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "GET" or b"name=" in scope["query_string"]:
            await app.gate(scope, receive, send)
            return
        messages = []

        async def collect(message):
            messages.append(message)

        await app.gate(scope, receive, collect)
        key = (scope["path"], scope["query_string"])
        if messages[0]["status"] == 200:
            named = _header(scope, b"x-forwarded-host") or b"api.example.test"
            link = (b"link", b"<https://" + named + b"/api/items>; rel=collection")
            messages[0] = {**messages[0], "headers": [*messages[0]["headers"], link]}
            messages = kept.setdefault(key, messages)
        for message in messages:
            await send(message)

    return replace(app, gate=gate)


if __name__ == "__main__":
    made = replace(Settings.from_environment(), port=int(sys.argv[2]))
    sys.exit(serve({**DEFECTS, "none": build_app}[sys.argv[1]](made), made))
