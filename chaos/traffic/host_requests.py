"""The host catalogue's rows as bytes: chaos/checks/hosts.toml with the names of one target put in."""

from __future__ import annotations

import itertools
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from chaos.traffic.host_names import HostNames, Words, bare_name, is_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER_AGENT = "chaos-gate"
GENERATED = ("absent", "bad")  # classes whose rows are sent again and again; 'unknown' has names of its own
_EXPECTED = {"refuse": "400", "serve": "2xx"}
_UPGRADE = (
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. `evil` is the name in it that no answer may be built from; `spared` a listed name above it ('www.' and the apex)
    that it may be; `before` goes ahead on the same connection.

    `wait` is in seconds: longer than that nobody waits for an answer to it. `target` is the request line.
    """

    row: str
    request: bytes
    sample: str
    method: str
    path: str
    target: str
    expected: str
    evil: str = ""
    spared: str = ""
    before: tuple[bytes, ...] = ()
    wait: float = 60.0


@cache
def catalogue() -> Mapping[str, Mapping[str, Any]]:
    """hosts.toml: row id -> its table. Any stands for the values of TOML."""
    return tomllib.loads(files("chaos").joinpath("checks", "hosts.toml").read_text(encoding="utf-8"))


def rows(words: Words) -> list[Asked]:
    """Every row that can be sent to this target, in the catalogue's order."""
    return [asked for key, row in catalogue().items() for asked in _requests(key, row, words)]


def listed(words: Words) -> list[Asked]:
    """A request for every entry of [target.hosts]; the first is the canonical one. A '*' becomes a fresh label each time."""
    found = []
    for kind, pattern in words.hosts.served():
        name = pattern.replace("*", words.label())
        row = "H71" if kind == "crawler" else "H65" if "*" in pattern else "H61"
        agent = catalogue()["H71"]["agent"] if kind == "crawler" else ""
        found.append(simple(row, name, words.path, words, said=f"{kind} {pattern}, asked as {name}", agent=agent))
    for name, path in itertools.product(words.hosts.health, words.health):
        row = "H69" if is_address(name) else "H70"
        found.append(simple(row, name.replace("*", words.label()), path, words, said=f"health {name}"))
    return found


def generated(words: Words, per_class: int) -> list[Asked]:
    """`per_class` requests of each class that is judged as a rate, the classes in turn so that a cut-off leaves some of each.

    The class bad has two parts of that size: the catalogue's rows again and again, and values that hypothesis draws.
    """
    unknown = [simple(row, name, words.path, words, evil=name) for row, name in words.unknown(per_class)]
    bad = [simple("H10b", value, words.path, words) for value in words.malformed(per_class)]
    again = [list(itertools.islice(_again(one, words), per_class)) for one in GENERATED]
    turns = itertools.zip_longest(unknown, *again, bad)
    return [asked for turn in turns for asked in turn if asked is not None]


def _again(kind: str, words: Words) -> Iterator[Asked]:
    """The rows of a class, over and over, with fresh evil names."""
    of_kind = [(key, row) for key, row in catalogue().items() if row.get("class") == kind]
    while True:
        turn = [asked for key, row in of_kind for asked in _requests(key, row, words)]
        if not turn:
            return
        yield from turn


def simple(key: str, name: str, path: str, words: Words, *, said: str = "", evil: str = "", agent: str = "") -> Asked:
    """A plain GET with one Host line."""
    row = catalogue()[key]
    head = f"GET {path} HTTP/1.1\r\nHost: {name}\r\n{_headers(words, agent)}Connection: close\r\n\r\n"
    return Asked(
        row=key,
        request=_bytes(head),
        sample=said or f"Host: {name}",
        method="GET",
        path=path,
        target=path,
        expected=_EXPECTED.get(row["must"], ""),
        evil=evil,
    )


def _requests(key: str, row: Mapping[str, Any], words: Words) -> Iterator[Asked]:
    """The requests of one row: one for each `host` and each path, where every placeholder has a value."""
    if not {"host", "lines", "raw"} & set(row) or "generated" in row:
        return  # not run here, or sent for each listed host
    hosts = row.get("host", ())
    spelt = [[f"Host: {one}"] for one in ([hosts] if isinstance(hosts, str) else hosts)] or [row.get("lines", [])]
    for lines, path in itertools.product(spelt, row.get("paths", ["{path}"])):
        for values in _values(words, "".join([*lines, path, str(row.get("start", "")), str(row.get("raw", ""))])):
            filled = [_fill(line, values) for line in lines]
            single = filled[0].removeprefix("Host: ") if len(filled) == 1 and "host" in row else ""
            if _listed_anyway(row, single, words.hosts):
                continue
            at = {**values, "path": _fill(path, {**values, "path": words.path})}
            for form in _forms(row, words):
                yield _request(key, form, words, filled, {**at, "path": form.get("at", at["path"])})


def _forms(row: Mapping[str, Any], words: Words) -> Iterator[Mapping[str, Any]]:
    """A row as it is; for each of its `methods`; or as each of the writes that it `sends`."""
    for method in row.get("methods", ()):
        empty = ["Content-Length: 0"] if method == "POST" else []
        yield {**row, "start": f"{method} {{path}} HTTP/1.1", "more": [*row.get("more", ()), *empty]}
    for write in words.writes(f"chaos{words.label()}") if "sends" in row else ():
        lines = [f"{name}: {value}" for name, value in write.headers]
        size = f"Content-Length: {len(write.body.encode())}"
        yield {
            **row,
            "start": f"{write.method} {{path}} HTTP/1.1",
            "at": write.path,
            "own": [*lines, size],
            "payload": write.body,
        }
    if "methods" not in row and "sends" not in row:
        yield row


def _listed_anyway(row: Mapping[str, Any], single: str, hosts: HostNames) -> bool:
    """Whether a host that is to be refused is listed with this target after all."""
    if row.get("unlisted"):
        return hosts.lists(single, health=False)
    return row["must"] == "refuse" and re.fullmatch(r"[a-z0-9.-]+", single) is not None and hosts.lists(single)


def _values(words: Words, template: str) -> Iterator[dict[str, str]]:
    """What the placeholders in `template` stand for; nothing when one of them has no value, several where one has several."""
    separator = "&" if "?" in words.path else "?"
    one = {
        "g": words.g,
        "G": words.g.upper(),
        "g%": words.g.replace(".", "%2e"),
        "w": words.w,
        "apex": words.apex,
        "base": words.base,
        "page": words.page,
        "PAGE": words.page.upper(),
        "path": words.path,
        "path_query": f"{words.path}{separator}next=",
        "a2z": "abcdefghij" * 7,
        "label": words.label(),
    }
    named = set(re.findall(r"\{([^}]+)\}", template))
    many = {
        "near": words.misses("preview") if "near" in named else (),
        "close": words.misses("allowed", "seo", "staging", "crawler") if "close" in named else (),
        "other": words.others,
        "health": words.health,
        "invalid": words.invalid,
        "ops": words.ops,
        "document": words.document,
        "probe": tuple(bare_name(name).replace("*", words.label()) for name in words.hosts.health),
    }
    if any(not one[key] for key in named & set(one)) or (words.g.replace(".", "").isdigit() and "g%" in named):
        return
    keys = sorted(named & set(many))
    for combination in itertools.product(*(many[key] for key in keys)):
        yield {**one, "e": words.evil(), **dict(zip(keys, combination, strict=True))}


def _request(key: str, row: Mapping[str, Any], words: Words, lines: list[str], values: dict[str, str]) -> Asked:
    path = values["path"]
    more = [_fill(line, values) for line in row.get("more", ())] + (list(_UPGRADE) if row.get("upgrade") else [])
    headers = _headers(words, row.get("agent", ""))
    end = "Connection: Upgrade" if row.get("upgrade") else "Connection: close"
    start = _fill(row.get("start", "GET {path} HTTP/1.1"), values)
    if "own" in row:  # a write's own headers, which begin with the target's
        headers = "".join(f"{line}\r\n" for line in row["own"])
    text = "\r\n".join([start, *lines, *more, f"{headers}{end}", "", row.get("payload", _fill(row.get("body", ""), values))])
    if "raw" in row:
        text = _fill(row["raw"], {**values, "headers": headers.replace("\r\n", "\n")})
        start = text.partition("\n")[0]
    good = f"GET {words.path} HTTP/1.1\r\nHost: {words.g}\r\n{headers}\r\n"
    used = text.partition(headers)[0] + _fill(row.get("body", ""), values)
    own = lines[0].removeprefix("Host: ") if key in {"H03", "H48", "H49", "H72", "H72b"} else ""
    return Asked(
        row=key,
        request=_bytes(text),
        sample=_said(start, lines, more, row),
        method=start.partition(" ")[0],
        path=path,
        target=start,
        expected=_EXPECTED.get(row["must"], ""),
        evil=own or (values["e"] if values["e"] in used else ""),
        spared=f"www.{own}" if key == "H49" else "",
        before=(_bytes(good),) if row.get("after") else (),
        wait=row.get("wait", 60.0),
    )


def _said(start: str, lines: list[str], more: list[str], row: Mapping[str, Any]) -> str:
    """What was sent, in one printable line: the Host lines, and whatever else the row is about."""
    said = [start] if "start" in row or "raw" in row else []
    said += lines or ([] if "raw" in row else ["no Host"])
    said += [one for one in more if not one.startswith(("Sec-", "Trailer"))]
    said += [f"User-Agent: {row['agent']}"] if "agent" in row else []
    said += ["second request of a connection"] if row.get("after") else []
    return "; ".join(said).encode("unicode_escape").decode("ascii")[:300]


def _headers(words: Words, agent: str) -> str:
    """The target's own headers and ours, each with its CRLF."""
    own = [(name, value) for name, value in words.headers if not (agent and name.lower() == "user-agent")]
    names = {name.lower() for name, _ in own}
    ours = [("User-Agent", agent or USER_AGENT), ("Accept", "*/*")]
    return "".join(f"{name}: {value}\r\n" for name, value in [*own, *((n, v) for n, v in ours if n.lower() not in names)])


def _fill(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{([^}]+)\}", lambda found: values.get(found[1], found[0]), template)


def _bytes(text: str) -> bytes:
    """As it goes over the wire: UTF-8, of which everything but H22 uses only ASCII."""
    return text.encode("utf-8")
