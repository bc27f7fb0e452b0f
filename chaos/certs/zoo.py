"""The zoo: which certificates there are, what is wrong with each, and what a client must do about it. Data only."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "fixtures" / "zoo.toml", _PACKAGE.parent / "fixtures" / "certs" / "zoo.toml")
_CHOICES = {
    "must": ("reject", "connect", "policy"),
    "role": ("server", "client", "reload"),
    "key": ("p256", "rsa1024", "rsa2048"),
    "digest": ("sha256", "sha1"),
    "chain": ("full", "leaf", "reversed"),
    "key_file": ("own", "other"),
    "key_mode": ("0600", "0644"),
}
_USES = ("server", "client")
_Place = tuple[str, int, str]  # which table ('entry'), the how-manieth, which key of it ('': its header)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One authority: a root when `parent` is ''. `like` names the issuer whose subject it copies.

    `days` is its validity in days from now (empty: 2000 to 3000). `ca` False leaves basicConstraints CA:FALSE. `path_length`
    -1 is no limit. `permitted` and `excluded` are name-constraint subtrees of DNS names (RFC 5280 4.2.1.10).
    """

    name: str
    parent: str = ""
    like: str = ""
    days: tuple[float, float] | None = None
    ca: bool = True
    path_length: int = -1
    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """True for an ordinary self-signed root."""
        return self == Issuer(name=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One certificate: what it is called, which row it is for, what must come of it and why, and how it is made.

    `must` is what a verify-full client has to do: 'reject' (give up before StartupMessage), 'connect', or 'policy' (reported, and
    decided by chaos.toml). For `role` 'client' it is what the server has to do; for 'reload' the server must refuse to load it.
    `host` is the host name the client has to use for the entry to mean what it says ('{host}': the authority's first host).
    `pair` names the entry that has no defect but is otherwise the same. The rest is explained in docs/certificates.md.
    """

    name: str
    row: str
    must: str
    why: str
    role: str = "server"
    host: str = "{host}"
    pair: str = "valid"
    names: tuple[str, ...] = ("{hosts}",)
    cn: str = ""
    days: tuple[float, float] = (-2.0, 365.0)
    issuer: str = "ca"
    chain: str = "full"
    eku: tuple[str, ...] = _USES
    key: str = "p256"
    digest: str = "sha256"
    revoked: bool = False
    fill: int = 0
    key_file: str = "own"
    key_mode: str = "0600"

    @property
    def plain(self) -> bool:
        """True when only the dates, the issuer or the files set it apart from the valid one."""
        usual = (("{hosts}",), "", _USES, "p256", "sha256", 0)
        return self.issuer != "self" and (self.names, self.cn, self.eku, self.key, self.digest, self.fill) == usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A certificate and its key, on disk.

    `fingerprint` is the SHA-256 of the leaf's DER in hex, as `openssl x509 -fingerprint -sha256` prints it but without colons,
    in lower case. `ca_file` is the root at the top of the chain (the leaf itself when it is self-signed). `not_before` and
    `not_after` are seconds since the epoch.
    """

    name: str
    chain_file: Path
    key_file: Path
    fingerprint: str
    ca_file: Path
    row: str = ""
    not_before: float = 0.0
    not_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Zoo:
    """All entries and issuers, in the order of the file."""

    entries: tuple[Entry, ...]
    issuers: tuple[Issuer, ...]
    path: Path

    @classmethod
    def load(cls, path: Path | None = None) -> Zoo:
        """Read `path`, or the zoo that comes with the package.

        Raises ConfigError, with file and line, for anything unknown, missing, of a wrong type, or named twice.
        """
        chosen = path or next((place for place in _PLACES if place.is_file()), _PLACES[0])
        try:
            text = chosen.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            remedy = "name a readable zoo.toml, or install the package again"
            raise ConfigError(f"the certificate zoo cannot be read: {error}", remedy=remedy, where=str(chosen)) from error
        return _Reader(chosen, text).read()

    def entry(self, name: str) -> Entry:
        """The entry called `name`; UsageError with the nearest name when there is none."""
        found = next((entry for entry in self.entries if entry.name == name), None)
        if found is None:
            raise UsageError(
                f"there is no certificate called {name!r}{_did_you_mean(name, [entry.name for entry in self.entries])}",
                remedy="use a name from fixtures/certs/zoo.toml, or add an entry there",
                where=str(self.path),
            )
        return found

    def issuer(self, name: str) -> Issuer:
        """The issuer called `name`; UsageError when there is none."""
        found = next((issuer for issuer in self.issuers if issuer.name == name), None)
        if found is None:
            remedy = "use the name of an [[issuer]] of the zoo"
            near = _did_you_mean(name, [issuer.name for issuer in self.issuers])
            raise UsageError(f"there is no issuer called {name!r}{near}", remedy=remedy, where=str(self.path))
        return found

    def row(self, row: str) -> tuple[Entry, ...]:
        """The entries for one catalogue row, such as 'C5', in the order of the file."""
        return tuple(entry for entry in self.entries if entry.row == row)


class _Reader:
    """Turns the text into a Zoo, and knows the line of what it complains about."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text

    def read(self) -> Zoo:
        try:
            document = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            raise self._wrong(f"not valid TOML: {error}", int(found[1]) if found else self._text.count("\n") + 1) from error
        for key in document:
            if key not in {"entry", "issuer"}:
                raise self._wrong(f"unknown table {key!r}{_did_you_mean(key, ['entry', 'issuer'])}", self._line_of(key))
        issuers = tuple(Issuer(**table) for table in self._tables(document, "issuer", Issuer))
        entries = tuple(Entry(**table) for table in self._tables(document, "entry", Entry))
        self._refer("issuer", "parent", [(i.parent, n) for n, i in enumerate(issuers)], ["", *(i.name for i in issuers)])
        self._refer("issuer", "like", [(i.like, n) for n, i in enumerate(issuers)], ["", *(i.name for i in issuers)])
        self._refer("entry", "issuer", [(e.issuer, n) for n, e in enumerate(entries)], ["self", *(i.name for i in issuers)])
        self._refer("entry", "pair", [(e.pair, n) for n, e in enumerate(entries)], [e.name for e in entries])
        self._no_circle(issuers)
        return Zoo(entries=entries, issuers=issuers, path=self._path)

    def _tables(self, document: Mapping[str, Any], kind: str, model: type[Entry | Issuer]) -> list[dict[str, Any]]:
        """Every [[kind]] table, checked against the fields of `model`. Any: values straight from TOML, typed by `_value`."""
        tables = document.get(kind, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise self._wrong(f"{kind!r} must be written as [[{kind}]]", self._line_of(kind))
        known = {field.name: field for field in fields(model)}
        seen: set[str] = set()
        checked: list[dict[str, Any]] = []
        for index, table in enumerate(tables):
            for key in table:
                if key not in known:
                    raise self._wrong(f"unknown key {key!r} in [[{kind}]]{_did_you_mean(key, list(known))}", (kind, index, key))
            missing = [name for name, field in known.items() if field.default is MISSING and name not in table]
            if missing:
                raise self._wrong(f"[[{kind}]] has no {' and no '.join(missing)}", (kind, index, ""))
            checked.append({key: self._value(known[key], value, (kind, index, key)) for key, value in table.items()})
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", table["name"]) or table["name"] == "self":
                raise self._wrong(f"{table['name']!r} cannot be a name: it becomes a file's", (kind, index, "name"))
            if table["name"] in seen:
                raise self._wrong(f"a second [[{kind}]] called {table['name']!r}", (kind, index, "name"))
            seen.add(table["name"])
        return checked

    def _value(self, field: Field[Any], value: Any, at: _Place) -> Any:
        """`value` as the field wants it; Any because TOML values come in every type."""
        kind, name = str(field.type), field.name
        if kind.startswith("tuple[float"):
            numbers = isinstance(value, list) and len(value) == 2 and all(type(item) in {int, float} for item in value)
            if not numbers or not value[0] < value[1]:
                raise self._wrong(f"{name} must be two numbers, [start, end] in days from now", at)
            return (float(value[0]), float(value[1]))
        if kind.startswith("tuple[str"):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise self._wrong(f"{name} must be a list of strings", at)
            self._check_items(name, value, at)
            return tuple(value)
        if type(value) is not {"str": str, "bool": bool, "int": int}[kind]:
            raise self._wrong(f"{name} must be of type {kind}", at)
        if name in _CHOICES and value not in _CHOICES[name]:
            raise self._wrong(f"{name} is {value!r}; it can be {', '.join(_CHOICES[name])}", at)
        return value

    def _check_items(self, name: str, items: list[str], at: _Place) -> None:
        if name == "eku" and not set(items) <= set(_USES):
            raise self._wrong("eku can hold 'server' and 'client'", at)
        if name == "names" and not all(item == "{hosts}" or item.startswith(("dns:", "ip:")) for item in items):
            raise self._wrong("names start with 'dns:' or 'ip:', or are '{hosts}'", at)

    def _refer(self, kind: str, key: str, pairs: list[tuple[str, int]], known: list[str]) -> None:
        for value, index in pairs:
            if value not in known:
                near = _did_you_mean(value, known)
                raise self._wrong(f"{key} names {value!r}, which is not there{near}", (kind, index, key))

    def _no_circle(self, issuers: tuple[Issuer, ...]) -> None:
        above = {issuer.name: issuer.parent or issuer.like for issuer in issuers}
        for index, issuer in enumerate(issuers):
            at, steps = issuer.name, 0
            while at and steps <= len(issuers):
                at, steps = above[at], steps + 1
            if at:
                raise self._wrong(f"issuer {issuer.name!r} is below itself", ("issuer", index, "parent"))

    def _line(self, kind: str, index: int, key: str = "") -> int:
        """The line of `key` in the index-th [[kind]], or of its header. Good enough for this file: one key a line, no nesting."""
        lines = self._text.splitlines()
        headers = [n for n, line in enumerate(lines, 1) if re.match(rf"\s*\[\[\s*{kind}\s*\]\]", line)]
        if index >= len(headers):
            return 1
        for n in range(headers[index], len(lines)):
            if re.match(r"\s*\[", lines[n]):
                break
            if key and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", lines[n]):
                return n + 1
        return headers[index]

    def _line_of(self, key: str) -> int:
        pattern = re.compile(rf"""\s*\[{{0,2}}\s*["']?{re.escape(key)}\b""")
        return next((n for n, line in enumerate(self._text.splitlines(), 1) if pattern.match(line)), 1)

    def _wrong(self, what: str, at: _Place | int) -> ConfigError:
        line = at if isinstance(at, int) else self._line(*at)
        remedy = "mend the line; docs/certificates.md explains every key"
        return ConfigError(what, remedy=remedy, where=f"{self._path}:{line}")


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
