"""An authority that issues any certificate of the zoo into one directory, once.

The directory is laid out to be looked at:

    ca.pem                      what a client puts into sslrootcert
    crl.pem crl-stale.pem       revocation lists, made when asked for
    issuers/<name>.pem .key     (0700) every authority that was needed, worth nothing anywhere else
    identities/<name>.pem .key  (0700) leaf first, then the chain as the entry says; the key 0600

What is there is used again when it was made by the same recipe and its dates still hold: a directory can outlive a process, and
several processes can share one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from chaos.certs import build
from chaos.certs.zoo import Entry, Identity, Zoo
from chaos.errors import EvidenceUnwritable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_TOLERANCE = 3600.0  # seconds that an entry's own dates may have moved since it was made
_FRESH = 31 * 86_400.0  # seconds that the others must still be valid for


class Authority:
    """Issues the zoo's certificates for `hosts`. Made by `create`. Safe for several threads, and processes, on one directory."""

    def __init__(self, directory: Path, hosts: Sequence[str], user: str, zoo: Zoo) -> None:
        self.directory = directory
        self.hosts = tuple(hosts)
        self.user = user
        self.zoo = zoo
        self._signers: dict[str, build.Signer] = {}
        self._identities: dict[str, tuple[Entry, Identity]] = {}
        self._mutex = threading.RLock()

    @classmethod
    def create(
        cls, directory: Path, hosts: Sequence[str] = ("localhost", "127.0.0.1"), *, user: str = "app", zoo: Zoo | None = None
    ) -> Authority:
        """An authority in `directory`: the one that is there already, else a new one.

        `hosts` are the names and addresses that good server certificates carry; the first is '{host}' of the zoo. `user` is the
        database user that client certificates are for. Raises EvidenceUnwritable when the directory cannot be written.
        """
        authority = cls(directory, hosts, user, zoo or Zoo.load())
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for place in (directory / "issuers", directory / "identities"):
                place.mkdir(mode=0o700, exist_ok=True)
            with authority._locked():
                write(authority.ca_file, authority._signer("ca").pem)
        except OSError as error:
            remedy = "name a directory that can be written"
            raise EvidenceUnwritable(f"certificates cannot be written: {error}", remedy=remedy, where=str(directory)) from error
        return authority

    @property
    def ca_file(self) -> Path:
        """The bundle with the one root that clients trust."""
        return self.directory / "ca.pem"

    def host(self, entry: Entry | str) -> str:
        """The host name a client has to connect to for this entry ('localhost' for most)."""
        return self._expand((self.zoo.entry(entry) if isinstance(entry, str) else entry).host)

    def issue(self, entry: Entry | str) -> Identity:
        """The certificate for an entry, made the first time it is asked for. An entry of one's own need not be in the zoo."""
        wanted = self.zoo.entry(entry) if isinstance(entry, str) else entry
        with self._mutex:
            kept = self._identities.get(wanted.name)
            if kept is None or kept[0] != wanted:
                with self._locked():
                    kept = (wanted, self._on_disk(wanted) or self._make(wanted))
                self._identities[wanted.name] = kept
            return kept[1]

    def bundle(self, *issuers: str) -> Path:
        """A file with several roots, for clients in the middle of a rotation: 'ca' and 'next-ca', say."""
        with self._mutex, self._locked():
            target = self.directory / f"bundle-{'-'.join(issuers)}.pem"
            write(target, b"".join(self._signer(name).pem for name in issuers))
            return target

    def crl(self, *, stale: bool = False, days: float = 365.0) -> Path:
        """The revocation list of 'ca' with every revoked entry in it (row C23); `stale`: nextUpdate was a day ago (C25).

        `days` from now is nextUpdate; a list with another one than the default has a file of its own.
        """
        with self._mutex:
            gone = [self.issue(entry) for entry in self.zoo.entries if entry.revoked and entry.issuer == "ca"]
            with self._locked():
                plain = "crl.pem" if days == 365.0 else f"crl-{days:g}-days.pem"
                target = self.directory / ("crl-stale.pem" if stale else plain)
                pems = [identity.chain_file.read_bytes() for identity in gone]
                write(target, build.revocation_list(self._signer("ca"), pems, stale=stale, days=days))
            return target

    def _expand(self, text: str) -> str:
        return text.replace("{host}", self.hosts[0]).replace("{HOST}", self.hosts[0].upper()).replace("{user}", self.user)

    def _names(self, entry: Entry) -> tuple[str, ...]:
        every = tuple(f"{'ip' if build.is_address(host) else 'dns'}:{host}" for host in self.hosts)
        listed = [name for item in entry.names for name in (every if item == "{hosts}" else (self._expand(item),))]
        return (*listed, *(f"dns:n{n}.example.test" for n in range(entry.fill)))

    def _signer(self, name: str) -> build.Signer:
        """The issuer called `name`, from memory, from disk, or new; with everything above it. The directory is locked."""
        if name not in self._signers:
            issuer = self.zoo.issuer(name)
            parent = self._signer(issuer.parent) if issuer.parent else None
            like = self._signer(issuer.like) if issuer.like else None
            certificate, key = (self.directory / "issuers" / f"{name}{end}" for end in (".pem", ".key"))
            recipe = _recipe(repr(issuer), self.hosts[0] if "{host}" in repr(issuer) else "", parent.pem if parent else b"")
            if not _made_by(certificate, recipe) or not key.is_file():
                permitted, excluded = ([self._expand(text) for text in names] for names in (issuer.permitted, issuer.excluded))
                pem, key_pem = build.issuer(issuer, parent, like, permitted=permitted, excluded=excluded)
                write(key, key_pem, mode=0o600)
                write(certificate, recipe + pem)
            self._signers[name] = build.signer(certificate.read_bytes(), key.read_bytes(), parent)
        return self._signers[name]

    def _files(self, entry: Entry) -> tuple[Path, Path]:
        base = self.directory / "identities" / entry.name
        return base.with_suffix(".pem"), base.with_suffix(".key")

    def _entry_recipe(self, entry: Entry) -> bytes:
        above = b"" if entry.issuer == "self" else self._signer(entry.issuer).pem
        return _recipe(repr(entry), repr((self.hosts, self.user)), above)

    def _on_disk(self, entry: Entry) -> Identity | None:
        """What another process, or an earlier run, left here, if it is still what the entry asks for."""
        chain, key = self._files(entry)
        if not key.is_file() or not _made_by(chain, self._entry_recipe(entry)):
            return None
        identity = self._identity(entry)
        wanted_end = build.days_from_now(entry.days[1]).timestamp()
        if entry.days == Entry.__dataclass_fields__["days"].default:
            return identity if identity.not_after - (wanted_end - entry.days[1] * 86_400) > _FRESH else None
        return identity if abs(identity.not_after - wanted_end) <= _TOLERANCE else None

    def _make(self, entry: Entry) -> Identity:
        signer = None if entry.issuer == "self" else self._signer(entry.issuer)
        leaf, key = build.leaf(entry, signer, names=self._names(entry), common_name=self._expand(entry.cn))
        above = signer.intermediates if signer else []
        if entry.chain == "leaf":
            above = []
        elif entry.chain == "reversed" and signer:
            above = [signer.root, *reversed(above)]
        chain_file, key_file = self._files(entry)
        write(key_file, build.new_key_pem() if entry.key_file == "other" else key, mode=int(entry.key_mode, 8))
        write(chain_file, self._entry_recipe(entry) + leaf + b"".join(above))
        return self._identity(entry)

    def _identity(self, entry: Entry) -> Identity:
        chain_file, key_file = self._files(entry)
        facts = build.facts(chain_file.read_bytes())
        at = self.zoo.issuer(entry.issuer) if entry.issuer != "self" else None
        while at and at.parent:
            at = self.zoo.issuer(at.parent)
        ca_file = self.ca_file
        if at is None or at.name != "ca":
            ca_file = self.directory / "issuers" / f"{at.name}.pem" if at else chain_file
        return Identity(
            name=entry.name,
            chain_file=chain_file,
            key_file=key_file,
            fingerprint=facts.fingerprint,
            ca_file=ca_file,
            row=entry.row,
            not_before=facts.not_before,
            not_after=facts.not_after,
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directory against other processes (and other Authority objects of this one)."""
        handle = os.open(self.directory / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _recipe(*parts: str | bytes) -> bytes:
    """The first line of a PEM file of ours: readers skip text before the first BEGIN (RFC 7468 5.2)."""
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()
    return f"# made for tests only, recipe {digest[:32]}\n".encode()


def _made_by(path: Path, recipe: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.readline() == recipe
    except FileNotFoundError:
        return False


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` in one step, with `mode` from the first byte on: a key is never readable for others, not even briefly."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(handle, mode)  # the umask may have taken bits that the entry asks for
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(data)
    finally:
        os.close(handle)
    temporary.replace(path)
