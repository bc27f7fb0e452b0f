"""The running Toxiproxy server. What it is told to do is the business of `chaos.faults`."""

from __future__ import annotations

import http.client
import json
import time
from typing import TYPE_CHECKING

from chaos.errors import PartFailed
from chaos.processes import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.environments import Running, Spawns


class ToxiproxyServer:
    """One server; `launch` returns at once, `wait` when its API answers.

    It listens on `address`. Where `reaper` starts it as an image's own program, there is no `binary`.
    """

    def __init__(self, *, binary: Path | None, reaper: Spawns, directory: Path, address: str = "127.0.0.1") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.version = ""
        self._program = [str(binary)] if binary else []
        self._address = address
        self._reaper = reaper
        self._directory = directory
        self._asked_to_stop = True
        self.process: Running | None = None

    def launch(self) -> None:
        """Starts it; it has no proxies."""
        argv = [*self._program, "-host", self._address, "-port", str(self.port)]
        log = self._directory / "toxiproxy.log"
        self.process = self._reaper.spawn(argv, name="Toxiproxy", cwd=self._directory, env={"LOG_LEVEL": "info"}, log=log)
        self._asked_to_stop = False

    def wait(self, seconds: float = 10.0) -> None:
        """Until GET /version answers; PartFailed otherwise."""
        deadline = time.monotonic() + seconds
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            try:
                connection.request("GET", "/version")
                self.version = json.loads(connection.getresponse().read())["version"]
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                self.check()
                if time.monotonic() > deadline:
                    self._fail(f"its API on port {self.port} did not answer within {seconds:g} s: {error}")
                time.sleep(0.005)
            else:
                return
            finally:
                connection.close()

    def replace(self) -> None:
        """Kills it, wedged or not, and starts another on the same port: without proxies and without toxics."""
        if self.process is not None:
            self._asked_to_stop = True
            self.process.kill()
        self.launch()
        self.wait()

    def check(self) -> None:
        """Raises PartFailed when it died and nobody asked it to."""
        if not self._asked_to_stop and self.process is not None and (status := self.process.poll()) is not None:
            self._fail(f"died: exit status {status}")

    def stop(self) -> None:
        """Ends it."""
        if self.process is not None:
            self._asked_to_stop = True
            self.process.stop(1)
            self.process = None

    def _fail(self, what: str) -> None:
        words = self.process.tail() if self.process else ()
        raise PartFailed(what, remedy="read its last words above", where="Toxiproxy", tail=words)
