"""DSSE envelopes (https://github.com/secure-systems-lab/dsse) around statements, signed with a key from a file, or not at all.

A key is a PEM file with an Ed25519 or ECDSA (P-256, P-384) private key. Its id in the envelope is the SHA-256 of its public key (DER,
SubjectPublicKeyInfo), which `openssl pkey -pubin -outform DER | sha256sum` gives as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from typing import TYPE_CHECKING

from chaos.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from securesystemslib.signer import CryptoSigner

PAYLOAD_TYPE = "application/vnd.in-toto+json"
KEY_ENV = "CHAOS_SIGNING_KEY"
PASSWORD_ENV = "CHAOS_SIGNING_PASSWORD"  # noqa: S105  (a variable's name)


def signer(path: Path) -> CryptoSigner:
    """From a PEM file that nobody else can read. An encrypted one is opened with CHAOS_SIGNING_PASSWORD, or asked for on a terminal.

    Raises UsageError.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey  # noqa: PLC0415  (only who signs needs these)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from securesystemslib.signer import CryptoSigner, SSlibKey  # noqa: PLC0415

    pem = _private(path)
    try:
        try:
            key = load_pem_private_key(pem, None)
        except TypeError:  # it is encrypted
            key = load_pem_private_key(pem, _password(path).encode())
    except ValueError as error:
        raise _wrong(
            path, "this is no private key in PEM that can be opened", "give a PEM file, and its password if it has one"
        ) from error
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey):
        raise _wrong(path, "this key is neither Ed25519 nor ECDSA", "make one: openssl genpkey -algorithm ed25519 -out FILE")
    try:
        public = SSlibKey.from_crypto(key.public_key(), keyid=keyid(key.public_key()))
        return CryptoSigner(key, public)
    except ValueError as error:
        raise _wrong(path, f"this key cannot sign: {error}", "use Ed25519, or ECDSA on P-256 or P-384") from error


def keyid(public: object) -> str:
    """SHA-256 of the DER form of a public key of `cryptography`'s."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]  # any kind of key has it
    return hashlib.sha256(der).hexdigest()


def envelope(statement: str, by: CryptoSigner | None) -> str:
    """attestation.json's text. Without a key its list of signatures is empty: that proves integrity to nobody but says so plainly."""
    from securesystemslib.dsse import Envelope  # noqa: PLC0415

    made = Envelope(statement.encode(), PAYLOAD_TYPE, {})
    if by is not None:
        made.sign(by)
    return json.dumps(made.to_dict(), indent=1) + "\n"


def _private(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _wrong(path, f"others may read this private key (mode {stat.S_IMODE(mode):o})", f"chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise _wrong(path, f"the key cannot be read: {error.strerror}", "name a PEM file with a private key") from error


def _password(path: Path) -> str:
    if given := os.environ.get(PASSWORD_ENV):
        return given
    if not sys.stdin.isatty():
        raise _wrong(path, "the key is encrypted", f"put its password into {PASSWORD_ENV}")
    import getpass  # noqa: PLC0415

    return getpass.getpass(f"password of {path}: ")


def _wrong(path: Path, what: str, remedy: str) -> UsageError:
    return UsageError(what, remedy=remedy, where=str(path))
