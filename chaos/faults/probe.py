"""Probes of our own on the target's path to its database: the proof that a fault took effect, from someone who is not the target.

A pooled probe is an established verify-full session of psycopg, opened before the fault; a new probe is a bare SSLRequest
(PostgreSQL protocol, 'SSL Session Encryption') sent during it. Both are timed and their end is classified.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from chaos.model import now

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
PATIENCE = (
    1.2  # s that a probe waits during a fault: an order of magnitude more than a healthy loopback takes, on a busy machine too
)
PROBE_NAME = "chaos-gate.probe"  # our application_name, and our SNI: how a probe is told from the target on the wire
PAYLOAD = 16_384  # bytes that the pooled probe asks for


@dataclass(frozen=True, slots=True)
class Seen:
    """What a probe saw: 'answer', 'silence', 'refused', 'reset', 'closed' or an SQLSTATE; after `seconds`; `text` is the error's."""

    how: str
    seconds: float
    text: str = ""

    def __str__(self) -> str:
        return f"{self.how} after {self.seconds * 1000:.0f} ms"


def ask(port: int, *, patience: float = PATIENCE) -> Seen:
    """A new connection: TCP, SSLRequest, and the server's one-byte answer."""
    started = now()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as link:
            link.settimeout(max(0.05, patience - (now() - started)))
            link.sendall(SSL_REQUEST)
            answer = link.recv(1)
            how = {b"S": "answer", b"N": "no TLS", b"": "closed"}.get(answer, f"byte {answer!r}")
    except OSError as error:
        how = how_it_ended(error)
    return Seen(how, now() - started)


def connect(conninfo: str) -> Seen:
    """A whole new session with one query."""
    started = now()
    try:
        with psycopg.connect(conninfo, connect_timeout=2, autocommit=True, application_name=PROBE_NAME) as session:
            session.execute("SELECT 1")
        how, text = "answer", ""
    except psycopg.Error as error:
        how, text = error.sqlstate or _word(str(error)), str(error).strip()
    return Seen(how, now() - started, text)


def _word(text: str) -> str:
    """Libpq has no SQLSTATE for what went wrong before or below a session."""
    known = {
        "connection refused": "refused",
        "reset by peer": "reset",
        "broken pipe": "closed",
        "timeout": "silence",
        "too many clients": "53300",
        "remaining connection slots": "53300",
        "starting up": "57P03",
        "not accepting": "57P03",
        "not yet accepting": "57P03",
        "in recovery mode": "57P03",
        "certificate": "certificate",
        "does not support ssl": "no TLS",
        "no encryption": "no TLS",
        "closed": "closed",
        "eof": "closed",
    }
    return next((word for part, word in known.items() if part in text.lower()), "error")


def how_it_ended(error: OSError) -> str:
    """One word for why a connection gave no answer: 'refused', 'reset', 'silence', or the system's own words."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError):
        return "reset"
    return "silence" if isinstance(error, TimeoutError) else error.strerror or "error"


def how_it_stands(link: socket.socket) -> str:
    """Of a connection on which nobody speaks: 'open', 'closed' (FIN) or 'reset' (RST)."""
    link.settimeout(0.2)
    try:
        return "open" if link.recv(1) else "closed"
    except TimeoutError:
        return "open"
    except ConnectionResetError:
        return "reset"


class PooledProbe:
    """An established session, asked for 16 KiB now and then. Never blocks its caller longer than `PATIENCE`.

    Beside it, at `port`, stands a bare TCP connection as a witness: libpq does not tell an RST from a FIN, recv(2) does.
    """

    def __init__(self, conninfo: str, port: int, *, size: int = PAYLOAD, upload: int = 0) -> None:
        """`size`: bytes that it asks for, `upload`: that it sends with each question."""
        self._size, self._upload = size, upload
        self._witness = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._witness.sendall(SSL_REQUEST)
        self._witness.recv(1)
        self._session = psycopg.connect(conninfo, autocommit=True, connect_timeout=10, application_name=PROBE_NAME)
        self.baseline = self.query()

    def query(self, patience: float = PATIENCE) -> Seen:
        """Ask, in a thread that is released (its socket shut) when no answer came in time."""
        result: list[Seen] = []
        started = now()

        def run() -> None:
            try:
                up = "y" * self._upload
                self._session.execute("SELECT repeat('x', %s), length(%s::text)", (self._size, up)).fetchone()
                result.append(Seen("answer", now() - started))
            except psycopg.Error as error:
                result.append(Seen(_word(str(error)), now() - started, str(error).strip()))

        thread = threading.Thread(target=run, name="probe", daemon=True)
        thread.start()
        thread.join(patience)
        if result:
            return result[0]
        self._release()
        return Seen("silence", now() - started)

    def ended(self) -> str:
        """How the witness' connection stands."""
        return how_it_stands(self._witness)

    def _release(self) -> None:
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self._session.fileno())) as link:
            link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Drop the session without a word to a server that may not hear it."""
        self._release()
        self._witness.close()
        with contextlib.suppress(psycopg.Error):
            self._session.close()


Rule = Callable[[Seen, Seen], bool]
"""(baseline, during) -> whether that is what the fault must look like."""
