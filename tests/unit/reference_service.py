"""The reference service as a process, on a real PostgreSQL behind a real Toxiproxy: what test_reference_*.py share."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.environments.local import LocalEnvironment
from chaos.processes import Reaper, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

API = "api.example.test"


def importable() -> dict[str, str]:
    """Ours, with the package importable for a script that lies elsewhere."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@dataclass(frozen=True)
class Answer:
    """Status 0 when no whole answer came; `seconds` from connecting to the last byte."""

    status: int
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Proxy:
    """One Toxiproxy proxy in front of the database, by its HTTP API."""

    def __init__(self, url: str, upstream: int) -> None:
        self._url = url
        made = self._call("POST", "/proxies", {"name": "database", "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{upstream}"})
        self.listen = made["listen"]
        self.port = int(self.listen.rpartition(":")[2])

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self._url + path, data, method=method), timeout=10) as answer:
            return json.loads(answer.read() or b"{}")

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        self._call("POST", "/proxies/database", {"enabled": False, "listen": self.listen})
        try:
            yield
        finally:
            self._call("POST", "/proxies/database", {"enabled": True, "listen": self.listen})

    @contextlib.contextmanager
    def toxic(self, kind: str, *streams: str, **attributes: int) -> Iterator[None]:
        for stream in streams:
            toxic = {"name": stream, "type": kind, "stream": stream, "attributes": attributes}
            self._call("POST", "/proxies/database/toxics", toxic)
        try:
            yield
        finally:
            for stream in streams:
                self._call("DELETE", f"/proxies/database/toxics/{stream}")

    def black_hole(self) -> contextlib.AbstractContextManager[None]:
        return self.toxic("bandwidth", "upstream", "downstream", rate=0)


class Service:
    """`program` is what Python runs; {port} in it is the port."""

    def __init__(self, directory: Path, url: str, *, program: tuple[str, ...] = (), **env: str) -> None:
        self.port = free_port()
        self.log_file = directory / f"service-{self.port}.log"
        program = program or ("-m", "chaos.targets.reference", "--port", "{port}")
        argv = [sys.executable, *(part.replace("{port}", str(self.port)) for part in program)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(argv, env={**importable(), "DATABASE_URL": url, **env}, stdout=log, stderr=log)

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        host: str = API,
        json_body: object = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        started = time.monotonic()
        if json_body is not None:
            body, headers = json.dumps(json_body).encode(), {"Content-Type": "application/json", **(headers or {})}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)) as connection:
            try:
                connection.request(method, path, body, {"Host": host, "Connection": "close", **(headers or {})})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                return Answer(0, time.monotonic() - started)
        lowered = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, time.monotonic() - started, lowered, content)

    def raw(self, request: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            received = bytearray()
            with contextlib.suppress(ConnectionResetError):
                while data := connection.recv(65_536):
                    received += data
        return bytes(received)

    def wait(self, path: str = "/readyz", seconds: float = 20.0) -> float:
        """Seconds until `path` was answered 200."""
        started = time.monotonic()
        while self.ask(path).status != 200:
            assert self.process.poll() is None, self.log_file.read_text()
            assert time.monotonic() - started < seconds, self.log_file.read_text()
            time.sleep(0.03)
        return time.monotonic() - started

    def metric(self, start: str) -> float:
        """The sum of the samples whose line begins so."""
        lines = self.ask("/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    def line(self, answer: Answer) -> dict[str, Any]:
        """The request line of an answer; it is written right after the answer was sent."""
        wanted = answer.headers["x-request-id"]
        for _ in range(100):
            for line in self.log():
                if line["event"] == "request" and line["request_id"] in (wanted, "[redacted]"):
                    return line
            time.sleep(0.02)
        raise AssertionError(self.log_file.read_text())

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text().rpartition("\n")[0].splitlines()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(10)


@dataclass
class Lab:
    """The environment, a proxy, the schema; services are started as a test needs them."""

    environment: LocalEnvironment
    proxy: Proxy
    directory: Path
    services: list[Service] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.environment.postgres.database_url(self.proxy.port)

    def start(self, *, ready: bool = True, url: str = "", program: tuple[str, ...] = (), **env: str) -> Service:
        service = Service(self.directory, url or self.url, program=program, **env)
        self.services.append(service)
        if ready:
            service.wait()
        return service


@contextlib.contextmanager
def lab(directory: Path) -> Iterator[Lab]:
    """A laboratory, with the schema in it; everything is gone afterwards."""
    with Reaper("reference") as reaper:
        environment = LocalEnvironment(reaper=reaper, run_dir=directory)
        environment.start()
        made = Lab(environment, Proxy(environment.toxiproxy_url, environment.postgres.port), directory)
        try:
            for _ in range(2):  # idempotent
                migrated = subprocess.run(
                    [sys.executable, "-m", "chaos.targets.reference.migrate"],
                    env={**importable(), "DATABASE_URL": made.url},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert migrated.returncode == 0, migrated.stderr
            yield made
        finally:
            for service in made.services:
                service.stop()
            environment.stop()
