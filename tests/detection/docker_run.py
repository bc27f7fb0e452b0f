"""`chaos-gate run --backend docker` on the tiny target, as a process that can be interrupted and looked at."""

import json
import urllib.request
from contextlib import suppress

from chaos.environments.docker.labels import RUN
from tests.detection.tiny_run import ONE, PATIENCE, TINY, Run, until
from tests.engine import ours, those_left, volumes


class DockerRun(Run):
    """`client` is the engine's. The volumes that its containers had are remembered: an image's own ones carry no label."""

    def __init__(self, client, place, config=TINY, *, only=(ONE,), options=(), **more):
        self.client = client
        self.volumes = set()
        super().__init__(place, config, only=only, options=("--backend", "docker", *options), **more)

    def containers(self):
        """Its containers by their plan's name: 'toxiproxy', 'postgresql', ..."""
        if self.directory is None:
            return {}
        which = {"label": f"{RUN}={self.id}"}
        found = self.client.containers.list(all=True, filters=which, ignore_removed=True)
        self.volumes |= volumes(self.client, self.id)
        return {one.name.rsplit("-", 2)[1]: one for one in found}

    def wait_for_fault(self):
        """Until its Toxiproxy has a proxy that is disabled or holds a toxic."""

        def broken():
            self._gone(("fault",))
            toxiproxy = self.containers().get("toxiproxy")
            arguments = toxiproxy.attrs["Args"] if toxiproxy else []
            if "-port" not in arguments:
                return False
            port = arguments[arguments.index("-port") + 1]
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/proxies", timeout=2) as answer:
                return any(not one["enabled"] or one["toxics"] for one in json.loads(answer.read()).values())
            return False

        assert until(broken), "no fault was ever injected"

    def wait(self, seconds=PATIENCE * 2):
        """Its exit code; its containers are looked at meanwhile."""
        until(lambda: self.process.poll() is not None or (self.containers() and False), seconds)
        return super().wait(1.0)

    def left(self, seconds=15.0):
        """As `Run.left`, and what of it is in the engine."""

        def in_engine():
            return ours(self.client, self.id) if self.directory else []

        until(lambda: not in_engine() and not those_left(self.client, self.volumes), seconds)
        # No data directory of this machine's is ours: that one is of somebody who runs locally at this moment.
        files = [one for one in super().left(seconds) if "/chaos-pg-" not in one]
        return files + in_engine() + those_left(self.client, self.volumes)
