"""Hosts that hypothesis draws: unknown names that come close to listed ones, values outside the grammar, and the smallest that fails.

Kept apart because importing hypothesis takes a third of a second: `chaos.traffic.host_requests` imports this late. What is drawn
depends on the run's seed alone; nothing is read from or written to an example database. Every kind of name is a strategy of its
own, named after the row of the catalogue that it belongs to, so that a failure is shrunk within its own kind: to the shortest and
plainest host that is still answered wrongly (hypothesis' order: fewer characters, then earlier ones).
"""

from __future__ import annotations

import random
import string
import tempfile
from typing import TYPE_CHECKING, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.errors import NoSuchExample

from chaos.traffic.host_names import LOOKALIKES, PLACES, bare_name, is_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from chaos.traffic.host_names import HostNames

T = TypeVar("T")

ROUNDS = 12  # of drawing, each with a seed of its own: a bound for strategies that have fewer values than are wanted
LOOKED = 80  # names that are asked while a first failing one is looked for; as many shrink steps as the budget holds follow
# Visible characters that are in no uri-host and no port (RFC 3986, 3.2.2), and the blank. ',' and the other sub-delims are allowed.
FOREIGN = '@/?#\\"<>^`{|}[] '

_LETTERS, _LDH = string.ascii_lowercase, string.ascii_lowercase + string.digits + "-"


def unknown(hosts: HostNames) -> dict[str, SearchStrategy[str]]:
    """Row -> host names that are valid (RFC 952, 1123) and not listed; all but the first way come as close to listed ones as can be.

    Without a listed name to come close to (there are only addresses, or 'localhost') there is H01 alone.
    """
    near = [bare_name(name) for _, name in hosts.served() if not is_address(bare_name(name)) and "." in name]
    domains = [name[2:].lower() for _, name in hosts.served() if name.startswith("*.")]
    far = st.builds("{}.{}".format, labels(), st.sampled_from(PLACES))
    kinds = {"H01": [far]}
    if near:
        name = st.sampled_from(near).flatmap(_filled)
        ends = st.sampled_from(near).flatmap(_filled) if not domains else st.one_of(name, st.sampled_from(domains))
        kinds["H01"] += [
            st.builds(lambda one, label: f"{one.rpartition('.')[0]}.{label}", name, labels()),
            st.builds(_typo, name, st.integers(0, 200), st.sampled_from(_LETTERS), st.integers(0, 2)),
            st.builds(_lookalike, name, st.integers(0, 200), st.integers(0, 99)),
        ]
        kinds["H02"] = [st.builds("{}.{}".format, name, st.one_of(labels(), far))]
        # Below a wildcard every suffix is listed, so its own domain is what counts there.
        kinds["H03"] = [
            st.builds("{}{}{}".format, labels(), st.sampled_from(("", "-")), ends),
            st.builds("{}.{}".format, labels(), name),
        ]

    def fine(name: str) -> bool:
        return len(name) < 254 and name != "localhost" and not is_address(name) and not hosts.lists(name)

    # A typing error at either end makes a listed name the suffix or the prefix of another one: the other rows are about those.
    whole = [*domains, *(name for name in near if "*" not in name)]
    kinds["H01"] = [of_kind.filter(lambda name: not any(one in name for one in whole)) for of_kind in kinds["H01"]]
    return {row: st.one_of(of_kind).filter(fine) for row, of_kind in kinds.items()}


def rows(hosts: HostNames) -> SearchStrategy[tuple[str, str]]:
    """(row, name) of all of these, each way of coming close as often as any other."""
    return st.one_of([st.tuples(st.just(row), kind) for row, kind in unknown(hosts).items()])


def malformed(g: str) -> SearchStrategy[str]:
    """An unknown host beside the listed one `g`, with something between them that is in no host."""
    evil = st.builds("{}.{}".format, labels(), st.sampled_from(PLACES))
    between = st.builds(
        "{}{}{}".format,
        st.sampled_from(("", ":", ":80", ".", ",")),
        st.sampled_from(FOREIGN),
        st.sampled_from(("", ".", "@", "//")),
    )
    one = st.builds("{}{}{}".format, st.just(g), between, evil)
    other = st.builds("{}{}{}".format, evil, between, st.just(g))
    return st.one_of(one, other)


def labels() -> SearchStrategy[str]:
    """A label of up to ten letters, digits and hyphens that begins with a letter and ends with none of the last.

    Drawn as one number, which is several times as quick as letter by letter; 0 is 'a', and smaller numbers are shorter labels.
    """
    return st.integers(0, 26 * len(_LDH) ** 9).map(_label).filter(lambda label: label[2:4] != "--")  # RFC 5891, 4.2.3.1


def _label(number: int) -> str:
    number, first = divmod(number, 26)
    rest = ""
    while number:
        number, at = divmod(number, len(_LDH))
        rest += _LDH[at]
    return (_LDH[first] + rest).rstrip("-")


def drawn(strategy: SearchStrategy[T], count: int, *, seed: int) -> list[T]:
    """`count` different values, or as many as there are; the same for the same seed."""
    found: dict[T, None] = {}
    for number in range(ROUNDS):
        missing = count - len(found)
        if missing <= 0:
            break
        _draw(strategy, missing + 10, random.Random(f"{seed}-{number}").getrandbits(64), found)  # noqa: S311
    return list(found)[:count]


def _draw(strategy: SearchStrategy[T], count: int, seed: int, found: dict[T, None]) -> None:
    _nothing_on_disk()

    @hypothesis.seed(seed)
    @_quiet(max_examples=count, phases=(Phase.generate,))
    @given(strategy)
    def collect(value: T) -> None:
        found.setdefault(value)

    collect()


def smallest(strategy: SearchStrategy[T], fails: Callable[[T], bool], *, seed: int) -> T | None:
    """The simplest value that `fails`, as far as hypothesis gets; None when it draws none that does.

    `fails` is asked once for each value. It may say False to everything when it has had enough: what was found so far stays.
    """
    _nothing_on_disk()
    known: dict[T, bool] = {}

    def told(value: T) -> bool:
        if value not in known:
            known[value] = fails(value)
        return known[value]

    try:
        return hypothesis.find(
            strategy,
            told,
            settings=_quiet(max_examples=LOOKED, phases=(Phase.generate, Phase.shrink)),
            random=random.Random(seed),  # noqa: S311
        )
    except NoSuchExample:
        return None


def _quiet(*, max_examples: int, phases: tuple[Phase, ...]) -> settings:
    """No example database, no time limit for one example, no advice about the tests of this project."""
    healthy = list(HealthCheck)
    return settings(
        max_examples=max_examples,
        phases=phases,
        database=None,
        deadline=None,
        suppress_health_check=healthy,
        print_blob=False,
    )


def _nothing_on_disk() -> None:
    """Hypothesis keeps a cache beside where it was started: not in other people's repositories."""
    set_hypothesis_home_dir(tempfile.gettempdir() + "/chaos-gate-hypothesis")


def _filled(pattern: str) -> SearchStrategy[str]:
    """A listed name; with a label for its '*'."""
    return labels().map(lambda label: pattern.replace("*", label)) if "*" in pattern else st.just(pattern)


def _typo(name: str, at: int, letter: str, how: int) -> str:
    """One letter replaced, added, or doubled."""
    places = [place for place, char in enumerate(name) if char.isalnum()]
    place = places[at % len(places)]
    return name[:place] + (letter, name[place] + letter, name[place] * 2)[how] + name[place + 1 :]


def _lookalike(name: str, at: int, number: int) -> str:
    """One label with a Cyrillic letter that looks the same, as an A-label (RFC 5890)."""
    parts = name.split(".")
    fit = [(place, char) for place, label in enumerate(parts) for char in label if char in LOOKALIKES]
    if not fit:
        return f"xn--{number}-eua.{name}"
    place, char = fit[at % len(fit)]
    label = f"{parts[place].replace(char, LOOKALIKES[char], 1)}{number}"
    parts[place] = f"xn--{label.encode('punycode').decode('ascii')}"
    return ".".join(parts)
