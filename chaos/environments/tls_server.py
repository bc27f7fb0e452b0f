"""What any PostgreSQL server of ours can be asked and told over the network, wherever it runs: TLS only, SCRAM only."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from chaos.errors import PartFailed

if TYPE_CHECKING:
    from pathlib import Path

# https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


# https://www.postgresql.org/docs/current/runtime-config.html. Dynamic shared memory of kind mmap leaves nothing in /dev/shm.
# A standby can be made of it at any time (wal_level, max_wal_senders), for fail-over: that cannot be set without a restart.
SETTINGS = """\
max_connections = 40
password_encryption = 'scram-sha-256'
ssl_min_protocol_version = 'TLSv1.2'
dynamic_shared_memory_type = mmap
shared_buffers = 32MB
min_wal_size = 4MB
max_wal_size = 64MB
wal_level = replica
max_wal_senders = 4
wal_keep_size = 32MB
jit = off
logging_collector = off
log_destination = 'stderr'
log_line_prefix = '%m [%p] %q%u@%d '
log_timezone = 'UTC'
log_connections = on
log_disconnections = on
"""


class TlsServer:
    """See `chaos.environments.Database` and `TlsControl`. How its files and its process are reached is the subclass's business.

    `identity` numbers the certificate that is configured: each change is written under a new name, so that one change of the
    configuration swaps certificate and key at once.
    """

    host = "localhost"
    port: int
    ca_file: Path
    log: Path
    app_user: str
    app_password: str
    app_database: str

    def __init__(self) -> None:
        self.tls_version = ""
        self._tls = True
        self._identity = 0

    # -- what a subclass has to say -------------------------------------------------------------------------------------------

    def _put_identity(self, chain_file: Path, key_file: Path) -> None:
        """Copies of both where the server finds them, under the next number."""
        raise NotImplementedError

    def _reload(self) -> None:
        """The configuration as it has to be now, and a SIGHUP when the server runs."""
        raise NotImplementedError

    def _runs(self) -> bool:
        """Whether it was started and not stopped."""
        raise NotImplementedError

    def _fail(self, what: str) -> NoReturn:
        """PartFailed, with the server's last words."""
        raise NotImplementedError

    # -- what follows from it -------------------------------------------------------------------------------------------------

    def database_url(self, port: int | None = None) -> str:
        """A libpq URI for the application, through `port` (a proxy's) when given."""
        root = quote(str(self.ca_file), safe="/")
        place = f"{self.host}:{port or self.port}/{self.app_database}"
        return f"postgresql://{self.app_user}:{self.app_password}@{place}?sslmode=verify-full&sslrootcert={root}"

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

    def use_certificate(self, chain_file: Path, key_file: Path) -> None:
        """Serves this identity from the next connection on, confirmed by the fingerprint that is really served.

        Raises PartFailed, and goes on serving the former identity, when the server will not have it (a key that does not fit,
        or that OpenSSL finds too weak).
        """
        former, offset = self._identity, self.log_offset()
        expected = fingerprint(chain_file)
        self._put_identity(chain_file, key_file)
        self._reload()
        if not self._runs():
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
        while self._runs():
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


def fingerprint(chain_file: Path) -> str:
    """Sha256, hex, of the first certificate in a PEM file."""
    text = chain_file.read_text(encoding="ascii")
    end = text.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE-----") : end])).hexdigest()
