"""The catalogue of hostile servers, as data: each row is a behaviour of the wire, and what a client that verifies fully must do.

`ROWS` is all of it, for whoever puts a client in front of the wire: the suite's own experiments do it with a whole service,
`chaos-gate matrix` with a driver by itself. A row's id is the catalogue's, with a word behind it where a row has several forms
('C5', 'C5.partial'; 'C18.accept' is the form without the defect).

`must` is
'reject':  the client gives up before it reaches `until`, in every connection that it opens. A client that does otherwise does not
           verify fully, by a source that libpq itself keeps to.
'connect': it goes on to `until` or beyond.
'policy':  sound clients differ, or it takes an option that verify-full does not imply (`require_auth`, `channel_binding`, a revocation
           list): reported with `severity`, judged only where [policy] of chaos.toml says so.
'bounded': it gives up by itself, in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, cast

from chaos.certs import Entry, Identity, Zoo
from chaos.faults.wire.behaviours import Behaviour, Impostor, Meddle, Refuse, Relay, Stall, Terms, Then
from chaos.model import Rung

Must = Literal["reject", "connect", "policy", "bounded"]
Issue = Callable[[str], Identity]
"""The zoo's certificate of that name, from the authority that the client trusts (`Authority.issue`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One form of one row. `title` says what the client meets; `why` is the source of `must`.

    `make` gives the behaviour, `until` is the rung that the client must not (or, for 'connect', must) reach. `entry` is the certificate
    that is served, `pair` the one that differs from it by the defect alone. `host` is the name that the client has to connect to for
    the row to mean anything ({host}: the server's usual one). `when` names what the client has to do first for the row to apply
    ('direct': TLS without an SSLRequest; 'gss': a GSSENCRequest; 'cancel'). `client` are options of libpq's that the client needs, with
    {crl}, {stale_crl} and {no_crl} for files (the last is not there): a row that has some cannot be asked of a service from outside.
    """

    id: str
    title: str
    must: Must
    why: str
    make: Callable[[Issue], Behaviour]
    until: Rung = Rung.STARTUP
    severity: str = ""
    entry: str = "valid"
    pair: str = "valid"
    host: str = "{host}"
    when: str = ""
    client: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The catalogue's own id: 'C5' of 'C5.partial'."""
        return self.id.partition(".")[0]


@cache
def _zoo() -> dict[str, Entry]:
    return {entry.name: entry for entry in Zoo.load().entries}


def _certificate(
    id_: str, entry: str, title: str, *, must: Must | None = None, severity: str = "", client: dict[str, str] | None = None
) -> Row:
    """A certificate of the zoo, which knows what must come of it, and why. An own `must` is for rows where sound clients differ."""
    known = _zoo()[entry]
    wanted = cast("Must", must or known.must)  # the zoo has checked it

    def make(issue: Issue) -> Behaviour:
        return Impostor(issue(entry), "close" if wanted == "connect" else "ask")

    return Row(
        id=id_,
        title=title,
        must=wanted,
        why=known.why,
        make=make,
        severity=severity or ("medium" if wanted == "policy" else ""),
        entry=entry,
        pair=known.pair,
        host=known.host,
        client=client or {},
    )


def _valid(then: Then, label: str = "", terms: Terms = Terms()) -> Callable[[Issue], Behaviour]:  # noqa: B008  (frozen)
    return lambda issue: Impostor(issue("valid"), then, label, terms)


_CRL = {"sslcrl": "{crl}"}

CERTIFICATES: tuple[Row, ...] = (
    _certificate("C1", "expired", "an expired certificate"),
    _certificate("C2", "not-yet-valid", "a certificate that is not valid yet"),
    _certificate("C3", "wrong-host", "a certificate for another host"),
    _certificate("C3.ip", "wrong-ip", "a certificate for another address"),
    _certificate("C4", "star", "a certificate for the name '*'"),
    _certificate("C5", "wildcard-apex", "a wildcard below the host's own name"),
    _certificate("C5.partial", "wildcard-partial", "a certificate with a wildcard inside a label"),
    _certificate("C5.labels", "wildcard-two-labels", "a wildcard one label short"),
    _certificate("C5.accept", "wildcard", "a wildcard that is right (control of C5)"),
    _certificate("C6", "cn-only", "a certificate with a common name and no SubjectAltName", severity="low"),
    _certificate("C7", "cn-right-san-wrong", "a certificate whose common name is right and whose SubjectAltName is not"),
    _certificate("C8", "cn-right-san-ip", "a certificate whose common name is right beside an address", severity="low"),
    _certificate("C9", "no-names", "a certificate without any name"),
    _certificate("C10", "ip", "a certificate for the address that is connected to"),
    _certificate("C11", "ip-in-dns", "a certificate with the address written as a DNS name", must="policy"),
    _certificate("C12", "ip-in-cn", "a certificate with the address as its common name, beside another DNS name", must="policy"),
    _certificate("C13", "nul-in-san", "a certificate with a NUL inside its SubjectAltName"),
    _certificate("C13.cn", "nul-in-cn", "a certificate with a NUL inside its common name"),
    _certificate("C14", "trailing-dot", "a certificate whose name ends in a dot", severity="low"),
    _certificate("C15", "upper-case", "a certificate with the name in upper case"),
    _certificate("C16", "untrusted-ca", "a certificate of an unknown authority"),
    _certificate("C16.twin", "twin-ca", "a certificate of an authority that has only the name of the right one"),
    _certificate("C17", "self-signed", "a self-signed certificate"),
    _certificate("C18", "missing-intermediate", "a chain without its intermediate"),
    _certificate("C18.accept", "via-intermediate", "a chain with its intermediate (control of C18 and C19)"),
    _certificate("C19", "intermediate-expired", "a chain with an expired intermediate"),
    _certificate("C19.leaf", "issuer-not-a-ca", "a certificate that was issued by a leaf"),
    _certificate("C19.depth", "path-too-long", "a chain that is longer than its authority allows"),
    _certificate("C20", "constraint-not-permitted", "a certificate of an authority for other names"),
    _certificate("C20.excluded", "constraint-excluded", "a certificate of an authority that may not speak for this name"),
    _certificate("C20.accept", "constraint-kept", "a certificate of an authority for this name (control of C20)"),
    _certificate("C21", "client-use-only", "a certificate that is for clients only"),
    _certificate("C21.accept", "no-use", "a certificate without extended key usage (control of C21)"),
    _certificate("C22", "rsa-1024", "a certificate with a 1024-bit RSA key", must="policy"),
    _certificate("C22.accept", "rsa-2048", "a certificate with a 2048-bit RSA key (control of C22)"),
    _certificate("C23", "revoked", "a revoked certificate, to a client that has the revocation list", client=_CRL),
    Row(
        id="C24",
        title="the right certificate, to a client whose revocation list is missing",
        must="policy",
        why="a check that was asked for and cannot be made fails closed; libpq (sslcrl) takes a missing file for none at all",
        make=_valid("close", "C24"),
        severity="medium",
        client={"sslcrl": "{no_crl}"},
    ),
    Row(
        id="C25",
        title="the right certificate, to a client whose revocation list is out of date",
        must="reject",
        why="RFC 5280 6.3.3 (a): a list past its nextUpdate says nothing about today. It is an outage to be rehearsed: see docs",
        make=_valid("close", "C25"),
        client={"sslcrl": "{stale_crl}"},
    ),
    _certificate(
        "C26",
        "revoked",
        "a revoked certificate, to a client with the system's roots and the revocation list",
        must="policy",
        client={"sslcrl": "{crl}", "sslrootcert": "system"},
    ),
    _certificate("C27", "sha1", "a certificate signed with SHA-1", must="policy"),
    _certificate("C27.reversed", "chain-reversed", "a right chain in reversed order"),
    _certificate("C27.names", "many-names", "a certificate with 10,000 names", severity="low"),
)

_V0 = "libpq, 'SSL Support', verify-full: an encrypted and verified connection, or none"
_RFC8996 = "RFC 8996: TLS 1.0 and 1.1 must not be used; libpq: ssl_min_protocol_version is TLSv1.2"
_STALL = "a client that waits for ever is no better than one that failed: connect_timeout and its like bound every step"


def _refused(id_: str, title: str, behaviour: Refuse, why: str = _V0) -> Row:
    return Row(id=id_, title=title, must="reject", why=why, make=lambda _: behaviour)


def _stalled(id_: str, title: str, where: Literal["accept", "after_S", "in_tls", "after_startup"]) -> Row:
    def make(issue: Issue) -> Behaviour:
        return Stall(where, issue("valid"))

    return Row(id=id_, title=title, must="bounded", why=_STALL, make=make, until=Rung.QUERY, severity="medium")


_INJECTED = (
    "CVE-2021-23222: bytes from before the handshake are not the server's; a client drops the connection (protocol, 'SSL Session "
    "Encryption'), and in no case obeys them"
)

PROTOCOL: tuple[Row, ...] = (
    _refused("P1", "a server that answers N to the SSLRequest", Refuse(b"N")),
    _refused(
        "P2", "a server that answers the SSLRequest with an error", Refuse(b"E"), _V0 + "; CVE-2024-10977: its text is nobody's"
    ),
    _refused("P3", "a server that answers X to the SSLRequest", Refuse(b"X")),
    _refused("P4", "a server that closes after the SSLRequest", Refuse("eof")),
    _refused("P4.rst", "a server that resets after the SSLRequest", Refuse("rst")),
    Row(
        id="P5",
        title="bytes injected in one segment with the server's S",
        must="reject",
        why=_INJECTED,
        make=lambda issue: Meddle("with_S", issue("valid")),
        until=Rung.PASSWORD,
    ),
    Row(
        id="P6",
        title="bytes injected 50 ms after the server's S",
        must="reject",
        why=_INJECTED,
        make=lambda issue: Meddle("after_S", issue("valid")),
        until=Rung.PASSWORD,
    ),
    _stalled("P8.accept", "a server that accepts, and is silent", "accept"),
    _stalled("P8.answer", "a server that is silent after its S", "after_S"),
    _stalled("P8.tls", "a server that is silent in mid-handshake", "in_tls"),
    _stalled("P8.startup", "a server that is silent after StartupMessage", "after_startup"),
    Row(
        id="P9",
        title="a reset in mid-handshake",
        must="reject",
        why=_V0,
        make=lambda issue: Meddle("rst", issue("valid")),
    ),
    Row(
        id="P9.http",
        title="an HTTP answer in mid-handshake",
        must="reject",
        why=_V0,
        make=lambda issue: Meddle("http", issue("valid")),
    ),
    Row(
        id="P10",
        title="a server that speaks TLS 1.1 or older only",
        must="reject",
        why=_RFC8996,
        make=_valid("ask", "P10", Terms("TLSv1.1")),
    ),
    Row(
        id="P11",
        title="a server that knows only the static RSA key exchange",
        must="policy",
        why="RFC 9325 4.1: no forward secrecy, should not be used; libpq's default ciphers (HIGH:MEDIUM:+3DES:!aNULL) have it",
        make=lambda issue: Impostor(issue("rsa-2048"), "ask", "P11", Terms("TLSv1.2", "AES128-SHA")),
        severity="low",
    ),
    Row(
        id="P12",
        title="a server that offers only anonymous Diffie-Hellman",
        must="reject",
        why="RFC 5246 F.1.1.1: nobody is authenticated, so there is nothing that verify-full could have verified",
        make=_valid("ask", "P12", Terms("TLSv1.2", "aNULL")),
    ),
    Row(
        id="P13",
        title="direct TLS without ALPN",
        must="policy",
        why="protocol, 'SSL Session Encryption': with direct TLS, ALPN is mandatory (RFC 7301; it stops cross-protocol attacks)",
        make=_valid("close", "P13", Terms(alpn=False)),
        severity="low",
        when="direct",
    ),
    Row(
        id="P14",
        title="direct TLS asked for with an sslmode below require",
        must="reject",
        why="libpq, sslnegotiation: direct is refused together with weak modes, which could fall back to plaintext",
        make=lambda _: Refuse(b"N", "P14"),
        client={"sslnegotiation": "direct", "sslmode": "prefer"},
    ),
    Row(
        id="P15",
        title="an unknown authority's certificate, after a GSSENCRequest that was answered N",
        must="reject",
        why="libpq, gssencmode: GSS encryption is another way in; that it is refused must not weaken what follows",
        make=lambda issue: Impostor(issue("untrusted-ca"), "ask", "P15"),
        when="gss",
    ),
    Row(
        id="P16",
        title="queries that have to be cancelled",
        must="policy",
        why="libpq, 'Canceling Queries': PQcancel sends a session's key in plaintext whatever sslmode is; PQcancelBlocking keeps to it",
        make=lambda _: Relay(),
        severity="medium",
        when="cancel",
    ),
)

_AUTH = "libpq, {}: verify-full does not imply it"


def _login(id_: str, title: str, then: Then, until: Rung, *, must: Must, why: str, severity: str = "") -> Row:
    return Row(id=id_, title=title, must=must, why=why, make=_valid(then, id_), until=until, severity=severity)


AUTHENTICATION: tuple[Row, ...] = (
    _login(
        "A1",
        "a server with the right certificate that lets everybody in",
        "trust",
        Rung.QUERY,
        must="policy",
        why=_AUTH.format("require_auth"),
        severity="medium",
    ),
    _login(
        "A2",
        "a server with the right certificate that asks for the password in the clear",
        "cleartext",
        Rung.PASSWORD,
        must="policy",
        why=_AUTH.format("require_auth"),
        severity="high",
    ),
    _login(
        "A3",
        "a server with the right certificate that asks for the MD5 of the password",
        "md5",
        Rung.PASSWORD,
        must="policy",
        why=_AUTH.format("require_auth"),
        severity="high",
    ),
    _login(
        "A4",
        "a server with the right certificate that offers SCRAM without channel binding",
        "scram",
        Rung.SCRAM_PROOF,
        must="policy",
        why=_AUTH.format("channel_binding=require"),
        severity="low",
    ),
    _login(
        "A5",
        "a server with the right certificate that does not sign its SCRAM answer",
        "unsigned",
        Rung.QUERY,
        must="policy",
        why="RFC 5802 5: the client authenticates the server by the signature in its last message; most clients take Ok for an answer",
        severity="medium",
    ),
    _login(
        "A6",
        "a server with the right certificate whose SCRAM signature is wrong",
        "missigned",
        Rung.QUERY,
        must="reject",
        why="RFC 5802 5: a server that does not know the password's verifier is not the server",
    ),
    _login(
        "A7",
        "a server with the right certificate that wants 50 million SCRAM iterations",
        "iterate",
        Rung.SCRAM_PROOF,
        must="policy",
        why="RFC 7677 4 asks for 4096 and sets no limit; a client that computes without one stands still for as long as it is told to",
        severity="medium",
    ),
    Row(
        id="A8",
        title="a server that answers N to the SSLRequest and asks for the password",
        must="reject",
        why=_V0,
        make=lambda _: Refuse(b"N", "A8", "ask"),
    ),
)

VALID = Row(
    id="valid",
    title="the right certificate (control)",
    must="connect",
    why=_zoo()["valid"].why,
    make=_valid("relay"),
    until=Rung.QUERY,
)

ROWS: tuple[Row, ...] = (*CERTIFICATES, *PROTOCOL, *AUTHENTICATION, VALID)
BY_ID = {row.id: row for row in ROWS}


def twin(row: Row) -> Callable[[Issue], Behaviour]:
    """The behaviour that differs from a certificate row by the defect alone: the client has to go on to StartupMessage."""
    return lambda issue: Impostor(issue(row.pair), "close", f"pair of {row.id}")
