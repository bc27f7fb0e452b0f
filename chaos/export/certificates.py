"""An exporter of certificates: when each ends, and whether the server serves what is on its disk.

    chaos-gate export certificates --server db.example.test:5432 --file ca.pem --file list.crl --listen 127.0.0.1:9187

A server is asked as a client asks it, by SSLRequest (PostgreSQL protocol, 'SSL Session Encryption'), and its whole chain is looked
at, trusted or not: to look at a certificate is not to trust it. Files may hold certificates and revocation lists, in PEM, several
in one. Every look happens when Prometheus asks, so a certificate that was replaced a second ago is seen.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chaos.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cryptography import x509
    from prometheus_client.core import GaugeMetricFamily

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
PATIENCE = 5.0  # s for one server
NOT_AFTER = "chaos_certificate_not_after_timestamp_seconds"
PROBE = "chaos_certificate_probe_success"
MATCHES = "chaos_certificate_served_matches_disk"
_BEGINS = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN X509 CRL-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Something that ends: `role` is 'leaf', 'intermediate', 'root' or 'crl'; `not_after` in seconds since the epoch.

    `source` is the server ('localhost:5432') or the file; `fingerprint` the SHA-256 of its DER, in hex.
    """

    source: str
    role: str
    subject: str
    fingerprint: str
    not_after: float


def chain(server: str, *, patience: float = PATIENCE) -> tuple[bytes, ...]:
    """The chain that a PostgreSQL server presents, DER, leaf first. OSError (TimeoutError, ssl.SSLError, ...) when there is none."""
    host, port = _address(server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with socket.create_connection((host, port), timeout=patience) as plain:
        plain.sendall(SSL_REQUEST)
        answer = plain.recv(1)
        if answer != b"S":
            raise ConnectionError(f"it answered {answer!r} to an SSLRequest: it offers no TLS")
        with context.wrap_socket(plain, server_hostname=host) as secure:
            presented = _presented(secure)
            with suppress(OSError):
                secure.unwrap()  # a goodbye, so that the server's log has no reset connection in it
            return presented


def _presented(secure: ssl.SSLSocket) -> tuple[bytes, ...]:
    """Public since Python 3.13; before that the same method of the object below."""
    if hasattr(secure, "get_unverified_chain"):
        return tuple(secure.get_unverified_chain())
    below: Any = secure._sslobj  # type: ignore[attr-defined]  # noqa: SLF001
    return tuple(ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in below.get_unverified_chain() or ())


def _address(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if not colon or not port.isdecimal():
        raise UsageError(f"{server!r} is no HOST:PORT", remedy="name it as in localhost:5432", where="--server")
    return host.strip("[]") or "localhost", int(port)


def of_server(server: str) -> tuple[Ending, ...]:
    """What the server presents. OSError when it presents nothing."""
    from cryptography import x509  # noqa: PLC0415  (0.1 s, and the command line is imported for every command)

    found = [x509.load_der_x509_certificate(der) for der in chain(server)]
    return tuple(_certificate(one, server, "leaf" if place == 0 else _authority(one)) for place, one in enumerate(found))


def of_file(path: Path) -> tuple[Ending, ...]:
    """What a PEM file holds. OSError or ValueError when it cannot be read, or holds nothing of the kind."""
    from cryptography import x509  # noqa: PLC0415

    text = path.read_bytes()
    if not any(begin in text for begin in _BEGINS):
        raise ValueError(f"{path} holds neither a certificate nor a revocation list")
    found = x509.load_pem_x509_certificates(text) if _BEGINS[0] in text else []
    lists = [x509.load_pem_x509_crl(_BEGINS[1] + part) for part in text.split(_BEGINS[1])[1:]]
    ends = [_certificate(one, str(path), _authority(one)) for one in found]
    return (*ends, *(_list(one, str(path)) for one in lists))


def _authority(one: x509.Certificate) -> str:
    from cryptography import x509  # noqa: PLC0415

    if one.subject == one.issuer:
        return "root"
    try:
        signs = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        signs = False
    return "intermediate" if signs else "leaf"


def _certificate(one: x509.Certificate, source: str, role: str) -> Ending:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    return Ending(
        source=source,
        role=role,
        subject=one.subject.rfc4514_string(),
        fingerprint=one.fingerprint(hashes.SHA256()).hex(),
        not_after=one.not_valid_after_utc.timestamp(),
    )


def _list(one: x509.CertificateRevocationList, source: str) -> Ending:
    """Its end is nextUpdate (RFC 5280 5.1.2.5); one without never ends, which no profile of RFC 5280 allows: it ended at once."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    following = one.next_update_utc
    return Ending(
        source=source,
        role="crl",
        subject=one.issuer.rfc4514_string(),
        fingerprint=one.fingerprint(hashes.SHA256()).hex(),
        not_after=following.timestamp() if following else 0.0,
    )


# -- what is exported -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What an exporter looks at. `expect`: server -> the certificate file that it is meant to serve (rows R1 and R5)."""

    servers: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    expect: tuple[tuple[str, Path], ...] = ()

    def look(self) -> tuple[tuple[Ending, ...], dict[str, str]]:
        """All that ends, and source -> why nothing was seen there ('' when something was)."""
        endings: list[Ending] = []
        said: dict[str, str] = {}
        for source, of, subject in [
            *((server, of_server, server) for server in self.servers),
            *((str(path), of_file, path) for path in self.files),
        ]:
            try:
                endings += of(subject)  # type: ignore[operator]
                said[source] = ""
            except (OSError, ValueError) as error:
                said[source] = str(error) or type(error).__name__
        return tuple(endings), said

    def mismatches(self, endings: Iterable[Ending]) -> dict[str, str]:
        """Server -> '' when it serves the leaf on disk, else what was served and what is there."""
        served = {one.source: one.fingerprint for one in endings if one.role == "leaf" and one.source in self.servers}
        return {server: _differs(served.get(server, ""), path) for server, path in self.expect}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For prometheus_client: called at each scrape."""
        from prometheus_client.core import GaugeMetricFamily as Gauge  # noqa: PLC0415

        endings, said = self.look()
        ends = Gauge(
            NOT_AFTER, "When a certificate, or a revocation list, ends", labels=["source", "role", "subject", "fingerprint"]
        )
        for one in {(one.source, one.fingerprint): one for one in endings}.values():
            ends.add_metric([one.source, one.role, one.subject, one.fingerprint], one.not_after)
        probe = Gauge(PROBE, "1 when something was seen there", labels=["source"])
        for source, why in said.items():
            probe.add_metric([source], float(not why))
        matches = Gauge(MATCHES, "1 when the server serves the certificate that is on its disk", labels=["source"])
        for source, how in self.mismatches(endings).items():
            matches.add_metric([source], float(not how))
        yield from (ends, probe, matches)


def _differs(served: str, path: Path) -> str:
    try:
        on_disk = next((one.fingerprint for one in of_file(path)), "")
    except (OSError, ValueError) as error:
        return f"{path}: {error}"
    return "" if served == on_disk else f"it serves {served[:16] or 'nothing'}, and {path} is {on_disk[:16]}"


def exposition(watched: Watched) -> str:
    """The text that Prometheus reads."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

    registry = CollectorRegistry(auto_describe=False)
    registry.register(watched)
    return generate_latest(registry).decode()


def serve(watched: Watched, listen: str) -> None:
    """Serve /metrics for ever. EnvironmentFault when the address is taken."""
    from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415

    host, port = _address(listen)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(watched)
    try:
        _, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot listen: {error.strerror}", remedy="name a free address with --listen", where=listen
        ) from error
    thread.join()


def table(endings: Sequence[Ending], said: dict[str, str], mismatches: dict[str, str]) -> Iterator[str]:
    """For people: what ends when, soonest first, and what is wrong."""
    for one in sorted(endings, key=lambda one: one.not_after):
        days = (one.not_after - time.time()) / 86_400
        left = f"{days:7.1f} days" if days < 10_000 else "   never    "
        yield f"{left}  {one.role:<12}  {one.fingerprint[:16]}  {one.source}  {one.subject}"
    for source, why in said.items():
        if why:
            yield f"NOT SEEN  {source}: {why}"
    for source, how in mismatches.items():
        yield f"NOT SERVED  {source}: {how}" if how else f"served as on disk: {source}"


def await_served(watched: Watched, seconds: float) -> tuple[tuple[Ending, ...], dict[str, str], dict[str, str]]:
    """Look until every server serves what is on its disk, or the time is over: a reload takes a moment. What was seen last."""
    end = time.monotonic() + seconds
    while True:
        endings, said = watched.look()
        mismatches = watched.mismatches(endings)
        if not any((*said.values(), *mismatches.values())) or time.monotonic() >= end:
            return endings, said, mismatches
        time.sleep(0.1)
