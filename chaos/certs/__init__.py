"""Certificates: an authority of our own, and the zoo of wrong ones that it can issue on demand.

    zoo = Zoo.load()
    authority = Authority.create(run_dir / "certificates")
    identity = authority.issue("expired")        # Identity(name, chain_file, key_file, fingerprint, ...)

The zoo is data (fixtures/certs/zoo.toml); keys and certificates are made when they are asked for. Only the first use of
`Authority` loads `cryptography` and `trustme` (0.15 s): entries and identities are plain data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.certs.zoo import Entry, Identity, Issuer, Zoo

if TYPE_CHECKING:
    from chaos.certs.authority import Authority

__all__ = ["Authority", "Entry", "Identity", "Issuer", "Zoo"]


def __getattr__(name: str) -> object:
    if name == "Authority":
        from chaos.certs.authority import Authority  # noqa: PLC0415 - heavy, see above

        return Authority
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
