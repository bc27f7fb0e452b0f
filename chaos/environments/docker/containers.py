"""Containers of one worker: started with testcontainers, owned by a label, gone in the end.

Before one is made, the watchdog is told how to remove it; so it goes when the worker dies without a word. What even that misses
(a watchdog killed as well) is swept by the next run: see `chaos.environments.docker.labels`.
"""

from __future__ import annotations

import io
import itertools
import re
import signal
import tarfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.environments.docker.engine import told
from chaos.environments.docker.labels import labels, remove
from chaos.errors import CleanupFailed
from chaos.processes import tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from docker.models.containers import Container

    from chaos.environments.docker.engine import Engine
    from chaos.processes import Reaper

_GONE = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file to be put into a container: its path there, what is in it, and who may do what with it."""

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A container to be made. `ports` are (inside, outside) on 127.0.0.1; `shared` are directories of ours, seen there as here.

    `cwd` is where the program starts, None for the image's own place.
    """

    image: str
    name: str
    log: Path
    command: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[File] = ()
    shared: Sequence[Path] = ()
    cwd: Path | None = None
    ports: Sequence[tuple[int, int]] = ()
    aliases: Sequence[str] = ()


class Running:
    """One container, as `chaos.processes.Process` is one process: poll, tail, kill, stop. Its output is appended to a log here."""

    def __init__(self, container: Container, plan: Plan, forget: Callable[[Running], None]) -> None:
        self.name = plan.name
        self.log = plan.log
        self._container = container
        self._forget = forget
        self._gone = False
        self._follow(since=None)

    def poll(self) -> int | None:
        """The exit status (128 and the number of the signal that ended it), or None while it runs."""
        from docker.errors import NotFound  # noqa: PLC0415

        if self._gone:
            return _GONE
        try:
            with told(f"{self.name}: its state could not be asked for"):
                try:
                    state = self._container.client.api.inspect_container(self._container.id)["State"]
                except NotFound:
                    return _GONE
        except TimeoutError:
            return None
        return int(state["ExitCode"]) if state["Status"] in {"exited", "dead"} else None

    def wait(self, seconds: float) -> int | None:
        """Waits for it to end by itself; the exit status, or None when it still runs."""
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        self._followed(2.0 if status is not None else 0.0)
        return status

    def tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of its output, oldest first."""
        if self.poll() is not None:
            self._followed(2.0)
        return tail(self.log, lines)

    def signal(self, number: int) -> None:
        """A signal to its first process; nothing when it has ended."""
        from docker.errors import APIError  # noqa: PLC0415

        with suppress(APIError):
            self._container.kill(signal=number)

    def again(self) -> None:
        """Start it again, with everything that is in it."""
        self._followed(2.0)
        since = time.time()
        with told(f"{self.name} could not be started again"):
            self._container.start()
        self._follow(since=since)

    def put(self, files: Sequence[File]) -> None:
        """Files into it, running or not."""
        with told(f"files could not be put into {self.name}"):
            self._container.put_archive("/", archive(files))

    def owner_of(self, path: str) -> tuple[int, int]:
        """Uid and gid of a file in it."""
        with told(f"{self.name}: {path} cannot be read"):
            chunks, _ = self._container.get_archive(path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as found:
                first = found.getmembers()[0]
        return first.uid, first.gid

    def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """A command inside it: exit status and output."""
        with told(f"{self.name}: {argv[0]} could not be run in it"):
            done = self._container.exec_run(list(argv))
        return int(done.exit_code or 0), bytes(done.output or b"").decode("utf-8", "replace")

    def kill(self) -> None:
        """Remove it now; CleanupFailed when that cannot be done."""
        if self._gone:
            return
        with told(f"{self.name} could not be removed"):
            gone = remove(self._container.client, str(self._container.id))
        if not gone:
            raise CleanupFailed(
                f"{self.name} could not be removed", remedy=f"docker rm -f {self._container.name}", tail=self.tail()
            )
        self._followed(2.0)
        self._gone = True
        self._forget(self)

    def stop(self, timeout: float = 5.0) -> None:
        """Its stop signal, SIGKILL to what is left after `timeout` seconds, and away with it."""
        from docker.errors import APIError  # noqa: PLC0415

        if self._gone:
            return
        with told(f"{self.name} could not be stopped"), suppress(APIError):
            self._container.stop(timeout=max(1, round(timeout)))
        self.kill()

    def _follow(self, since: float | None) -> None:
        self._follower = threading.Thread(target=self._write, args=(since,), name=f"log:{self.name}", daemon=True)
        self._follower.start()

    def _followed(self, seconds: float) -> None:
        self._follower.join(seconds)

    def _write(self, since: float | None) -> None:
        with suppress(Exception), self.log.open("ab", buffering=0) as stream:  # the engine may go while we read
            options: dict[str, Any] = {"since": since} if since else {}
            for chunk in self._container.logs(stream=True, follow=True, **options):
                stream.write(chunk)


class Containers:
    """Makes containers for one worker and never forgets one. `network` is 'host', or the name of a network that is there."""

    def __init__(
        self,
        *,
        engine: Engine,
        reaper: Reaper,
        run_id: str,
        worker: str,
        network: str,
        platform: str | None = None,
        ryuk: bool = False,
    ) -> None:
        from testcontainers.core.config import testcontainers_config  # noqa: PLC0415  # heavy

        testcontainers_config.ryuk_disabled = not ryuk
        self.engine = engine
        self.network = network
        self.run_id = run_id
        self._reaper = reaper
        self._prefix = f"chaos-gate-{run_id}-{worker or 'main'}"
        self._platform = platform
        self._numbers = itertools.count(1)
        self._alive: list[Running] = []

    def start(self, plan: Plan) -> Running:
        """Make and start it. PartMissing when its image is not there, PartFailed when it does not start; nothing is left then."""
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415  # heavy

        plain = re.sub(r"[^a-z0-9]+", "-", plan.name.lower()).strip("-")
        name = f"{self._prefix}-{plain}-{next(self._numbers)}"
        container = DockerContainer(plan.image).with_name(name).with_envs(**plan.env).with_kwargs(**self._options(plan))
        if plan.command:
            container.with_command(list(plan.command))
        for path in plan.shared:
            container.with_volume_mapping(path, str(path), "rw")
        published: dict[str, Any] = {f"{inside}/tcp": ("127.0.0.1", outside) for inside, outside in plan.ports}
        container.ports.update(published)
        for file in plan.files:
            container.with_copy_into_container(file.content, file.path, file.mode)
        self.arm(f"/containers/{name}?force=true&v=true", name)
        try:
            with told(f"{plan.name} could not be started", where=plan.name):
                container.start()
        except BaseException:
            if remove(self.engine.client, name):
                self.disarm(name)
            raise

        def forget(one: Running) -> None:
            self._alive.remove(one)
            self.disarm(name)

        made = self.engine.client.containers.get(container.get_container_id())
        container.get_docker_client().client.close()  # one a container would be one too many
        running = Running(made, plan, forget)
        self._alive.append(running)
        return running

    def arm(self, path: str, key: str) -> None:
        """A removal, to be asked of the engine by the watchdog should this worker die."""
        if self.engine.url:
            self._reaper.arm(f"docker {key}", "DELETE", self.engine.url + path)

    def disarm(self, key: str) -> None:
        """It was removed."""
        if self.engine.url:
            self._reaper.disarm(f"docker {key}")

    def close(self) -> list[str]:
        """Remove all that are left, the last first; what could not be done."""
        failures: list[str] = []
        for running in reversed(list(self._alive)):
            try:
                running.kill()
            except CleanupFailed as error:
                failures.append(error.what)
        return failures

    def _options(self, plan: Plan) -> dict[str, Any]:
        from docker.types import LogConfig  # noqa: PLC0415

        options: dict[str, Any] = {
            "labels": labels(self.run_id),
            "network": self.network,
            "log_config": LogConfig(type="json-file"),  # whatever the engine's default is: we read it
        }
        if plan.entrypoint:
            options["entrypoint"] = list(plan.entrypoint)
        if plan.cwd:
            options["working_dir"] = str(plan.cwd)
        if self._platform:
            options["platform"] = self._platform
        if self.network != "host":
            options["networking_config"] = {
                self.network: self.engine.client.api.create_endpoint_config(aliases=list(plan.aliases))
            }
            options["extra_hosts"] = {"host.docker.internal": "host-gateway"}
        return options


def archive(files: Sequence[File]) -> bytes:
    """A tar of these files."""
    room = io.BytesIO()
    with tarfile.open(fileobj=room, mode="w") as made:
        for file in files:
            entry = tarfile.TarInfo(file.path.lstrip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(file.content), file.mode, file.uid, file.gid
            entry.mtime = int(time.time())
            made.addfile(entry, io.BytesIO(file.content))
    return room.getvalue()
