"""An environment of containers, one a worker: PostgreSQL, Toxiproxy, edges on demand, and what runs a target that is an image.

On Linux they share the host's network: a reset and a refusal are then seen as they are. On a network of their own ('bridge': Docker
Desktop, or asked for) they are reached through published ports, which turn a reset into a close and accept for a proxy that is
disabled; what needs those is then said to be not applicable (`hides`).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from chaos.environments import Reach
from chaos.environments.docker import engine as engines
from chaos.environments.docker.containers import Containers, Plan
from chaos.environments.docker.labels import finish, labels, remove, sweep
from chaos.environments.docker.postgres import ContainerPostgres
from chaos.environments.local.edge import CaddyEdge, find_caddy
from chaos.environments.local.front import Front, caddy
from chaos.environments.local.server import ToxiproxyServer
from chaos.errors import CleanupFailed
from chaos.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chaos.certs import Authority, Identity
    from chaos.environments.docker.containers import Running
    from chaos.environments.docker.engine import Engine
    from chaos.processes import Reaper

IMAGES = {
    "postgres_image": ("CHAOS_POSTGRES_IMAGE", "postgres:17.10"),
    "toxiproxy_image": ("CHAOS_TOXIPROXY_IMAGE", "ghcr.io/shopify/toxiproxy:2.12.0"),
    "edge_image": ("CHAOS_EDGE_IMAGE", "caddy:2.11.7"),
}
ALIAS = "chaos-gate-database"  # what a target in the same network calls the proxy: in the server's certificate
PUBLISHED = "a published port turns a reset into a close, and accepts for a proxy that is disabled"
_PROXIES = 2  # the path and its twin


class Settings(Protocol):
    """What of `[environment]` in chaos.toml concerns containers."""

    @property
    def fsync(self) -> bool:
        """Whether PostgreSQL forces its writes to the disk."""

    @property
    def postgres_image(self) -> str | None:
        """None for the default; the same for the others."""

    @property
    def toxiproxy_image(self) -> str | None:
        """See `postgres_image`."""

    @property
    def edge_image(self) -> str | None:
        """See `postgres_image`."""

    @property
    def platform(self) -> str | None:
        """Such as 'linux/arm64'; None for the engine's own."""

    @property
    def docker_network(self) -> str | None:
        """'host' or 'bridge'; None for what shows most here."""

    @property
    def ryuk(self) -> bool:
        """Whether testcontainers' own reaper runs beside ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerSettings:
    """The defaults."""

    fsync: bool = False
    postgres_image: str | None = None
    toxiproxy_image: str | None = None
    edge_image: str | None = None
    platform: str | None = None
    docker_network: str | None = None
    ryuk: bool = False


def image(settings: Settings, key: str) -> str:
    """The image for a key of [environment]: the variable of `IMAGES`, else what the file says, else the default."""
    variable, default = IMAGES[key]
    return os.environ.get(variable) or getattr(settings, key) or default


def provide(settings: Settings, target: str | None, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Finds the engine, sweeps what dead runs left, and gets the images before several workers ask for them."""
    engine = engines.find()
    swept = sweep(engine.client)
    if swept.removed:
        say(f"removed of runs that are dead: {', '.join(swept.removed)}")
    names = [image(settings, key) for key in IMAGES] + [name for name in (target, _ryuk_image(settings)) if name]
    for name in names:
        _pull(engine, name, settings.platform, say)


def release(run_id: str) -> None:
    """The last look at a run that has ended: CleanupFailed when something of it is left in the engine."""
    if left := finish(engines.connect(), run_id):
        raise CleanupFailed(f"left in the engine: {', '.join(left)}", remedy="chaos-gate doctor --sweep", where="Docker")


def _pull(engine: Engine, name: str, platform: str | None, say: Callable[[str], None]) -> None:
    from docker.errors import ImageNotFound  # noqa: PLC0415  # late: not every run has an engine

    with engines.told(f"image {name}"):
        try:
            engine.client.images.get(name)
        except ImageNotFound:
            say(f"pulling the image {name} (once)")
            with engines.told(f"image {name}", pulling=name):
                engine.client.images.pull(*_split(name), platform=platform)


def _split(name: str) -> tuple[str, str | None]:
    """Repository and tag ('latest' where none is given: the client would otherwise fetch every tag there is)."""
    if "@" in name:
        return name, None
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


class _Programs:
    """Starts programs of an image in containers, with the signature of `Reaper.spawn`: what starts a process starts a container.

    `shared` are directories seen in the container as here.
    """

    def __init__(
        self,
        containers: Containers,
        name: str,
        *,
        shared: Sequence[Path] = (),
        ports: Sequence[tuple[int, int]] = (),
        aliases: Sequence[str] = (),
    ) -> None:
        self.containers = containers
        self.image = name
        self.shared = shared
        self.ports = ports
        self.aliases = aliases

    def spawn(self, argv: Sequence[str], *, name: str, cwd: Path, env: Mapping[str, str], log: Path) -> Running:
        """The container, started. PartMissing or PartFailed otherwise. `cwd` is the image's own unless it is shared."""
        return self.containers.start(
            Plan(
                image=self.image,
                name=name,
                log=log,
                command=argv,
                env=env,
                shared=self.shared,
                cwd=cwd if cwd in self.shared else None,
                ports=self.ports,
                aliases=self.aliases,
            )
        )


class ImageRunner(_Programs):
    """Runs a target's image: `start` with the image's own command, `setup` commands in its place. `ports` are set when known."""

    def spawn(self, argv: Sequence[str], *, name: str, cwd: Path, env: Mapping[str, str], log: Path) -> Running:
        """The image's own entry point and command when `argv` is empty; else that, instead of both."""
        del cwd
        return self.containers.start(
            Plan(
                image=self.image,
                name=name,
                log=log,
                entrypoint=argv[:1],
                command=argv[1:],
                env=env,
                shared=self.shared,
                ports=self.ports if not argv else (),
            )
        )

    def publish(self, ports: Iterable[int]) -> None:
        """On a bridge: the same ports outside as inside."""
        if self.containers.network != "host":
            self.ports = [(port, port) for port in ports]


class DockerEnvironment:
    """See `chaos.environments.Environment`. `run_dir` (its folder `worker`) gets logs and certificates, and belongs to the caller."""

    authority: Authority
    postgres: ContainerPostgres

    def __init__(
        self,
        *,
        reaper: Reaper,
        run_dir: Path,
        run_id: str,
        settings: Settings | None = None,
        worker: str = "",
        target: str | None = None,
    ) -> None:
        self.run_dir = run_dir / worker
        self.toxiproxy_url = ""
        self.versions: dict[str, str] = {}
        self.reach = Reach()
        self._reaper = reaper
        self._run_id = run_id
        self._worker = worker
        self._settings: Settings = settings or DockerSettings()
        self._target = target
        self._containers: Containers | None = None
        self._network = ""
        self._postgres: ContainerPostgres | None = None
        self._toxiproxy: ToxiproxyServer | None = None
        self._edges: list[CaddyEdge | Front] = []

    def start(self) -> None:
        """Makes PostgreSQL and Toxiproxy ready, side by side; PartMissing or PartFailed otherwise, with nothing left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        from chaos.certs import Authority  # noqa: PLC0415  # 0.1 s

        self.run_dir.mkdir(parents=True, exist_ok=True)
        engine = engines.find()
        kind = self._settings.docker_network or ("host" if engine.host_network else "bridge")
        containers = self._containers = Containers(
            engine=engine,
            reaper=self._reaper,
            run_id=self._run_id,
            worker=self._worker,
            platform=self._settings.platform,
            network=kind,
            ryuk=self._settings.ryuk,
        )
        host = "localhost"
        if kind == "bridge":
            host = ALIAS if self._target else "localhost"
            self._make_network(containers)
        self._start_toxiproxy(containers)
        names = dict.fromkeys((host, "localhost", "127.0.0.1", "chaos-gate.probe"))
        self.authority = Authority.create(self.run_dir / "certs", hosts=tuple(names))
        self.authority.directory.chmod(0o755)  # the target's own user has to get to the authority's certificate
        identity = self.authority.issue("valid")
        self._postgres = self.postgres = ContainerPostgres(
            containers=containers,
            image=image(self._settings, "postgres_image"),
            log=self.run_dir / "postgres.log",
            ca_file=self.authority.ca_file,
            fsync=self._settings.fsync,
            host=host,
        )
        self.postgres.install_identity(identity.chain_file, identity.key_file)
        self.postgres.launch()
        assert self._toxiproxy is not None
        self._toxiproxy.wait()
        self.postgres.wait()
        self.versions = {
            "PostgreSQL": self.postgres.version,
            "Toxiproxy": self._toxiproxy.version,
            "Docker": f"{engine.version} ({kind} network)",
        }

    def _make_network(self, containers: Containers) -> None:
        """A bridge of this worker's own, and how the wire and the proxies are reached from it."""
        client, name = containers.engine.client, f"chaos-gate-{self._run_id}-{self._worker or 'main'}"
        containers.arm(f"/networks/{name}", name)
        self._network = name
        with engines.told("a network could not be made"):
            made = client.networks.create(name, driver="bridge", labels=labels(self._run_id))
            made.reload()
        containers.network = name
        gateway = str(made.attrs["IPAM"]["Config"][0]["Gateway"])
        ports = tuple(free_port() for _ in range(_PROXIES))
        listen = tuple(f"0.0.0.0:{port}" for port in ports)
        if containers.engine.host_network:  # the gateway's address is one of this machine's
            self.reach = Reach(wire=gateway, upstream=gateway, listen=listen, hides=_hidden())
        else:
            self.reach = Reach(upstream="host.docker.internal", listen=listen, hides=_hidden())

    def _start_toxiproxy(self, containers: Containers) -> None:
        published = containers.network != "host"
        ports = [(int(place.rpartition(":")[2]),) * 2 for place in self.reach.listen]
        programs = _Programs(containers, image(self._settings, "toxiproxy_image"), aliases=[ALIAS])
        self._toxiproxy = ToxiproxyServer(
            binary=None,
            reaper=programs,
            directory=self.run_dir,
            address="0.0.0.0" if published else "127.0.0.1",  # noqa: S104  # in the container
        )
        programs.ports = [(self._toxiproxy.port,) * 2, *ports] if published else []
        self._toxiproxy.launch()
        self.toxiproxy_url = self._toxiproxy.url

    def stop(self) -> None:
        """Removes everything of this environment from the engine; CleanupFailed, having tried it all."""
        failures: list[str] = []
        containers = self._containers
        for edge in reversed(self._edges):
            try:
                edge.stop()
            except CleanupFailed as error:
                failures.append(error.what)
        if containers is not None:
            failures += containers.close()
            if self._network:
                if remove(containers.engine.client, self._network, kind="network"):
                    containers.disarm(self._network)
                else:
                    failures.append(f"network {self._network} could not be removed")
        self._edges, self._toxiproxy, self._postgres, self._containers, self._network = [], None, None, None, ""
        if failures:
            raise CleanupFailed("; ".join(failures), remedy="chaos-gate doctor --sweep", where="docker environment")

    def check(self) -> None:
        """Raises PartFailed, naming the part, when one died that nobody asked to."""
        for part in (self._postgres, self._toxiproxy, *self._edges):
            if part is not None:
                part.check()

    def edge(self, upstreams: Mapping[str, int]) -> CaddyEdge:
        """A new edge before these upstreams (ports here by name); all requests go to the first until weights are set.

        On a bridge it is a process here, since what it is in front of is published here.
        """
        assert self._containers is not None
        directory = Path(tempfile.mkdtemp(prefix="edge-", dir=self.run_dir))
        if self._containers.network == "host":
            programs = _Programs(self._containers, image(self._settings, "edge_image"), shared=[directory])
            edge = CaddyEdge(upstreams, reaper=programs, directory=directory, program="caddy")
        else:
            edge = CaddyEdge(upstreams, reaper=self._reaper, directory=directory, program=str(find_caddy()))
        self._edges.append(edge)
        return edge

    def front(self, origin_port: int, identity: Identity) -> Front:
        """A new edge with TLS before this port, which is one of this machine: on a bridge it is a process here too."""
        assert self._containers is not None
        directory = Path(tempfile.mkdtemp(prefix="front-", dir=self.run_dir))
        if self._containers.network == "host":
            programs = _Programs(self._containers, image(self._settings, "edge_image"), shared=[directory])
            front = caddy(origin_port, identity, reaper=programs, directory=directory, program="caddy")
        else:
            front = caddy(origin_port, identity, reaper=self._reaper, directory=directory)
        self._edges.append(front)
        return front

    def runner(self, name: str) -> ImageRunner:
        """What runs the target's image beside the database."""
        assert self._containers is not None
        return ImageRunner(self._containers, name, shared=[self.run_dir])


def _hidden() -> dict[str, str]:
    names = ("network.refused", "network.reset", "cross.refused", "cross.reset", "flapping")
    return dict.fromkeys(names, f"{PUBLISHED}: use the host network")


def _ryuk_image(settings: Settings) -> str:
    """The image of testcontainers' own reaper; '' where it is not wanted."""
    if not settings.ryuk:
        return ""
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415  # heavy

    return str(testcontainers_config.ryuk_image)
