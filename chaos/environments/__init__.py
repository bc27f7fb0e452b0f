"""Where the target's database, network and edge come from: started on this machine, in containers, or attached to.

Every environment fulfils `Environment`. What can be done to its database beyond connecting is a protocol of its own, since a
staging database cannot be stopped and one in a container has no binaries here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chaos.certs import Authority


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


class Environment(Protocol):
    """All that a target needs around it. `versions` names the parts for the record."""

    authority: Authority
    toxiproxy_url: str
    versions: dict[str, str]

    @property
    def postgres(self) -> ControlledDatabase:
        """The database."""

    def start(self) -> None:
        """Makes everything ready; PartMissing or PartFailed otherwise."""

    def stop(self) -> None:
        """Ends and removes everything; CleanupFailed otherwise."""

    def check(self) -> None:
        """Raises PartFailed, naming the part, when one died that nobody asked to."""

    def edge(self, upstreams: Mapping[str, int]) -> Edge:
        """A new edge before these upstreams (ports here by name); all requests go to the first until weights are set."""
