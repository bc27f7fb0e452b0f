"""The certificates that the database serves: how many days they are good for, and whether they are the pinned ones.

libpq verifies the chain on every connection, but hands neither it nor its dates out. So the health check looks for itself now and then:
the same SSLRequest and the same verification (CA file, name), nothing after the handshake.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.conninfo import conninfo_to_dict

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # PostgreSQL documentation, 53.7: Int32(8), Int32(80877103)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A verified chain. `days` until its first certificate expires; `pins`: base64(SHA-256(SubjectPublicKeyInfo)) (RFC 7469, 2.4)."""

    days: float
    pins: tuple[str, ...]

    def pinned(self, wanted: tuple[str, ...]) -> bool:
        """Whether one of the wanted keys is in it. No wish, no objection."""
        return not wanted or any(pin in wanted for pin in self.pins)


async def served_chain(database_url: str, *, timeout: float = 2.0) -> Chain:  # noqa: ASYNC109  (one bound for several steps)
    """Look at the chain that the database serves now. Raises OSError (ssl.SSLError is one) or TimeoutError."""
    given = conninfo_to_dict(database_url)
    host = str(given.get("host") or "localhost")
    port = int(str(given.get("port") or 5432))
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_connection(str(given.get("hostaddr") or host), port)
        try:
            writer.write(_SSL_REQUEST)
            await writer.drain()
            if await reader.read(1) != b"S":
                raise ConnectionError("the database offers no TLS")
            await writer.start_tls(_context(given), server_hostname=host)
            return _read(writer.get_extra_info("ssl_object"))
        finally:
            with contextlib.suppress(OSError):
                writer.transport.abort()


def _context(given: dict[str, Any]) -> ssl.SSLContext:
    root = given.get("sslrootcert")
    context = ssl.create_default_context(cafile=None if root == "system" else str(root))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read(tls: ssl.SSLObject) -> Chain:
    from cryptography import x509  # noqa: PLC0415  (80 ms that the start need not wait for)
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415  (the same)

    certificates = [x509.load_der_x509_certificate(der) for der in _verified(tls)]
    ends = min(certificate.not_valid_after_utc for certificate in certificates)
    keys = [c.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for c in certificates]
    pins = tuple(base64.b64encode(hashlib.sha256(key).digest()).decode() for key in keys)
    return Chain(days=(ends - datetime.now(tz=UTC)).total_seconds() / 86_400, pins=pins)


def _verified(tls: Any) -> list[bytes]:  # Any: the method is public from Python 3.13 on, and typed only there
    if hasattr(tls, "get_verified_chain"):
        return list(tls.get_verified_chain())
    try:
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in tls._sslobj.get_verified_chain()]  # noqa: SLF001
    except AttributeError:
        return [tls.getpeercert(binary_form=True)]
