"""`chaos-gate run --backend docker` on the tiny target, as a process that can be interrupted and looked at."""

import json
import urllib.request
from contextlib import suppress

from chaos.environments.docker.labels import RUN
from tests.detection.tiny_run import ONE, TINY, Run, until
from tests.engine import ours, volumes


class DockerRun(Run):
    """`client` is the engine's; what there was of volumes before is remembered, for an image's own ones carry no label."""

    def __init__(self, client, place, config=TINY, *, only=(ONE,), options=(), **more):
        self.client = client
        self.volumes_before = volumes(client)
        super().__init__(place, config, only=only, options=("--backend", "docker", *options), **more)

    def containers(self):
        """Its containers by their plan's name: 'toxiproxy', 'postgresql', ..."""
        if self.directory is None:
            return {}
        which = {"label": f"{RUN}={self.id}"}
        found = self.client.containers.list(all=True, filters=which, ignore_removed=True)
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

    def left(self, seconds=15.0):
        """As `Run.left`, and what of it is in the engine."""

        def in_engine():
            return ours(self.client, self.id) if self.directory else []

        until(lambda: not in_engine() and not volumes(self.client) - self.volumes_before, seconds)
        return super().left(seconds) + in_engine() + sorted(volumes(self.client) - self.volumes_before)
