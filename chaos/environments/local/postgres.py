"""A PostgreSQL server of our own: TLS only, SCRAM only, on a copy of the template."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from chaos.environments.local.template import ADMIN, APP
from chaos.environments.tls_server import SETTINGS, TlsServer
from chaos.errors import PartFailed
from chaos.processes import free_port, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.environments.local.installation import Installation
    from chaos.environments.local.template import Credentials
    from chaos.processes import Process, Reaper

_SETTINGS = f"listen_addresses = '127.0.0.1'\n{SETTINGS}"


class Postgres(TlsServer):
    """See `chaos.environments.Database`, `ServerControl` and `TlsControl`.

    The administrator's way in is a socket in a directory of its own, which no fault on the network and no certificate closes; the
    application may not use it. `process` is the postmaster, for signals (SIGSTOP, SIGKILL).
    """

    def __init__(
        self,
        *,
        installation: Installation,
        reaper: Reaper,
        home: Path,
        log: Path,
        credentials: Credentials,
        ca_file: Path,
        fsync: bool,
    ) -> None:
        super().__init__()
        self.port = free_port()
        self.version = installation.version
        self.ca_file = ca_file
        self.log = log
        self.app_user, self.app_database, self.app_password = APP, APP, credentials.app
        self.admin_conninfo = (
            f"host={home} port={self.port} user={ADMIN} password={credentials.admin} dbname=postgres connect_timeout=5"
        )
        self.process: Process | None = None
        self._asked_to_stop = True
        self._installation = installation
        self._reaper = reaper
        self._home = home
        self._data = home / "data"
        self._fsync = fsync

    def install_identity(self, chain_file: Path, key_file: Path) -> None:
        """Puts the certificate and its key in place, before the first start; see `use_certificate` for a running server."""
        self._put_identity(chain_file, key_file)
        self._configure()

    def launch(self) -> None:
        """Starts the server and returns at once; `wait` waits for it."""
        argv = [self._installation.tool("postgres"), "-D", str(self._data)]
        self.process = self._reaper.spawn(
            argv,
            name="PostgreSQL",
            cwd=Path("/"),
            env=self._installation.env,
            log=self.log,
            user=self._installation.user,
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )
        self._asked_to_stop = False

    def wait(self, seconds: float = 30.0) -> None:
        """Until it takes connections over TLS, verified against the authority (or in the clear, when TLS was switched off)."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        pid_file = self._data / "postmaster.pid"
        while True:
            with suppress(OSError, IndexError):
                lines = pid_file.read_text(encoding="utf-8").splitlines()
                if lines[7].strip() == "ready" and int(lines[0]) == self.process.pid:  # as pg_ctl does it
                    break
            if (status := self.process.poll()) is not None:
                self._fail(f"did not start: exit status {status}")
            if time.monotonic() > deadline:
                self._fail(f"did not take connections within {seconds:g} s")
            time.sleep(0.005)
        if self._tls:
            _, self.tls_version = self.served()

    def start(self) -> None:
        """Starts it again, on the same data and the same port."""
        if self.process is None or self.process.poll() is not None:
            if self.process is not None:
                self.process.stop()
            self.launch()
            self.wait()

    def stop(self, mode: str = "fast") -> None:
        """Stops it: 'fast' or 'immediate' (no goodbye to clients, recovery at the next start)."""
        if self.process is None:
            return
        self._asked_to_stop = True
        self.process.stop(10, stop_signal={"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self.process = None

    def check(self) -> None:
        """Raises PartFailed when it died and nobody asked it to."""
        if not self._asked_to_stop and self.process is not None and (status := self.process.poll()) is not None:
            self._fail(f"died: exit status {status}")

    def administered(self) -> dict[str, str]:
        """See `chaos.environments.FileControl`."""
        named = {"CERT_FILE": "crt", "KEY_FILE": "key"}
        files = {name: str(self._data / f"server-{self._identity}.{end}") for name, end in named.items()}
        return {
            **files,
            "ADMIN": self.admin_conninfo,
            "SERVER": f"{self.host}:{self.port}",
            "BIN": str(self._installation.bin_dir),
        }

    def _put_identity(self, chain_file: Path, key_file: Path) -> None:
        """Copies of both under new names, so that one change of the configuration swaps both at once."""
        self._identity = max((int(path.stem.split("-")[1]) for path in self._data.glob("server-*.crt")), default=0) + 1
        for source, suffix in ((chain_file, "crt"), (key_file, "key")):
            self._write(f"server-{self._identity}.{suffix}", source.read_bytes())

    def _write(self, name: str, content: bytes) -> None:
        """A file of PostgreSQL's user that nobody else reads, complete from the moment it has its name."""
        making = self._data / f"{name}.new"
        descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        if self._installation.user:
            os.chown(making, *self._installation.user)
        making.rename(self._data / name)

    def _configure(self) -> None:
        flags = {
            "port": str(self.port),
            "unix_socket_directories": f"'{self._home}'",
            "ssl": "on" if self._tls else "off",
            "ssl_cert_file": f"'server-{self._identity}.crt'",
            "ssl_key_file": f"'server-{self._identity}.key'",
            "fsync": "on" if self._fsync else "off",
            "full_page_writes": "on" if self._fsync else "off",
        }
        text = _SETTINGS + "".join(f"{name} = {value}\n" for name, value in flags.items())
        self._write("postgresql.conf", text.encode())
        kind = "hostssl" if self._tls else "host"
        rules = [
            f"local all {ADMIN} scram-sha-256",
            *(f"{kind} all all {net} scram-sha-256" for net in ("127.0.0.1/32", "::1/128")),
        ]
        self._write("pg_hba.conf", "".join(f"{rule}\n" for rule in rules).encode())

    def _reload(self) -> None:
        self._configure()
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGHUP)

    def _runs(self) -> bool:
        return self.process is not None

    def _fail(self, what: str) -> NoReturn:
        raise PartFailed(what, remedy=_remedy(self._words()), where="PostgreSQL", tail=self._words())

    def _words(self) -> tuple[str, ...]:
        return tail(self.log)


def _remedy(words: Sequence[str]) -> str:
    text = "\n".join(words)
    if re.search(r"SSL is not supported|unrecognized configuration parameter \"ssl", text):
        return "use a PostgreSQL that was built with OpenSSL (CHAOS_POSTGRES_BIN)"
    if "No space left" in text:
        return "make room on the disk, or in /dev/shm"
    return "read its last words above; the whole log is in the run's directory"
