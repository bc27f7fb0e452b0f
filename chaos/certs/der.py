"""Just enough DER to sign a certificate with SHA-1, which `cryptography` rightly refuses to do.

X.690 (DER) and RFC 5280 4.1: Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1

_SEQUENCE, _BIT_STRING = 0x30, 0x03
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # AlgorithmIdentifier, RFC 5758 3.2
_ECDSA_SHA1 = bytes.fromhex("300906072a8648ce3d0401")


def resign_with_sha1(certificate: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The same certificate (DER, signed with ecdsa-with-SHA256) signed with ecdsa-with-SHA1 by `key`."""
    to_be_signed = _content(_content(certificate)[0])[0]
    changed = _element(_SEQUENCE, to_be_signed.replace(_ECDSA_SHA256, _ECDSA_SHA1, 1))
    signature = key.sign(changed, ec.ECDSA(SHA1()))  # noqa: S303 - row C27: a client must refuse exactly this
    return _element(_SEQUENCE, changed + _ECDSA_SHA1 + _element(_BIT_STRING, b"\0" + signature))


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _content(data: bytes) -> tuple[bytes, bytes]:
    """Content of the element that `data` starts with, and what follows it."""
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    return data[start : start + size], data[start + size :]
