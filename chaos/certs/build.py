"""How a certificate is made: by trustme when it is an ordinary one, by `cryptography` when it is wrong on purpose.

Imported when the first certificate is needed, because `cryptography` takes 0.1 s to import. All keys are P-256 unless an entry
asks for RSA. Not Ed25519: it has no digest of its own to hash the certificate with, and libpq then refuses channel binding
(tls-server-end-point, RFC 5929 4.1).
"""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chaos.certs.der import resign_with_sha1

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.certs.zoo import Entry, Issuer

_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Signer:
    """An issuer, ready to sign. `parent` is None for a root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    parent: Signer | None

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def intermediates(self) -> list[bytes]:
        """What a server sends after its leaf: this issuer and those above it, without the root."""
        return [self.pem, *self.parent.intermediates] if self.parent else []

    @property
    def root(self) -> bytes:
        """The certificate at the top."""
        return self.parent.root if self.parent else self.pem


@dataclass(frozen=True, slots=True)
class Facts:
    """What is read from a certificate that is on disk; times in seconds since the epoch."""

    fingerprint: str
    not_before: float
    not_after: float


def signer(pem: bytes, key_pem: bytes, parent: Signer | None) -> Signer:
    """An issuer from its files."""
    key = load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Signer(x509.load_pem_x509_certificate(pem), key, parent)


def facts(pem: bytes) -> Facts:
    """Fingerprint and dates of the first certificate in `pem`."""
    found = x509.load_pem_x509_certificates(pem)[0]
    dates = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return Facts(found.fingerprint(hashes.SHA256()).hex(), *dates)


def is_address(host: str) -> bool:
    """True for an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def days_from_now(days: float) -> datetime:
    """A date, in whole seconds as certificates have them."""
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)


def new_key_pem() -> bytes:
    """A key that belongs to no certificate."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def issuer(
    wanted: Issuer, parent: Signer | None, like: Signer | None, *, permitted: Sequence[str] = (), excluded: Sequence[str] = ()
) -> tuple[bytes, bytes]:
    """Certificate and key of an authority, PEM. `like` lends its subject."""
    if wanted.plain:
        authority = trustme.CA(organization_name="Tests only", organization_unit_name=f"{wanted.name} {secrets.token_hex(6)}")
        return authority.cert_pem.bytes(), authority.private_key_pem.bytes()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = like.certificate.subject if like else _name(wanted.name)
    dates = (days_from_now(wanted.days[0]), days_from_now(wanted.days[1])) if wanted.days else _ALWAYS
    builder = _base(subject, parent.certificate.subject if parent else subject, key, dates)
    length = wanted.path_length if wanted.ca and wanted.path_length >= 0 else None
    builder = builder.add_extension(x509.BasicConstraints(ca=wanted.ca, path_length=length), critical=True)
    builder = builder.add_extension(_usage(signs=wanted.ca), critical=True)
    if parent:
        builder = builder.add_extension(_issued_by(parent), critical=False)
    if permitted or excluded:
        subtrees = ([x509.DNSName(name) for name in names] or None for names in (permitted, excluded))
        builder = builder.add_extension(x509.NameConstraints(*subtrees), critical=True)
    made = builder.sign(parent.key if parent else key, hashes.SHA256())
    return made.public_bytes(Encoding.PEM), _key_pem(key)


def leaf(entry: Entry, above: Signer | None, *, names: Sequence[str], common_name: str) -> tuple[bytes, bytes]:
    """Certificate and key of an entry, PEM; `above` None signs it with its own key. `names` are 'dns:...' and 'ip:...'."""
    start, end = (days_from_now(days) for days in entry.days)
    if above and entry.plain:
        authority = trustme.CA.from_pem(above.pem, _key_pem(above.key))
        hosts = [name.partition(":")[2] for name in names]
        made = authority.issue_cert(*hosts, not_before=start, not_after=end, organization_name="Tests only")
        return made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes()
    key = _new_key(entry.key)
    subject = _name(entry.name, common_name)
    builder = _base(subject, above.certificate.subject if above else subject, key, (start, end))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    if above:
        builder = builder.add_extension(_issued_by(above), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
    if entry.eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage([_USES[use] for use in entry.eku]), critical=False)
    by: _Key = above.key if above else key
    certificate = builder.sign(by, hashes.SHA256())
    if entry.digest == "sha1":
        assert isinstance(by, ec.EllipticCurvePrivateKey)
        certificate = x509.load_der_x509_certificate(resign_with_sha1(certificate.public_bytes(Encoding.DER), by))
    return certificate.public_bytes(Encoding.PEM), _key_pem(key)


def revocation_list(by: Signer, revoked: Sequence[bytes], *, stale: bool, days: float = 365.0) -> bytes:
    """A list of the serial numbers of the certificates `revoked` (PEM), to be replaced in `days`; a stale one was to be a day ago."""
    last, following = (days_from_now(-30), days_from_now(-1)) if stale else (days_from_now(-2), days_from_now(days))
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject)
    builder = builder.last_update(last).next_update(following).add_extension(_issued_by(by), critical=False)
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    for pem in revoked:
        serial = x509.load_pem_x509_certificates(pem)[0].serial_number
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(days_from_now(-31 if stale else -1)).build()
        )
    return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _base(subject: x509.Name, by: x509.Name, key: _Key, dates: tuple[datetime, datetime]) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(dates[0]).not_valid_after(dates[1])
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _new_key(kind: str) -> _Key:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: _Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(unit: str, common_name: str = "") -> x509.Name:
    unique = f"{unit} {secrets.token_hex(6)}"
    parts = [(NameOID.ORGANIZATION_NAME, "Tests only"), (NameOID.ORGANIZATIONAL_UNIT_NAME, unique)]
    if common_name:
        parts.append((NameOID.COMMON_NAME, common_name))
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in parts])


def _general_name(text: str) -> x509.GeneralName:
    kind, _, value = text.partition(":")
    return x509.IPAddress(ipaddress.ip_address(value)) if kind == "ip" else x509.DNSName(value)


def _issued_by(by: Signer) -> x509.AuthorityKeyIdentifier:
    identifier = by.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs,  # RSA key exchange of TLS 1.2 (row P11) needs it
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
