"""PgBouncer in transaction mode, in front of PostgreSQL: TLS to its clients, and TLS of its own, verified in full, to PostgreSQL.

It is the machine's own program (Debian and Ubuntu: package pgbouncer); where there is none, what needs it is not applicable.
https://www.pgbouncer.org/config.html
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import PartFailed
from chaos.processes import free_port

if TYPE_CHECKING:
    from chaos.certs import Identity
    from chaos.environments.local.postgres import Postgres
    from chaos.processes import Process, Reaper

_SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"])
# Transaction pooling shares sessions, so what a client sets at their start cannot hold: it is taken, and does nothing.
_IGNORED = (
    "extra_float_digits,options,search_path,statement_timeout,lock_timeout,idle_in_transaction_session_timeout,jit,timezone"
)


def program() -> str | None:
    """Where it is; None when it is not installed."""
    return shutil.which("pgbouncer", path=_SEARCHED)


def lacking() -> str:
    """Why there is none here; '' when there is one."""
    return "" if program() else "PgBouncer is not installed on this machine (package pgbouncer)"


class PgBouncer:
    """One server, which clients know as the database `app` at `port`; `upstream` is where its own connections go."""

    def __init__(self, postgres: Postgres, upstream: int, *, home: Path, log: Path, reaper: Reaper, identity: Identity) -> None:
        self.port = free_port()
        self.version = ""
        self._postgres, self._upstream, self._home, self._log, self._reaper = postgres, upstream, home, log, reaper
        self._identity = identity
        self._process: Process | None = None

    def start(self) -> None:
        """Started, and listening; PartFailed otherwise."""
        tool = program()
        if tool is None:
            raise PartFailed("it is not installed", remedy="install the package pgbouncer", where="PgBouncer")
        done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
        self.version = next(iter(re.findall(r"PgBouncer (\S+)", done.stdout)), "")
        user = self._postgres.owner
        self._home.mkdir(mode=0o700)
        files = {
            "server.crt": self._identity.chain_file.read_text("ascii"),
            "server.key": self._identity.key_file.read_text("ascii"),
            "ca.crt": self._postgres.ca_file.read_text("ascii"),
            "users.txt": f'"{self._postgres.app_user}" "{self._postgres.app_password}"\n',
            "pgbouncer.ini": self._settings(),
        }
        for name, text in files.items():
            descriptor = os.open(self._home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(text)
        if user:
            for path in (self._home, *self._home.iterdir()):
                os.chown(path, *user)
        self._process = self._reaper.spawn(
            [tool, str(self._home / "pgbouncer.ini")],
            name="PgBouncer",
            cwd=Path("/"),
            env={"PATH": os.defpath},
            log=self._log,
            user=user,
            stop_signal=signal.SIGTERM,
        )
        self._wait()

    def _settings(self) -> str:
        home, database = self._home, self._postgres.app_database
        return f"""[databases]
{database} = host={self._postgres.host} port={self._upstream} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {home}/users.txt
pool_mode = transaction
max_client_conn = 200
default_pool_size = 20
server_login_retry = 1
server_connect_timeout = 2
query_wait_timeout = 3
ignore_startup_parameters = {_IGNORED}
client_tls_sslmode = require
client_tls_cert_file = {home}/server.crt
client_tls_key_file = {home}/server.key
server_tls_sslmode = verify-full
server_tls_ca_file = {home}/ca.crt
"""

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 5
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    words = self._process.tail()
                    raise PartFailed("did not come up", remedy="read its last words", where="PgBouncer", tail=words) from None
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """Ended, and its files removed."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        shutil.rmtree(self._home, ignore_errors=True)
