"""An edge with TLS in front of one origin: our own Caddy (HTTP/1.1 and HTTP/2), or the command of a team that brings its edge."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import time
from typing import TYPE_CHECKING

from chaos.environments.local.edge import MARK, find_caddy
from chaos.errors import PartFailed, TargetFailed, UsageError
from chaos.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from chaos.certs import Identity
    from chaos.environments import Spawns

_PATIENCE = 10.0  # s for our own Caddy
# What may stand in Host (RFC 3986, 3.2.2 and 3.2.3). Go's HTTP/2 server takes anything, and its client makes an empty Host, or the
# origin's own address, of what is outside: so it is answered here, as Go's HTTP/1.1 server answers it.
_AUTHORITY = r"^(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\\[[0-9A-Fa-f:.]+\\])(?::[^/?#@ ]*)?$"


class Front:
    """A running edge: `port` of 127.0.0.1 speaks TLS. See `chaos.environments.Front`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        port: int,
        reaper: Spawns,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        patience: float = _PATIENCE,
        where: str = "",
    ) -> None:
        """Start it and wait until it speaks TLS. `where` is the place in chaos.toml of an edge that is not ours.

        Raises UsageError when there is no such program, TargetFailed (a team's) or PartFailed (ours) when it does not come up.
        """
        self.port = port
        self._where = where
        self._asked_to_stop = False
        try:
            self.process = reaper.spawn(argv, name="edge", cwd=cwd, env=env, log=log)
        except OSError as error:
            raise UsageError(
                f"the edge cannot be run: {argv[0]}: {error.strerror}",
                remedy=f"name a program that is on PATH, or its path relative to {cwd}",
                where=where or "Caddy",
            ) from None
        self._wait(patience)

    def check(self) -> None:
        """Raises when it died and nobody asked it to."""
        if not self._asked_to_stop and (status := self.process.poll()) is not None:
            raise self._failed(f"the edge ended: exit status {status}")

    def stop(self) -> None:
        """Ends it."""
        self._asked_to_stop = True
        self.process.stop(2)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        said = "nothing listens"
        while time.monotonic() < deadline:
            self.check()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as plain:
                    said = "no TLS"
                    unverified = ssl.create_default_context()
                    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
                    try:
                        with unverified.wrap_socket(plain, server_hostname="localhost"):
                            return
                    except ssl.SSLError as error:
                        if "ALERT" in str(error.reason or ""):
                            return  # it speaks TLS, and does not know this name
                        said = f"no TLS ({error.reason})"
            except OSError as error:
                said = f"{said} ({error.strerror or error})" if said == "no TLS" else said
            time.sleep(0.02)
        self.stop()
        raise self._failed(f"the edge does not speak TLS on 127.0.0.1:{self.port} after {seconds:g} s: {said}")

    def _failed(self, what: str) -> PartFailed | TargetFailed:
        tail = self.process.tail()
        if not self._where:
            return PartFailed(what, remedy="read its last words above", where="Caddy", tail=tail)
        remedy = "mend its command: it has to stay in the foreground and listen with TLS on {edge_port} of 127.0.0.1"
        return TargetFailed(what, remedy=remedy, where=self._where, tail=tail)


def caddy(origin_port: int, identity: Identity, *, reaper: Spawns, directory: Path, program: str = "") -> Front:
    """Our own: Host as it came, forwarding headers of its own making, nothing kept, nothing tried twice, every SNI answered.

    The certificate has to hold `localhost` (it is shown where SNI names nobody known). Caddy's files are in `directory`.
    """
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    for there, here in ((identity.chain_file, "edge.pem"), (identity.key_file, "edge.key")):
        shutil.copy(there, directory / here)
    config = directory / "front.json"
    config.write_text(json.dumps(_config(port, origin_port, directory)), encoding="utf-8")
    home = {key: str(directory) for key in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    argv = [program or str(find_caddy()), "run", "--config", str(config)]
    return Front(argv, port=port, reaper=reaper, cwd=directory, env=home, log=directory / "caddy.log")


def _config(port: int, origin_port: int, directory: Path) -> dict[str, object]:
    """Caddy's whole configuration: https://caddyserver.com/docs/json/."""
    problem = json.dumps({"type": "about:blank", "title": "{http.error.status_text}", "status": "@"})
    own = {
        "handler": "static_response",
        "status_code": "{http.error.status_code}",
        "headers": {"Content-Type": ["application/problem+json"], MARK: ["1"], "Cache-Control": ["no-store"]},
        "body": problem.replace('"@"', "{http.error.status_code}"),
    }
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"127.0.0.1:{origin_port}"}],
        "flush_interval": -1,
        # A kept connection that the origin is about to close would cost a request that is nobody's fault.
        "transport": {"protocol": "http", "keep_alive": {"enabled": False}},
    }
    no_host = {"expression": f'!{{http.request.hostport}}.matches("{_AUTHORITY}")'}
    server = {
        "listen": [f"127.0.0.1:{port}"],
        "protocols": ["h1", "h2"],
        "automatic_https": {"disable": True},
        "tls_connection_policies": [{"default_sni": "localhost", "fallback_sni": "localhost"}],
        "routes": [
            {"match": [no_host], "handle": [{"handler": "error", "status_code": 400}], "terminal": True},
            {"handle": [proxy]},
        ],
        "errors": {"routes": [{"handle": [own]}]},
    }
    files = {"certificate": str(directory / "edge.pem"), "key": str(directory / "edge.key")}
    return {
        "admin": {"disabled": True},
        "storage": {"module": "file_system", "root": str(directory / "storage")},
        "logging": {"logs": {"default": {"level": "WARN"}}},
        "apps": {
            "tls": {"certificates": {"load_files": [files]}},
            "http": {"grace_period": "1s", "servers": {"front": server}},
        },
    }


__all__ = ["Front", "caddy"]
