"""The files with which a team runs the same load on machines of its own: a locustfile, and a manifest for its scheduler."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from chaos import __version__

if TYPE_CHECKING:
    from chaos.config import Config

PORT = 5557  # Locust's own, of its master


def locustfile(config: Config) -> str:
    """For `locust -f`, on the master and on every worker. It holds no request and no secret: the run tells the workers what to send."""
    name = " ".join(config.target.name.split()).replace('"', "'").replace("\\", "/")
    return textwrap.dedent(f'''\
        """The load of chaos-gate {__version__} on "{name}", for Locust's master and workers. The same file on every machine.

        Each worker starts chaos-gate's own sender beside it (an open loop: planned arrivals, latency from the plan, HDR
        histograms), and Locust carries orders and records. Its own statistics stay empty: they are rounded, and its pacing
        is closed-loop.

            pip install 'chaos-gate[locust]=={__version__}'
            locust -f locustfile.py --worker --master-host HOST
        """

        from locust import User, constant, events, task
        from locust.runners import MasterRunner, WorkerRunner

        from chaos.traffic.load import nodes


        @events.init.add_listener
        def begin(environment, **_):
            if isinstance(environment.runner, MasterRunner | WorkerRunner):
                nodes.install(environment.runner, master=isinstance(environment.runner, MasterRunner))


        class Idle(User):
            wait_time = constant(1)

            @task
            def nothing(self):
                """The sender beside this worker sends; Locust wants a user all the same."""
        ''')


def manifest(*, workers: int, master: str, image: str = "registry.invalid/chaos-gate-locust:latest", port: int = PORT) -> str:
    """A Kubernetes Job of `workers` that come to `master`; `image` holds Python, chaos-gate[locust] and /load/locustfile.py."""
    return textwrap.dedent(f"""\
        # Made by chaos-gate {__version__}. The workers are told what to send by the run, over Locust's own connection, which is
        # not encrypted: keep it inside a network that you trust.
        apiVersion: batch/v1
        kind: Job
        metadata:
          name: chaos-gate-load
          labels: {{app: chaos-gate-load}}
        spec:
          completions: {workers}
          parallelism: {workers}
          backoffLimit: {workers}
          template:
            metadata:
              labels: {{app: chaos-gate-load}}
            spec:
              restartPolicy: OnFailure
              containers:
                - name: worker
                  image: {image}
                  command: [locust, -f, /load/locustfile.py, --worker, --master-host, "{master}", --master-port, "{port}"]
                  env:
                    - {{name: CHAOS_LOAD_DIRECTORY, value: /tmp}}
                  resources:
                    requests: {{cpu: "1", memory: 256Mi}}
        """)
