"""Probes without an account: on a database that is not ours, only what anyone can do who reaches its port.

That is an SSLRequest and a TLS handshake (PostgreSQL protocol, 'SSL Session Encryption'): some kilobytes from the server, enough
to see a path that is cut, silent, slow or narrow. Nothing is verified and nothing is sent over the session; the server may log
a connection that ended before it logged in.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from chaos.faults.probe import PATIENCE, SSL_REQUEST, Seen, how_it_ended, how_it_stands
from chaos.model import now


def shake(link: socket.socket, started: float, patience: float = PATIENCE) -> Seen:
    """SSLRequest and handshake on a connection that is there; 'no TLS' when the server has none."""

    def left() -> float:
        return max(0.05, patience - (now() - started))

    try:
        link.settimeout(left())
        link.sendall(SSL_REQUEST)
        answer = link.recv(1)
        how = {b"S": "answer", b"N": "no TLS", b"": "closed"}.get(answer, f"byte {answer!r}")
        if answer == b"S":
            link.settimeout(left())
            with _context().wrap_socket(link, suppress_ragged_eofs=False):
                pass
    except ConnectionResetError:
        how = "reset"
    except TimeoutError:
        how = "silence"
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, BrokenPipeError):
        how = "closed"
    except ssl.SSLError as error:
        how = f"TLS: {error.reason or error}"
    except OSError as error:
        how = error.strerror or "error"
    return Seen(how, now() - started)


def _context() -> ssl.SSLContext:
    """Whose certificate it is, is not what is looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class RawEstablished:
    """A connection that was opened, and nothing said on it, until `query`; beside it a witness. See `PooledProbe`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.baseline = RawProber(address).connect()
        self._link = socket.create_connection(address, timeout=PATIENCE)
        self._witness = socket.create_connection(address, timeout=PATIENCE)
        self._witness.sendall(SSL_REQUEST)
        self._witness.recv(1)

    def query(self) -> Seen:
        """Speak on it for the first time."""
        return shake(self._link, now())

    def ended(self) -> str:
        """How the witness' connection stands."""
        return how_it_stands(self._witness)

    def close(self) -> None:
        """Drop both."""
        self._link.close()
        self._witness.close()


@dataclass(frozen=True, slots=True)
class RawProber:
    """Makes the probes at one address; see `chaos.faults.network.Prober`."""

    address: tuple[str, int]

    def ask(self) -> Seen:
        """A new connection, and whatever is said first on it."""
        return self._new(whole=False)

    def connect(self) -> Seen:
        """A new connection with a whole handshake."""
        return self._new(whole=True)

    def established(self) -> RawEstablished:
        """One that is open before the fault."""
        return RawEstablished(self.address)

    def fair(self, before: Seen, during: Seen) -> Seen:
        """Twice what it took more than before: a handshake is a tenth of a session's 16 KiB, and the way to a staging is longer."""
        return Seen(during.how, max(0.0, during.seconds - before.seconds) * 2, during.text)

    def _new(self, *, whole: bool) -> Seen:
        started = now()
        try:
            with socket.create_connection(self.address, timeout=PATIENCE) as link:
                if whole:
                    return shake(link, started)
                link.settimeout(max(0.05, PATIENCE - (now() - started)))
                link.sendall(SSL_REQUEST)
                how = {b"S": "answer", b"N": "answer", b"": "closed"}.get(link.recv(1), "something else")
        except OSError as error:
            how = how_it_ended(error)
        return Seen(how, now() - started)
