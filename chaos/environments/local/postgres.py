"""A PostgreSQL server of our own: TLS only, SCRAM only, on a copy of the template."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from chaos.environments.local.template import ADMIN, APP
from chaos.errors import PartFailed
from chaos.processes import free_port, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.environments.local.installation import Installation
    from chaos.environments.local.template import Credentials
    from chaos.processes import Process, Reaper

# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"

# https://www.postgresql.org/docs/current/runtime-config.html. Dynamic shared memory of kind mmap leaves nothing in /dev/shm.
_SETTINGS = """\
listen_addresses = '127.0.0.1'
max_connections = 40
password_encryption = 'scram-sha-256'
ssl_min_protocol_version = 'TLSv1.2'
dynamic_shared_memory_type = mmap
shared_buffers = 32MB
min_wal_size = 4MB
max_wal_size = 64MB
wal_level = minimal
max_wal_senders = 0
jit = off
logging_collector = off
log_destination = 'stderr'
log_line_prefix = '%m [%p] %q%u@%d '
log_timezone = 'UTC'
log_connections = on
log_disconnections = on
"""


class Postgres:
    """See `chaos.environments.Database`, `ServerControl` and `TlsControl`.

    The administrator's way in is a socket in a directory of its own, which no fault on the network and no certificate closes; the
    application may not use it. `process` is the postmaster, for signals (SIGSTOP, SIGKILL).
    """

    host = "localhost"

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
        self.port = free_port()
        self.version = installation.version
        self.tls_version = ""
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
        self._tls = True
        self._identity = 0

    def database_url(self, port: int | None = None) -> str:
        """A libpq URI for the application, through `port` (a proxy's) when given."""
        root = quote(str(self.ca_file), safe="/")
        place = f"{self.host}:{port or self.port}/{APP}"
        return f"postgresql://{APP}:{self.app_password}@{place}?sslmode=verify-full&sslrootcert={root}"

    def log_offset(self) -> int:
        """Where the log ends now, in bytes."""
        with suppress(OSError):
            return self.log.stat().st_size
        return 0

    def log_since(self, offset: int) -> list[str]:
        """The whole lines of the log after `offset`."""
        with self.log.open("rb") as stream:
            stream.seek(offset)
            data = stream.read()
        return data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()

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

    def use_certificate(self, chain_file: Path, key_file: Path) -> None:
        """Serves this identity from the next connection on, confirmed by the fingerprint that is really served.

        Raises PartFailed, and goes on serving the former identity, when the server will not have it (a key that does not fit,
        or that OpenSSL finds too weak).
        """
        former, offset = self._identity, self.log_offset()
        expected = fingerprint(chain_file)
        self._put_identity(chain_file, key_file)
        self._reload()
        if self.process is None:
            return  # it is down, and will serve it when it starts
        deadline, served = time.monotonic() + 5, ""
        while time.monotonic() < deadline:
            with suppress(OSError):
                served, _ = self.served(verify=False)
            if served == expected:
                return
            if any("SSL configuration was not reloaded" in line for line in self.log_since(offset)):
                break
            time.sleep(0.01)
        words = tuple(self.log_since(offset)[-12:])
        self._identity = former
        self._reload()
        raise PartFailed(
            f"does not serve the certificate {chain_file.name}: it serves {served[:16] or 'none'}, not {expected[:16]}",
            remedy="use one that OpenSSL on the server's side accepts, and its own key",
            where="PostgreSQL",
            tail=words,
        )

    def tls(self, enabled: bool) -> None:
        """Speaks TLS only (True); or plain text only (False), to whoever is willing. Confirmed on the wire."""
        self._tls = enabled
        self._reload()
        deadline = time.monotonic() + 5
        while self.process is not None:
            if self.answer() == (b"S" if enabled else b"N"):
                return
            if time.monotonic() > deadline:
                self._fail(f"did not turn TLS {'on' if enabled else 'off'} within 5 s")
            time.sleep(0.01)

    def answer(self) -> bytes:
        """What it answers to an SSLRequest: b'S', b'N', or b'' when it takes no connections."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain:
                plain.sendall(_SSL_REQUEST)
                return plain.recv(1)
        except OSError:
            return b""

    def served(self, *, verify: bool = True) -> tuple[str, str]:
        """Fingerprint (sha256, hex) of the certificate served now, and the TLS version; fully verified unless told not to."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_ciphers("DEFAULT:@SECLEVEL=0")  # to look at it is not to trust it
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain:
                plain.sendall(_SSL_REQUEST)
                if (answer := plain.recv(1)) != b"S":
                    self._fail(f"does not speak TLS: it answered {answer!r} to an SSLRequest")
                with context.wrap_socket(plain, server_hostname=self.host) as secure:
                    certificate = secure.getpeercert(binary_form=True) or b""
                    seen = hashlib.sha256(certificate).hexdigest(), secure.version() or ""
                    with suppress(OSError):
                        secure.unwrap()  # a goodbye, so that the server's log has no reset connection in it
                    return seen
        except ssl.SSLError as error:
            if verify:
                self._fail(f"does not pass verification: {error}")
            raise

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

    def _fail(self, what: str) -> None:
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


def fingerprint(chain_file: Path) -> str:
    """Sha256, hex, of the first certificate in a PEM file."""
    text = chain_file.read_text(encoding="ascii")
    end = text.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE-----") : end])).hexdigest()
