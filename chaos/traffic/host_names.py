"""Names for the host catalogue: which are listed, and unknown ones that come close to them, the same for the same seed."""

from __future__ import annotations

import fnmatch
import ipaddress
import random
import re
import string
from dataclasses import dataclass, field

_PLACES = ("example", "test", "invalid", "example.net", "example.org")  # reserved by RFC 2606: nobody's
_LOOKALIKES = {"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "x": "х", "i": "і", "s": "ѕ"}  # noqa: RUF001  (Cyrillic)


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


@dataclass(slots=True)
class Words:
    """What the placeholders of the catalogue stand for with this target. Every `evil()` and `label()` is another one."""

    hosts: HostNames
    seed: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
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
        names = (f"evil-{self.label()}.{place}" for place in self._random.sample(_PLACES, len(_PLACES)))
        return next((one for one in names if not self.hosts.lists(one)), f"{self.label()}.unlisted.invalid")

    def misses(self) -> tuple[str, ...]:
        """Near misses of the preview hosts: the pattern without its dot, with another letter for it, and as a prefix."""
        found: list[str] = []
        for pattern in self.hosts.preview:
            name = pattern.lower().replace("*", self.label())
            head, _, tail = name.partition(".")
            found += [f"{name}.{self.evil()}", f"evil{tail}" if pattern.startswith("*.") else f"evil{name}", f"{head}x{tail}"]
        return tuple(one for one in found if "." in one and not self.hosts.lists(one))

    def unknown(self, count: int) -> list[tuple[str, str]]:
        """`count` different (row, name): RFC-valid host names that are not listed, a seventh of them of each kind."""
        kinds = [self._far, self._place, self._typo, self._lookalike, self._below, self._prefix, self._suffix]
        found: dict[str, str] = {}
        tried = 0
        while len(found) < count and tried < 50 * count:
            row, name = kinds[tried % len(kinds)]()
            tried += 1
            if name and not self.hosts.lists(name) and not is_address(name) and name != "localhost":
                found.setdefault(name, row)
        return [(row, name) for name, row in found.items()]

    def _near(self) -> str:
        """A listed name to come close to; '' where there is none but addresses."""
        names = [bare_name(name).replace("*", self.label()) for _, name in self.hosts.served()]
        return self._random.choice([one for one in names if not is_address(one)] or [""])

    def _far(self) -> tuple[str, str]:
        return "H01", f"{self.label()}.{self._random.choice(_PLACES)}"

    def _place(self) -> tuple[str, str]:
        head, dot, _ = self._near().rpartition(".")
        return ("H01", f"{head}.{self.label()}") if dot else self._far()

    def _typo(self) -> tuple[str, str]:
        name = self._near()
        letters = [at for at, letter in enumerate(name) if letter.isalnum()]
        if not letters:
            return self._far()
        at = self._random.choice(letters)
        other = self._random.choice(string.ascii_lowercase)
        return "H01", name[:at] + self._random.choice((other, name[at] + other, name[at] * 2)) + name[at + 1 :]

    def _lookalike(self) -> tuple[str, str]:
        """One label with a Cyrillic letter that looks the same, as an A-label (RFC 5890)."""
        labels = self._near().split(".")
        fit = [(at, letter) for at, label in enumerate(labels) for letter in label if letter in _LOOKALIKES]
        if not fit:
            return self._far()
        at, letter = self._random.choice(fit)
        label = f"{labels[at].replace(letter, _LOOKALIKES[letter], 1)}{self._random.randrange(100)}"
        labels[at] = f"xn--{label.encode('punycode').decode('ascii')}"
        return "H01", ".".join(labels)

    def _below(self) -> tuple[str, str]:
        name = self._near()
        return ("H01", f"{self.label()}.{name}") if "." in name else self._far()

    def _prefix(self) -> tuple[str, str]:
        name = self._near()
        return ("H02", f"{name}.{self.evil()}") if name else self._far()

    def _suffix(self) -> tuple[str, str]:
        domains = [name[2:].lower() for _, name in self.hosts.served() if name.startswith("*.")]
        name = self._random.choice([self._near(), *domains])  # below a wildcard every suffix is listed: its domain is what counts
        return ("H03", f"{self.label()}{self._random.choice(('', '-'))}{name}") if name else self._far()
