"""attestation.json: the DSSE envelope, its signature, and the in-toto Statement in it.

Written from the specification (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md): what signs is another library.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.verify.result import Report, Step

ATTESTATION = "attestation.json"
TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
UNSIGNED = "unsigned: integrity only, no origin"


class KeyUnusable(Exception):  # noqa: N818  (it is about the caller's file, not about the bundle)
    """The public key that was named is none."""


def opened(directory: Path, key: Path | None, report: Report) -> dict[str, Any] | None:
    """The statement (Any: JSON), or None. Raises KeyUnusable."""
    step = report.step("signature")
    public = _public(key) if key is not None else None
    try:
        envelope = strict(directory / ATTESTATION)
        if (directory / ATTESTATION).read_text(encoding="utf-8") != json.dumps(envelope, indent=1) + "\n":
            step.wrong(ATTESTATION, "is not written as it has to be: one member a line, one space deep, a line feed at its end")
        payload = base64.b64decode(envelope["payload"], validate=True)
        kind, signatures = envelope["payloadType"], envelope["signatures"]
        if set(envelope) != {"payload", "payloadType", "signatures"} or kind != TYPE or not isinstance(signatures, list):
            raise ValueError("its members are not those of a DSSE envelope of an in-toto Statement")  # noqa: TRY301  (told below)
    except FileNotFoundError:
        step.wrong(ATTESTATION, "is not there")
        return None
    except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
        step.wrong(ATTESTATION, f"is no DSSE envelope: {error}")
        return None
    report.origin = _origin(step, signatures, public, _signed_over(kind, payload))
    step.said = report.origin
    try:
        return _statement(payload)
    except ValueError as error:
        step.wrong(f"{ATTESTATION}, payload", f"is no in-toto Statement: {error}")
        return None


def _statement(payload: bytes) -> dict[str, Any]:
    found = json.loads(payload, object_pairs_hook=_once)
    if not isinstance(found, dict) or set(found) != {"_type", "subject", "predicateType", "predicate"}:
        raise ValueError("its members are others")
    if (found["_type"], found["predicateType"]) != (STATEMENT, PREDICATE):
        raise ValueError("its types are others")
    return found


def _origin(step: Step, signatures: list[Any], public: Any, signed: bytes) -> str:
    """What is known of who made this; `public` is a key of `cryptography`'s (Any), or None."""
    if not signatures:
        if public is not None:
            step.wrong(f"{ATTESTATION}, signatures", "there are none, though a key was given to check them with")
        return UNSIGNED
    names = [one.get("keyid") if isinstance(one, dict) and set(one) == {"keyid", "sig"} else None for one in signatures]
    if public is None:
        return f"signed by key {str(names[0])[:16]}..., which nobody checked (--key): integrity only, no origin"
    name = _name(public)
    for one in signatures if len(signatures) == 1 else ():
        if names == [name] and _verifies(public, one["sig"], signed):
            return f"signed by key {name[:16]}..., which was given"
    step.wrong(f"{ATTESTATION}, signatures", f"no signature of key {name[:16]}... over this statement")
    return "the signature does not verify"


def _signed_over(kind: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: DSSEv1, then type and payload, each after its length."""
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload])


def _public(path: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415

    try:
        pem = path.read_bytes()
        return load_pem_x509_certificate(pem).public_key() if b"BEGIN CERTIFICATE" in pem else load_pem_public_key(pem)
    except (OSError, ValueError) as error:
        raise KeyUnusable(f"no public key in PEM: {error}") from error


def _name(public: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _verifies(public: Any, text: object, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415

    try:
        signature = base64.b64decode(str(text), validate=True)
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, signed)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, signed, ec.ECDSA(hashes.SHA256() if public.key_size == 256 else hashes.SHA384()))
        else:
            return False
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def strict(path: Path) -> Any:
    """JSON in which no member stands twice (Any). Raises OSError, ValueError."""
    return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found
