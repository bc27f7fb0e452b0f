"""A stand-in for `chaos.certs` until that is there: the one valid identity, by trustme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.environments.local.postgres import fingerprint

if TYPE_CHECKING:
    from pathlib import Path

    import trustme


@dataclass(frozen=True, slots=True)
class Identity:
    """As in chaos.certs."""

    name: str
    chain_file: Path
    key_file: Path
    fingerprint: str


class Authority:
    """As in chaos.certs."""

    def __init__(self, directory: Path, hosts: tuple[str, ...], ca: trustme.CA) -> None:
        self.directory, self.hosts, self.ca = directory, hosts, ca
        self.ca_file = directory / "ca.pem"

    @classmethod
    def create(cls, directory: Path, hosts: tuple[str, ...] = ("localhost", "127.0.0.1")) -> Authority:
        """A new authority, its certificate in `directory`."""
        import trustme  # noqa: PLC0415  # heavy

        directory.mkdir(parents=True, exist_ok=True)
        authority = cls(directory, hosts, trustme.CA(key_type=trustme.KeyType.ECDSA))
        authority.ca.cert_pem.write_to_path(str(authority.ca_file))
        return authority

    def issue(self, name: str) -> Identity:
        """A valid identity under this name."""
        import trustme  # noqa: PLC0415  # heavy

        leaf = self.ca.issue_cert(*self.hosts, key_type=trustme.KeyType.ECDSA)
        chain, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        for index, blob in enumerate(leaf.cert_chain_pems):
            blob.write_to_path(str(chain), append=index > 0)
        leaf.private_key_pem.write_to_path(str(key))
        key.chmod(0o600)
        return Identity(name, chain, key, fingerprint(chain))
