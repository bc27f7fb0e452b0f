"""Where the target's database, network and edge come from: started on this machine, in containers, or attached to.

Every environment fulfils `Environment`. What can be done to its database beyond connecting is a protocol of its own, since a
staging database cannot be stopped and one in a container has no binaries here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from chaos.certs import Authority, Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How the parts of the path find each other, and what that hides.

    `wire` is the address here on which the wire listens, `upstream` what the proxy calls it; `listen` are the places where
    proxies may listen, in order ('address:port'; none: any free port of loopback). `hides`: cases, by id or the beginning of one,
    that cannot be seen in this environment, and why.
    """

    wire: str = "127.0.0.1"
    upstream: str = "127.0.0.1"
    listen: tuple[str, ...] = ()
    hides: Mapping[str, str] = field(default_factory=dict)


class Running(Protocol):
    """Something that was started, as `chaos.processes.Process` is."""

    def poll(self) -> int | None:
        """The exit status; None while it runs."""

    def tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines of its log."""

    def stop(self, timeout: float = 5.0) -> None:
        """End it gently, then not."""

    def kill(self) -> None:
        """End it now."""


class Spawns(Protocol):
    """What starts programs and never forgets one, as `chaos.processes.Reaper` does."""

    def spawn(self, argv: Sequence[str], *, name: str, cwd: Path, env: Mapping[str, str], log: Path) -> Running:
        """Start it, its output appended to `log`."""


class Database(Protocol):
    """A PostgreSQL server that speaks TLS only. `port` is its own, not a proxy's."""

    host: str
    port: int
    admin_conninfo: str
    app_user: str
    app_password: str
    app_database: str
    ca_file: Path
    version: str
    tls_version: str

    def database_url(self, port: int | None = None) -> str:
        """A libpq URI for the application, through `port`, ending in sslmode=verify-full&sslrootcert=..."""

    def log_offset(self) -> int:
        """Where the server's log ends now."""

    def log_since(self, offset: int) -> list[str]:
        """The whole lines of the server's log after `offset`."""


class ServerControl(Protocol):
    """The ability to stop and start the database server."""

    def stop(self, mode: str = "fast") -> None:
        """Stops it: 'fast' rolls back and says goodbye to clients, 'immediate' does not."""

    def start(self) -> None:
        """Starts it again on the same data and port; returns when it takes connections."""


class TlsControl(Protocol):
    """The ability to change what the database server shows its clients."""

    def use_certificate(self, chain_file: Path, key_file: Path) -> None:
        """Serves this identity from the next connection on, confirmed by what is really served."""

    def tls(self, enabled: bool) -> None:
        """Speaks TLS only (True), or plain text only (False)."""


class ControlledDatabase(Database, ServerControl, TlsControl, Protocol):
    """A database that everything can be done to."""


class FileControl(ControlledDatabase, Protocol):
    """A database server on this machine, whose files an administrator (as whom we run) can change."""

    def administered(self) -> dict[str, str]:
        """CERT_FILE and KEY_FILE that it reads now, ADMIN (a conninfo), SERVER (host:port), BIN (the directory of psql)."""

    def served(self, *, verify: bool = True) -> tuple[str, str]:
        """Fingerprint (sha256, hex) of the certificate served now, and the TLS version; fully verified unless told not to."""


class Edge(Protocol):
    """A reverse proxy in front of named upstreams."""

    port: int
    admin_url: str

    def set_weights(self, weights: Mapping[str, int]) -> None:
        """Shares of the requests by upstream's name, from the next request on; 0 sends none."""

    def name_of(self, address: str) -> str:
        """The upstream's name for what an answer says of where it came from; '' when it says nothing."""

    def stop(self) -> None:
        """Ends it."""


class Front(Protocol):
    """A reverse proxy with TLS, HTTP/1.1 and HTTP/2, in front of one origin: on `port` of 127.0.0.1."""

    port: int

    def check(self) -> None:
        """Raises PartFailed or TargetFailed when it died and nobody asked it to."""

    def stop(self) -> None:
        """Ends it."""


class Runner(Spawns, Protocol):
    """Runs a target's image: the image's own command where `argv` is empty."""

    def publish(self, ports: Iterable[int]) -> None:
        """The ports that the target will listen on, to be reached from here."""


class Environment(Protocol):
    """All that a target needs around it. `versions` names the parts for the record."""

    toxiproxy_url: str
    reach: Reach
    versions: dict[str, str]

    @property
    def authority(self) -> Authority:
        """Who signs the certificates of the database, right and wrong."""

    @property
    def postgres(self) -> ControlledDatabase:
        """The database."""

    def start(self) -> None:
        """Makes everything ready; PartMissing or PartFailed otherwise."""

    def stop(self) -> None:
        """Ends and removes everything; CleanupFailed otherwise."""

    def check(self) -> None:
        """Raises PartFailed, naming the part, when one died that nobody asked to."""

    def runner(self, image: str) -> Runner:
        """What runs the target's image beside the database; UsageError where there is no engine."""

    def edge(self, upstreams: Mapping[str, int]) -> Edge:
        """A new edge before these upstreams (ports here by name); all requests go to the first until weights are set."""

    def front(self, origin_port: int, identity: Identity) -> Front:
        """A new edge with TLS before this port of this machine, with this certificate, which holds `localhost` among its names."""
