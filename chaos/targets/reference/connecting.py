"""How a connection to the database is made, and into which class its failure falls."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chaos.targets.reference.chain import served_chain
from chaos.targets.reference.pool import Link

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from chaos.targets.reference.settings import Settings

# What libpq says, and the class it counts under. libpq reports no SQLSTATE for a connection that failed, so its text has to do.
_CLASSES = (
    ("certificate", "tls"),
    ("SSL", "tls"),
    ("channel binding", "authentication"),
    ("authentication", "authentication"),
    ("timeout expired", "timeout"),
    ("timed out", "timeout"),
    ("refused", "refused"),
    ("too many clients", "too_many_connections"),
    ("connection slots", "too_many_connections"),
    ("starting up", "not_accepting"),
    ("shutting down", "not_accepting"),
    ("recovery", "not_accepting"),
    ("translate host name", "name"),
    ("resolve host", "name"),
    ("read-only", "read_only"),
    ("reset by peer", "reset"),
    ("closed the connection", "closed"),
)
CLASSES = (*dict.fromkeys(name for _, name in _CLASSES), "other")


def failure_class(error: Exception) -> str:
    """One word for why no connection came: what /metrics counts and the log says. An exception's own text goes nowhere."""
    if isinstance(error, TimeoutError | psycopg.errors.ConnectionTimeout):
        return "timeout"
    if isinstance(error, ssl.SSLError):
        return "tls"
    text = str(error)
    # 'SSL SYSCALL error: Connection reset by peer' is the network's doing, and so is an end of file inside the handshake.
    if "SSL SYSCALL" in text or "SSL error: unexpected eof" in text:
        return "reset" if "reset" in text else "closed"
    return next((name for words, name in _CLASSES if words in text), "other")


def parameters(settings: Settings) -> dict[str, str | int]:
    """What every connection insists on, on top of DATABASE_URL and stronger than it.

    - require_auth: an impostor that passed TLS must not be told a password, nor be believed when it asks for none (A1-A3).
    - gssencmode=disable: GSS encryption would bypass the certificate (P15).
    - target_session_attrs: a standby that accepts connections after a fail-over cannot serve writes.
    - tcp_user_timeout, keepalives: the kernel gives a dead peer up too, also for bytes that were sent and never acknowledged.
    - the three time-outs of the server (PostgreSQL documentation, 19.11.1): an abandoned query or transaction ends by itself.
    """
    server = {
        "statement_timeout": round(settings.statement_timeout * 1000),
        "lock_timeout": round(settings.lock_timeout * 1000),
        "idle_in_transaction_session_timeout": 5000,
    }
    return {
        "sslmode": "verify-full",
        "ssl_min_protocol_version": "TLSv1.2",
        "require_auth": "scram-sha-256",
        "channel_binding": settings.channel_binding,
        "gssencmode": "disable",
        "target_session_attrs": "read-write",
        "connect_timeout": settings.connect_timeout,
        "tcp_user_timeout": 5000,
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "application_name": "reference",
        "options": " ".join(f"-c {name}={value}" for name, value in server.items()),
    }


def names_an_address(database_url: str) -> bool:
    """Whether the URL's host is an IP address.

    libpq then also accepts a dNSName or a common name that spells the address (catalogue rows C11 and C12, against RFC 9525, 6.4).
    Python's ssl module does not, so for such a host the served chain is looked at before libpq is let near it. It is another
    connection, so this stops a certificate that was issued wrongly, not a relay that tells the two apart: name the server, and give
    its address as hostaddr.
    """
    try:
        ipaddress.ip_address(str(conninfo_to_dict(database_url).get("host") or "localhost"))
    except ValueError:
        return False
    return True


# The first statement of every connection: it proves that the session works, and says what protects it, in the server's own words.
_TLS_OF_SESSION = b"SELECT version, cipher FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid() AND ssl"


def connector(settings: Settings, *, change: Mapping[str, str | int] | None = None) -> Callable[[], Awaitable[Link]]:
    """A function that makes one verified, working connection. It raises psycopg.Error or TimeoutError.

    `change` replaces single parameters: how a test plants a client that verifies too little.
    """
    conninfo = make_conninfo(settings.database_url, **{**parameters(settings), **(change or {})})
    by_address = names_an_address(settings.database_url)

    async def connect() -> Link:
        if by_address:
            await served_chain(settings.database_url, timeout=settings.connect_timeout)
        # psycopg holds connect_timeout against each address; the outer bound also covers looking the name up.
        async with asyncio.timeout(settings.connect_timeout + 0.5):
            connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        now = asyncio.get_running_loop().time()
        link = Link(connection=connection, opened=now, heard=now)
        try:
            link.tls_version, link.tls_cipher = await link.within(settings.statement_timeout, _tls_of(connection))
        except BaseException:
            connection.pgconn.finish()
            raise
        return link

    return connect


def connect_once(settings: Settings, *, statement_timeout: float = 30.0) -> psycopg.Connection:
    """A blocking connection for set-up work, as strict as the others but for its time-outs. Raises psycopg.Error."""
    patient = replace(settings, statement_timeout=statement_timeout, lock_timeout=statement_timeout)
    return psycopg.connect(make_conninfo(settings.database_url, **parameters(patient)))


async def _tls_of(connection: psycopg.AsyncConnection) -> tuple[str, str]:
    row = await (await connection.execute(_TLS_OF_SESSION)).fetchone()
    if row is None:
        raise psycopg.OperationalError("SSL is not in use on this session")
    return row[0], row[1]
