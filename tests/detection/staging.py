"""A staging of our own that outlives every run on it: PostgreSQL, a Toxiproxy that is shared, and a service that runs already."""

import json
import os
import sys
from pathlib import Path

from chaos import healing
from chaos.environments.local import LocalEnvironment
from chaos.processes import Reaper, free_port
from chaos.targets.ready import ask
from tests.detection.conftest import TARGETS, dumps
from tests.detection.tiny_run import until

THEIRS = ["theirs"]  # what somebody else has put on the proxy, and wants to find there afterwards


class Staging:
    """`url` of the service, `toxiproxy` of the control API; the database is behind the proxy `database`, nothing behind `idle`."""

    def __init__(self, place, service=TARGETS / "tiny" / "service.py"):
        self.place = Path(place)
        self.reaper = Reaper("staging")
        self.environment = LocalEnvironment(reaper=self.reaper, run_dir=self.place, worker="staging")
        self.environment.start()
        self.toxiproxy = self.environment.toxiproxy_url
        postgres = self.environment.postgres
        listens = {}
        for name in ("database", "idle"):
            body = {"name": name, "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{postgres.port}", "enabled": True}
            listens[name] = self._call("POST", "/proxies", body)["listen"]
        theirs = {"name": "theirs", "type": "latency", "stream": "downstream", "attributes": {"latency": 1, "jitter": 0}}
        self._call("POST", "/proxies/database/toxics", theirs)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.listen = listens["database"]
        env = {**os.environ, "DATABASE_URL": postgres.database_url(int(self.listen.rpartition(":")[2]))}
        self.reaper.spawn(
            [sys.executable, str(service), str(self.port)],
            name="service",
            cwd=self.place,
            env=env,
            log=self.place / "service.log",
        )
        assert until(lambda: not ask(f"{self.url}/one", {}, timeout=2)), (self.place / "service.log").read_text()

    def close(self):
        self.environment.stop()
        self.reaper.close()

    def _call(self, method, path, body=None):
        status, data = healing.call(method, self.toxiproxy + path, body)
        assert status < 300, (status, data)
        return data

    def proxy(self, name="database"):
        """The names of its toxics, and whether it is enabled."""
        data = self._call("GET", f"/proxies/{name}")
        return sorted(toxic["name"] for toxic in data["toxics"]), data["enabled"]

    @property
    def clean(self):
        return self.proxy() == (THEIRS, True)

    @property
    def serves(self):
        return not ask(f"{self.url}/one", {}, timeout=3)

    def toxic(self, name, kind="latency", **attributes):
        self._call("POST", "/proxies/database/toxics", {"name": name, "type": kind, "attributes": attributes})

    def untoxic(self, name):
        self._call("DELETE", f"/proxies/database/toxics/{name}")

    def enable(self, enabled):
        self._call("POST", "/proxies/database", {"enabled": enabled})

    def config(self, place, **environment):
        """A chaos.toml for it: all rails open, but for what is given; None takes a key out."""
        settings = {"toxiproxy": self.toxiproxy, "proxy": "database", "allow": ["127.0.0.1"], **environment}
        raw = {
            "target": {
                "name": "staging",
                "url": self.url,
                "live": "/healthz",
                "ready": "/healthz",
                "database": {"recovery": 5, "fail_fast": 5},
                "read": [{"path": "/one"}],
            },
            "environment": {key: value for key, value in settings.items() if value is not None},
        }
        made = Path(place) / "chaos.toml"
        made.write_text(dumps(raw), encoding="utf-8")
        return made


def ledger(directory):
    """What the run's ledger says, line by line."""
    return [json.loads(line) for line in (directory / "faults.jsonl").read_text(encoding="utf-8").splitlines()]
