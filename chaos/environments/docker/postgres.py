"""PostgreSQL in a container: any image with the interface of the official one, TLS only, SCRAM only."""

from __future__ import annotations

import secrets
import signal
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn

import psycopg

from chaos.environments.docker.containers import File, Plan
from chaos.environments.tls_server import SETTINGS, TlsServer
from chaos.errors import PartFailed
from chaos.processes import free_port, tail

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.environments.docker.containers import Containers, Running

ADMIN, APP = "chaos_admin", "app"
_HOME = PurePosixPath("/etc/chaos-gate")
_INSIDE = 5432  # where it listens when its port is a published one
_START = 60.0  # s from the start to the first session; initdb is the most of it


# The files that we put in belong to root, and PostgreSQL refuses a key of another user's. The image's entry point does the rest.
_ENTRY = f'chown -R postgres {_HOME} && chmod 700 {_HOME} && exec docker-entrypoint.sh "$@"'


class ContainerPostgres(TlsServer):
    """See `chaos.environments.Database`, `ServerControl` and `TlsControl`.

    The administrator comes in plaintext over loopback (SCRAM keeps the password to itself): no certificate and no TLS fault closes
    that way, and the application may not use it.
    """

    def __init__(
        self, *, containers: Containers, image: str, log: Path, ca_file: Path, fsync: bool, host: str = "localhost"
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.host = host
        self.version = ""
        self.ca_file = ca_file
        self.log = log
        self.app_user, self.app_database, self.app_password = APP, APP, secrets.token_urlsafe(18)
        self._admin_password = secrets.token_urlsafe(18)
        self.admin_conninfo = (
            f"host=127.0.0.1 port={self.port} user={ADMIN} password={self._admin_password} dbname=postgres "
            "sslmode=disable gssencmode=disable connect_timeout=5"
        )
        self.container: Running | None = None
        self._containers = containers
        self._image = image
        self._fsync = fsync
        self._published = containers.network != "host"
        self._stopped = False
        self._first: list[File] = []
        self._owner = (0, 0)

    def install_identity(self, chain_file: Path, key_file: Path) -> None:
        """The certificate and its key for the first start; see `use_certificate` for a running server."""
        self._put_identity(chain_file, key_file)

    def launch(self) -> None:
        """Makes the container and starts it; returns at once. `wait` waits for it."""
        # token_urlsafe needs no quoting.
        roles = f"CREATE ROLE {APP} LOGIN PASSWORD '{self.app_password}';\nCREATE DATABASE {APP} OWNER {APP};\n"
        files = [*self._first, *self._configuration(), File(path="/docker-entrypoint-initdb.d/app.sql", content=roles.encode())]
        options = {"config_file": _HOME / "postgresql.conf", "hba_file": _HOME / "pg_hba.conf"}
        self.container = self._containers.start(
            Plan(
                image=self._image,
                name="PostgreSQL",
                log=self.log,
                entrypoint=["/bin/sh", "-c", _ENTRY, "--"],
                command=["postgres", *(word for name, value in options.items() for word in ("-c", f"{name}={value}"))],
                env={
                    "POSTGRES_USER": ADMIN,
                    "POSTGRES_PASSWORD": self._admin_password,
                    "POSTGRES_DB": "postgres",
                    "POSTGRES_INITDB_ARGS": "--auth=scram-sha-256 --encoding=UTF8 --wal-segsize=1 --no-sync",
                },
                files=files,
                ports=[(_INSIDE, self.port)] if self._published else [],
                aliases=["postgres"],
            )
        )

    def wait(self, seconds: float = _START) -> None:
        """Until the administrator gets a session, and TLS is served and verified (or not, when it was switched off)."""
        assert self.container is not None
        deadline = time.monotonic() + seconds
        while True:
            try:
                with psycopg.connect(self.admin_conninfo, autocommit=True) as session:
                    self.version = str(session.info.parameter_status("server_version") or "").split()[0]
                break
            except psycopg.OperationalError as error:
                if (status := self.container.poll()) is not None:
                    self._fail(f"did not start: exit status {status}")
                if time.monotonic() > deadline:
                    self._fail(f"did not take connections within {seconds:g} s: {str(error).strip().splitlines()[-1]}")
                time.sleep(0.02)
        if not self._first_owner():
            self._fail("its files have an owner that cannot be read")
        if self._tls:
            _, self.tls_version = self.served()

    def start(self) -> None:
        """Starts it again, on the same data and the same port."""
        assert self.container is not None
        if self._stopped or self.container.poll() is not None:
            self.container.again()
            self._stopped = False
            self.wait()

    def stop(self, mode: str = "fast") -> None:
        """Stops it: 'fast' or 'immediate' (no goodbye to clients, recovery at the next start). The container stays, stopped."""
        if self.container is None or self._stopped:
            return
        self._stopped = True
        self.container.signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        if self.container.wait(10) is None:
            self.container.signal(signal.SIGKILL)
            self.container.wait(10)

    def check(self) -> None:
        """Raises PartFailed when it died and nobody asked it to."""
        if self.container is not None and not self._stopped and (status := self.container.poll()) is not None:
            self._fail(f"died: exit status {status}")

    # -- how its files and its process are reached --------------------------------------------------------------------------------

    def _first_owner(self) -> bool:
        """The uid and gid of the image's `postgres`, read from what the entry point gave it."""
        if self._owner == (0, 0) and self.container is not None:
            self._owner = self.container.owner_of(str(_HOME / "postgresql.conf"))
        return self._owner != (0, 0)

    def _file(self, name: str, content: bytes, mode: int = 0o600) -> File:
        return File(path=str(_HOME / name), content=content, mode=mode, uid=self._owner[0], gid=self._owner[1])

    def _put_identity(self, chain_file: Path, key_file: Path) -> None:
        self._identity += 1
        files = [
            self._file(f"server-{self._identity}.{suffix}", source.read_bytes())
            for source, suffix in ((chain_file, "crt"), (key_file, "key"))
        ]
        if self.container is None:
            self._first = files
        else:
            self.container.put(files)

    def _configuration(self) -> list[File]:
        flags = {
            "listen_addresses": "'*'" if self._published else "'127.0.0.1'",
            "port": str(_INSIDE if self._published else self.port),
            "ssl": "on" if self._tls else "off",
            "ssl_cert_file": f"'{_HOME}/server-{self._identity}.crt'",
            "ssl_key_file": f"'{_HOME}/server-{self._identity}.key'",
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
        }
        settings = SETTINGS + "".join(f"{name} = {value}\n" for name, value in flags.items())
        rules = [
            f"local all {ADMIN} scram-sha-256",
            f"hostnossl all {ADMIN} all scram-sha-256",
            f"{'hostssl' if self._tls else 'host'} all all all scram-sha-256",
        ]
        return [
            self._file("postgresql.conf", settings.encode()),
            self._file("pg_hba.conf", "".join(f"{rule}\n" for rule in rules).encode()),
        ]

    def _reload(self) -> None:
        assert self.container is not None
        self.container.put(self._configuration())
        if not self._stopped:
            self.container.signal(signal.SIGHUP)

    def _runs(self) -> bool:
        return self.container is not None and not self._stopped

    def _fail(self, what: str) -> NoReturn:
        words = self.container.tail() if self.container is not None else tail(self.log)
        text = "\n".join(words)
        remedy = "read its last words above; chaos-gate has to share the network of the machine (docker run --network host)"
        if "No space left" in text:
            remedy = "make room where the engine keeps its data (docker system df; docker system prune)"
        elif "Address already in use" in text or "could not bind" in text:
            remedy = "run again when that was a coincidence; otherwise see who listens on its port (ss -ltnp)"
        elif words:
            remedy = "read its last words above"
        raise PartFailed(what, remedy=remedy, where="PostgreSQL", tail=words)
