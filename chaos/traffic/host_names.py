"""Names for the host catalogue: which are listed, and unknown ones that come close to them, the same for the same seed."""

from __future__ import annotations

import fnmatch
import ipaddress
import random
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.config import Hosts

PLACES = ("example", "test", "invalid", "example.net", "example.org")  # reserved by RFC 2606: nobody's
LOOKALIKES = {"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "x": "х", "i": "і", "s": "ѕ"}  # noqa: RUF001  (Cyrillic)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNames:
    """[target.hosts] as plain text. A '*' stands for a label ('*.landing.example.test')."""

    allowed: tuple[str, ...]
    seo: tuple[str, ...] = ()
    preview: tuple[str, ...] = ()
    staging: tuple[str, ...] = ()
    crawler: tuple[str, ...] = ()
    health: tuple[str, ...] = ()

    def served(self) -> tuple[tuple[str, str], ...]:
        """(list, name or pattern) of every entry that is served on all paths: all but health."""
        lists = ("allowed", "seo", "preview", "staging", "crawler")
        return tuple((one, name) for one in lists for name in getattr(self, one))

    def lists(self, name: str, *, health: bool = True) -> bool:
        """Whether a healthy service may serve `name`: listed, at any depth below a wildcard, or a wildcard's apex."""
        bare = bare_name(name)
        patterns = [bare_name(one) for _, one in self.served()] + ([bare_name(one) for one in self.health] if health else [])
        return any(fnmatch.fnmatchcase(bare, one) or one == f"*.{bare}" for one in patterns)


def listed(hosts: Hosts | None) -> Callable[[str], bool]:
    """Whether a recorded host is one that [target.hosts] serves to everybody; nothing is, without the table."""
    names = HostNames(allowed=hosts.allowed, seo=hosts.seo) if hosts else None
    return lambda host: bool(host) and names is not None and names.lists(host, health=False)


def bare_name(name: str) -> str:
    """Lower case, without a port."""
    return re.sub(r":\d*$", "", name.lower()) if not name.startswith("[") else name.lower()


def is_address(name: str) -> bool:
    """Whether a name is an IP address, in brackets or not."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request with a body, as chaos.toml describes it: `headers` hold neither Host nor what says how long the body is."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


def _no_writes(_unique: str) -> tuple[Sent, ...]:
    return ()


@dataclass(slots=True)
class Words:
    """What the placeholders of the catalogue stand for with this target. Every `evil()` and `label()` is another one.

    `path`, `others`, `health`, `invalid`, `ops` and `document` are paths; `writes` makes the writes for a text that is used once.
    """

    hosts: HostNames
    seed: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    ops: tuple[str, ...] = ()
    document: tuple[str, ...] = ()
    writes: Callable[[str], tuple[Sent, ...]] = _no_writes
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  (to be repeatable is the point)

    @property
    def g(self) -> str:
        """The first allowed host, without a port."""
        return bare_name(self.hosts.allowed[0])

    @property
    def w(self) -> str:
        """The domain of the first wildcard ('*.'), '' without one."""
        return next((name[2:].lower() for _, name in self.hosts.served() if name.startswith("*.")), "")

    @property
    def apex(self) -> str:
        """What is left of an allowed 'www.' host, where that is not listed itself; else ''."""
        rest = (name[4:].lower() for name in self.hosts.allowed if name.lower().startswith("www."))
        return next((one for one in rest if not self.hosts.lists(one)), "")

    def label(self) -> str:
        """A fresh label of eight letters and digits."""
        letters = string.ascii_lowercase
        return self._random.choice(letters) + "".join(self._random.choices(letters + string.digits, k=7))

    def evil(self) -> str:
        """A fresh unknown host."""
        names = (f"evil-{self.label()}.{place}" for place in self._random.sample(PLACES, len(PLACES)))
        return next((one for one in names if not self.hosts.lists(one)), f"{self.label()}.unlisted.invalid")

    @property
    def base(self) -> str:
        """The domain above the first allowed host, '' where that is an address or has none."""
        above = self.g.partition(".")[2]
        return above if "." in above and not is_address(self.g) else ""

    @property
    def page(self) -> str:
        """A landing page's host (of [target.hosts] seo); the first allowed one where there is none."""
        return bare_name(self.hosts.seo[0]).replace("*", self.label()) if self.hosts.seo else self.g

    def misses(self, *lists: str) -> tuple[str, ...]:
        """Near misses of the hosts in `lists`: the pattern without its dot, with another letter for it, and as a prefix."""
        found: list[str] = []
        for pattern in (name for one in lists for name in getattr(self.hosts, one)):
            name = bare_name(pattern).replace("*", self.label())
            if is_address(name) or "." not in name:
                continue
            head, _, tail = name.partition(".")
            found += [f"{name}.{self.evil()}", f"evil{tail}" if pattern.startswith("*.") else f"evil{name}", f"{head}x{tail}"]
        return tuple(one for one in found if "." in one and not self.hosts.lists(one))

    def unknown(self, count: int) -> list[tuple[str, str]]:
        """`count` different (row, name): RFC-valid host names that are not listed, of each kind in turn; hypothesis draws them."""
        from chaos.traffic import host_strategies  # noqa: PLC0415  (see there)

        found: dict[str, str] = {}
        for more in range(4):  # two ways may come to the same name, so a few more are drawn than are wanted
            pairs = host_strategies.drawn(host_strategies.rows(self.hosts), count + 20, seed=self.seed + more)
            for row, name in pairs:
                found.setdefault(name, row)
            if len(found) >= count:
                break
        return [(row, name) for name, row in found.items()][:count]

    def malformed(self, count: int) -> list[str]:
        """`count` different values of a Host line that no grammar allows; hypothesis draws them."""
        from chaos.traffic import host_strategies  # noqa: PLC0415  (see there)

        return host_strategies.drawn(host_strategies.malformed(self.g), count, seed=self.seed)
