"""A small service with host validation, and one defect at a time, on three real HTTP servers.

`refusal(hosts, path, defect)` is all of its validation; `serving(server, defect)` starts it on a free loopback port.
"""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import uvicorn

from chaos.traffic.host_names import HostNames

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = HostNames(
    allowed=("api.example.test", "www.shop.example.test"),
    seo=("*.landing.example.test",),
    preview=("*.preview.example.test",),
    crawler=("crawler.example.test",),
    health=("127.0.0.1", "probe"),
)
PATHS = {"/items/1", "/items"}
HEALTH = {"/healthz", "/readyz"}
SERVERS = ("h11", "httptools", "http.server")
_HOST = re.compile(r"([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::(\d{1,5}))?")
_WILD = (".landing.example.test", ".preview.example.test")


def known(host: str, path: str, defect: str) -> bool:
    if defect == "port":
        host = host.partition(":")[0]
    found = _HOST.fullmatch(host.strip(" \t") if defect == "case" else host.lower().strip(" \t"))
    if found is None or int(found[2] or 0) > 65535:
        return False
    name = found[1]
    if path in HEALTH and name in NAMES.health:
        return True
    wild = any(name.endswith(one) and "." not in name[: -len(one)] for one in _WILD)
    return name in {*NAMES.allowed, *NAMES.crawler} or wild or lax(name, defect)


def lax(name: str, defect: str) -> bool:
    """Comparisons that let more by than what is listed."""
    ends = defect == "suffix" and name.endswith(("api.example.test", "landing.example.test"))
    return ends or (defect == "prefix" and name.startswith("api.example.test"))


def refused(hosts: list[str], path: str, headers: dict[str, str], defect: str) -> bool:
    skipped = {
        "any": True,
        "route": path == "/items",
        "missing": hosts in ([], [""]),
        "exempt": any(one in path for one in HEALTH),
    }
    if skipped.get(defect):
        return False
    if defect == "forwarded" and "x-forwarded-host" in headers:
        hosts = [headers["x-forwarded-host"]]
    return (len(hosts) != 1 and defect != "first") or not known((hosts or [""])[0], path, defect)


def refusal(hosts: list[str], defect: str) -> tuple[int, str, str, dict[str, str]]:
    """The answer to a host that is not served."""
    status = {"404": 404, "403": 403}.get(defect, 400)
    if defect == "plain":
        return status, "text/plain", "Invalid host header", {}
    body = {"type": "about:blank", "title": "Unknown host", "status": status, "detail": f"{hosts!r} is not served here"}
    more = {"Link": f"<https://{hosts[0]}/help>; rel=help"} if defect == "link" and hosts else {}
    return status, "application/problem+json", json.dumps(body), more


def answer(
    method: str, target: str, hosts: list[str], headers: dict[str, str], defect: str
) -> tuple[int, str, str, dict[str, str]]:
    """(status, media type, body, further headers)."""
    path = target.partition("?")[0]
    problem = "application/problem+json"
    if defect == "preflight" and method == "OPTIONS":
        return 204, "text/plain", "", {"Access-Control-Allow-Origin": "*"}
    if defect == "redirect" and "x-forwarded-proto" not in headers and hosts[:1] != ["api.example.test"] and path not in HEALTH:
        return 301, "text/plain", "", {"Location": f"https://{(hosts or [''])[0]}{target}"}
    exempted = defect == "exempt" and any(one in target for one in HEALTH)
    if refused(hosts, path, headers, defect) and not exempted:
        return refusal(hosts, defect)
    if path in PATHS | HEALTH:
        link = (
            f"https://{headers['x-forwarded-host']}/items/2"
            if defect == "reflect" and "x-forwarded-host" in headers
            else "/items/2"
        )
        return 200, "application/json", json.dumps({"next": link}), {}
    return 404, problem, json.dumps({"title": "Not found", "status": 404, "instance": target}), {}


class Application:
    """The service as an ASGI application."""

    def __init__(self, defect: str) -> None:
        self.defect = defect

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del receive
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in pairs if name == "host"]
        query = scope["query_string"].decode("latin-1")
        target = scope["path"] + (f"?{query}" if query else "")
        status, media, body, more = answer(scope["method"], target, hosts, dict(pairs), self.defect)
        raw = [(b"content-type", media.encode()), (b"content-length", str(len(body.encode())).encode())]
        raw += [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in more.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body.encode()})


def _handler(defect: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hosts = self.headers.get_all("host", [])
            lowered = {name.lower(): value for name, value in self.headers.items()}
            status, media, body, more = answer(self.command, self.path, hosts, lowered, defect)
            self.send_response(status)
            headers = {"Content-Type": media, **({} if status == 204 else {"Content-Length": str(len(body.encode()))}), **more}
            for name, value in headers.items():
                self.send_header(name, value.replace("\r\n", " ").encode("latin-1", "replace").decode("latin-1"))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_OPTIONS = do_GET  # noqa: N815  (the name that http.server looks for; HEAD it answers 501 itself)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextmanager
def serving(server: str, defect: str = "") -> Iterator[tuple[str, int]]:
    """The address of the service on `server`, one of SERVERS."""
    if server == "http.server":
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(defect)) as listening:
            thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield ("127.0.0.1", listening.server_address[1])
            listening.shutdown()
            thread.join()
        return
    config = uvicorn.Config(
        Application(defect), http=server, ws="none", host="127.0.0.1", port=0, log_level="critical", lifespan="off"
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.005)
    try:
        yield ("127.0.0.1", running.servers[0].sockets[0].getsockname()[1])
    finally:
        running.should_exit = True
        thread.join()
