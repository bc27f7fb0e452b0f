"""What the wire can be told to be. Data only: `acts.py` plays it. Which catalogue row is which behaviour is in `rows.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chaos.errors import UsageError

if TYPE_CHECKING:
    from chaos.certs import Identity
    from chaos.faults.wire.commit import Fuse

EOF: Literal["eof"] = "eof"
RST: Literal["rst"] = "rst"

Then = Literal["close", "relay", "ask", "trust", "cleartext", "md5", "scram", "unsigned", "missigned", "iterate"]
_THEN = ("close", "relay", "ask", "trust", "cleartext", "md5", "scram", "unsigned", "missigned", "iterate")
ITERATIONS = 50_000_000  # of row A7: a minute of SCRAM's PBKDF2 on one core


@dataclass(frozen=True, slots=True)
class Terms:
    """How an impostor speaks TLS. `newest` '' is whatever there is; `ciphers` is OpenSSL's syntax; `alpn` False selects none."""

    newest: Literal["", "TLSv1.1", "TLSv1.2"] = ""
    ciphers: str = "DEFAULT"
    alpn: bool = True


@dataclass(frozen=True, slots=True)
class Relay:
    """Every byte passes unchanged, in both directions; so does every end, as the FIN or the RST that it was."""

    @property
    def name(self) -> str:
        """For Connection.behaviour."""
        return "relay"


@dataclass(frozen=True, slots=True)
class Impostor:
    """Answers S and terminates TLS with a certificate of its own choice, on its own terms.

    After StartupMessage it does as `then` says:
    'close':     a FATAL 57P03, and the end.
    'ask':       asks for SCRAM as a real server does, and refuses the proof, whatever it is.
    'relay':     logs in to the real PostgreSQL over a TLS session of its own and relays what both say. With the real server's
                 certificate SCRAM-SHA-256-PLUS holds through it (RFC 5929 4.1 binds to the certificate, not to the session); with
                 another one PostgreSQL refuses clients that bind.
    'trust':     lets the client in without asking for anything (row A1).
    'cleartext': asks for the password itself (A2). 'md5': for its MD5 (A3). 'scram': SCRAM without channel binding (A4).
    'unsigned':  takes the proof for good and skips its own (A5). 'missigned': sends a wrong one (A6).
    'iterate':   asks for SCRAM with `ITERATIONS` rounds (A7).

    A client that skips TLS gets the same in the clear. `label` names it in the records in place of the certificate's name. With 'relay'
    and a `fuse`, the answer to a COMMIT is cut off when that is armed (`chaos.faults.wire.commit`).
    """

    identity: Identity
    then: Then = "close"
    label: str = ""
    terms: Terms = Terms()
    fuse: Fuse | None = None

    def __post_init__(self) -> None:
        _one_of("Impostor.then", self.then, _THEN)

    @property
    def name(self) -> str:
        """For Connection.behaviour: 'impostor:expired'."""
        return f"impostor:{self.label or self.identity.name}"


@dataclass(frozen=True, slots=True)
class Meddle:
    """Somebody on the way who puts bytes of his own into the start of a TLS session with the right certificate.

    'with_S': a request for the password, in the clear, in one segment with the S (row P5, CVE-2021-23222). 'after_S': the same 50 ms
    later (P6). A client that obeys it inside TLS, where nothing was asked, has taken it for the server's.
    'rst', 'http': an RST, or an HTTP answer, in place of the server's first flight (P9).
    """

    how: Literal["with_S", "after_S", "rst", "http"]
    identity: Identity

    def __post_init__(self) -> None:
        _one_of("Meddle.how", self.how, ("with_S", "after_S", "rst", "http"))

    @property
    def name(self) -> str:
        """For Connection.behaviour: 'meddle:with_S'."""
        return f"meddle:{self.how}"


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answers an SSLRequest with these bytes, or 'eof', or 'rst' (rows P1 to P4), then watches whether the client goes on.

    b"E" alone becomes a whole ErrorResponse. A StartupMessage that follows is recorded, and that is the end, unless `then` is 'ask':
    then the password is asked for, in the clear (A8).
    """

    answer: bytes | Literal["eof", "rst"] = b"N"
    label: str = ""
    then: Literal["close", "ask"] = "close"

    def __post_init__(self) -> None:
        _one_of("Refuse.then", self.then, ("close", "ask"))
        if isinstance(self.answer, str):
            _one_of("Refuse.answer", self.answer, (EOF, RST))
        elif not self.answer:
            raise UsageError(
                "an empty answer is no answer", remedy="use Stall('accept') for silence, 'eof' for an end", where="Refuse"
            )

    @property
    def name(self) -> str:
        """For Connection.behaviour: 'refuse:N'."""
        if isinstance(self.answer, str):
            return f"refuse:{self.label or self.answer}"
        first = self.answer[:1]
        return f"refuse:{self.label or (first.decode('ascii') if first.isalnum() else first.hex())}"


@dataclass(frozen=True, slots=True)
class Stall:
    """Goes silent at one place and stays so until the client gives up (row P8).

    'accept': after the TCP handshake. 'after_S': after the answer to SSLRequest. 'in_tls': after half of the server's first flight.
    'after_startup': TLS is through and StartupMessage has been read. The last two need an identity.
    """

    where: Literal["accept", "after_S", "in_tls", "after_startup"] = "accept"
    identity: Identity | None = None

    def __post_init__(self) -> None:
        _one_of("Stall.where", self.where, ("accept", "after_S", "in_tls", "after_startup"))
        if self.where in {"in_tls", "after_startup"} and self.identity is None:
            raise UsageError(f"a stall {self.where} speaks TLS", remedy="give it an identity", where="Stall")

    @property
    def name(self) -> str:
        """For Connection.behaviour: 'stall:after_S'."""
        return f"stall:{self.where}"


Behaviour = Relay | Impostor | Meddle | Refuse | Stall


def _one_of(where: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{value!r} is not known", remedy=f"use one of {', '.join(known)}", where=where)
