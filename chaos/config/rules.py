"""The rules that a single value of chaos.toml must keep. Each says what is wrong in one sentence, and what would be right."""

from __future__ import annotations

import json
import math
import re
import shlex
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from chaos.config.placeholders import ALWAYS, DEPLOY, REQUEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue, ValidationInfo

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:(?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::\d{{1,5}})?")
_LOCATION = re.compile(r"(?:/|https?://[^/\s]+)[^\s\x00-\x1f\x7f]*")
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_URL = re.compile(r"https?://[^/\s?#]+(?:/[^\s?#]*)?")


def wrong(what: str, remedy: str, *, key: str | int | None = None) -> PydanticCustomError:
    """An error about a value, or about `key` below it ('' is the value's own line too)."""
    return PydanticCustomError("rule", "{what}", {"what": what, "remedy": remedy, "key": key})


def shown(path: Path) -> str:
    """`path` as people want to read it: relative to where they are when it is below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def array(value: Any) -> Any:
    """TOML arrays only: pydantic's lenient tuple would also take sets, and our own defaults are tuples."""
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("tuple_type", "not an array")
    return value


def argv(value: Any) -> Any:
    """A command: program and arguments, one by one. No shell is involved, so one text with blanks in it is a mistake."""
    if isinstance(value, str):
        words = json.dumps(_words(value))
        raise wrong("expected an array of arguments, got text", f'write {words}; for a shell, ["sh", "-c", "..."]')
    array(value)
    if not value or value[0] == "":
        raise wrong("a command needs a program", 'for example ["python", "-m", "orders"]')
    return value


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an unclosed quote
        return text.split()


def commands(value: Any) -> Any:
    """An array of commands, each an array itself."""
    if isinstance(value, str):
        raise wrong("expected an array of commands, got text", f"write [{json.dumps(_words(value))}]")
    array(value)
    if value and all(isinstance(item, str) for item in value):
        raise wrong("expected an array of commands, got one command", f"put brackets around it: [{json.dumps(list(value))}]")
    return value


def token(value: str) -> str:
    """The name of a header field (RFC 9110 section 5.1)."""
    if not _TOKEN.fullmatch(value):
        raise wrong(f"{value!r} is no header name", 'for example "Idempotency-Key"')
    return value


def headers(value: Mapping[str, str]) -> Mapping[str, str]:
    """Header names and values that can be sent. Host is not one of them: the suite decides about it."""
    for name, text in value.items():
        if not _TOKEN.fullmatch(name):
            raise wrong(f"{name!r} is no header name", "RFC 9110: letters, digits and - only, in short", key=name)
        if any(char in text for char in "\r\n\0"):
            raise wrong(f"the value of {name} holds a line break", "a header is one line", key=name)
        if name.lower() == "host":
            raise wrong("Host is the first of [target.hosts] allowed", "set that one, and remove this header", key=name)
    return value


def method(value: str) -> str:
    """An HTTP method, upper case. '' leaves the default."""
    if value and not re.fullmatch(r"[A-Za-z]+", value):
        raise wrong(f"{value!r} is no HTTP method", 'for example "GET"')
    return value.upper()


def location(value: str) -> str:
    """A path on the target, or a whole URL."""
    if not _LOCATION.fullmatch(value):
        raise wrong(f"{value!r} is neither a path nor a URL", "begin it with / or http://, and write a blank as %20")
    return value


def path_patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    """Paths on the target, `*` in them for anything."""
    for index, one in enumerate(value):
        if not re.fullmatch(r"/[^\s?#]*", one):
            raise wrong(f"{one!r} is no pattern of a path", 'begin it with / and leave the query out: "/provider/*"', key=index)
    return value


def url(value: str) -> str:
    """An http(s) URL without query and fragment."""
    if not _URL.fullmatch(value):
        raise wrong(f"{value!r} is no URL", 'for example "https://staging.example.test"')
    return value.rstrip("/")


def control_url(value: str) -> str:
    """Toxiproxy's control API: plain HTTP, a host and a port, and nothing behind it."""
    if not re.fullmatch(r"http://[^/\s?#@]+:\d{1,5}/?", value):
        remedy = 'plain HTTP, not https://, for example "http://toxiproxy.example.test:8474"'
        raise wrong(f"{value!r} is no URL of Toxiproxy's control API", remedy)
    return value.rstrip("/")


def host_names(value: tuple[str, ...]) -> tuple[str, ...]:
    """Host names, IP addresses (IPv6 in brackets), each with a port or not; `*.` in front stands for any one label."""
    for index, name in enumerate(value):
        if not _HOST.fullmatch(name):
            raise wrong(f"{name!r} is no host name", 'for example "api.example.test", or "*.example.test"', key=index)
    return value


def plain_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """Hosts, each named whole: no pattern, no port, no URL. What may be broken is not left to a guess."""
    for index, name in enumerate(value):
        if not _HOST.fullmatch(name) or "*" in name or re.search(r":\d+$", name.rpartition("]")[2]):
            raise wrong(
                f"{name!r} is no host", 'name each host alone, without port and pattern: "staging.example.test"', key=index
            )
    return value


def host_and_port(value: str) -> str:
    """'host:port'."""
    name, _, port = value.rpartition(":")
    if not _HOST.fullmatch(name) or "*" in name or not port.isdigit() or not 0 < int(port) < 65_536:
        raise wrong(f"{value!r} is no address", 'for example "10.0.0.7:15432"')
    return value


def expect(value: Any) -> int | tuple[int, ...] | str:
    """A status, an array of them, or a class such as '2xx'."""
    if isinstance(value, str) and re.fullmatch("[1-5]xx", value):
        return value
    if _status(value):
        return int(value)
    if isinstance(value, list | tuple) and value and all(_status(item) for item in value):
        return tuple(value)
    raise wrong("expect is neither a status, an array of them, nor a class", 'for example 201, [200, 404] or "2xx"')


def _status(value: Any) -> bool:
    return type(value) is int and 100 <= value <= 599


def json_value(value: Any) -> JsonValue:
    """What JSON can say: TOML's dates and its inf and nan it cannot."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise wrong(f"JSON has no {type(value).__name__} such as {value}", "write it as text")


def saved(value: Mapping[str, str]) -> Mapping[str, str]:
    """Names for values out of an answer, each with a JSON pointer (RFC 6901)."""
    for name, pointer in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise wrong(f"{name!r} cannot be used as {{{name}}}", "use letters, digits and _", key=name)
        if name in ALWAYS | REQUEST | DEPLOY:
            raise wrong(f"{{{name}}} already has a meaning", "save it under another name", key=name)
        if not re.fullmatch(r"(?:/(?:[^~/]|~[01])*)*", pointer):
            raise wrong(f"{pointer!r} is no JSON pointer", 'for example "/access_token", or "/items/0/id"', key=name)
    return value


def schema(value: str, info: ValidationInfo) -> str:
    """'problem+json', or the absolute path of a JSON Schema that is there and is JSON."""
    if value == "problem+json":
        return value
    if close := get_close_matches(value, ["problem+json"], cutoff=0.7):
        raise wrong(f"unknown error schema {value!r}: did you mean {close[0]!r}?", "or give the path of a JSON Schema file")
    path = exists(beside_the_file(value, info))
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        raise wrong(f"{value} is no JSON: {error}", 'give a JSON Schema file, or "problem+json"') from None
    return str(path)


def beside_the_file(value: Any, info: ValidationInfo) -> Any:
    """A path, relative to the directory of chaos.toml, made absolute. Symbolic links stay: where they lead may change."""
    if isinstance(value, str | Path):
        base = Path(info.context["base"]) if info.context else Path.cwd()
        return Path(*(base / Path(value).expanduser()).absolute().parts)
    raise PydanticCustomError("string_type", "not text")


def exists(path: Path) -> Path:
    """A file that can be read now, so that the run does not find out late."""
    if not path.is_file():
        raise wrong(f"no such file: {path}", "paths are relative to the file they stand in")
    return path


def exactly_one(**given: object) -> None:
    """One of these keys, and only one."""
    names, present = list(given), [key for key, value in given.items() if value is not None]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    if not present:
        raise wrong(f"none of {listed}", f"give exactly one of {listed}", key="")
    if len(present) > 1:
        raise wrong(f"{' and '.join(present)} exclude each other", f"give exactly one of {listed}", key=present[1])


@cache
def gates() -> Mapping[str, Mapping[str, Any]]:
    """gates.toml as it is: requirement id -> its table. Read once."""
    import tomllib  # noqa: PLC0415  (only needed where a file names an id)

    with (Path(__file__).parents[1] / "gates.toml").open("rb") as file:
        found: dict[str, Mapping[str, Any]] = tomllib.load(file)["gates"]
    return found


RETRIES = frozenset({"backoff.growth", "backoff.jitter", "backoff.cap", "backoff.final"})  # what [policy] decides beside rows


@cache
def rows() -> frozenset[str]:
    """What [policy] decides: rows about certificates, protocol, login, rotation, the database's life and hosts; traits of retries."""
    last = {"C": 27, "P": 16, "A": 8, "R": 7, "M": 6, "L": 2}
    hosts = [*range(1, 51), *range(61, 74)]
    return frozenset(
        {f"{kind}{n}" for kind, end in last.items() for n in range(1, end + 1)}
        | {f"H{n:02}" for n in hosts}
        | {"H43b", "H69b"}
        | RETRIES
    )


def known_keys(table: str, value: Mapping[str, Any]) -> None:
    """[policy] speaks of catalogue rows, [waivers] and [gates] of requirement ids."""
    kind, known = ("catalogue row", rows()) if table == "policy" else ("requirement id", frozenset(gates()))
    for key, item in value.items():
        if isinstance(item, dict) and any(f"{key}.{inner}" in known for inner in item):
            dotted = next(f"{key}.{inner}" for inner in item if f"{key}.{inner}" in known)
            raise wrong(f"{dotted} without quotes is a table within a table", f'write "{dotted}" = ...', key=key)
        if key not in known:
            raise wrong(f"unknown {kind} {key!r}{did_you_mean(key, known)}", f"the known ones: {_some(known)}", key=key)
        if table == "gates" and not {"limit", "seconds"} & set(gates()[key]):
            raise wrong(f"{key} has no limit that could be changed", "remove it; a gate is left out by [waivers]", key=key)


@cache
def panel_roles() -> frozenset[str]:
    """What a metric can be for, by chaos/checks/panels.toml. Read once."""
    import tomllib  # noqa: PLC0415  (only needed where a file names a metric)

    with (Path(__file__).parents[1] / "checks" / "panels.toml").open("rb") as file:
        return frozenset(tomllib.load(file)["roles"])


def roles(value: Mapping[str, str]) -> Mapping[str, str]:
    """[target.metrics] names: known roles, each with the name of a metric, perhaps with labels; "" says that there is none."""
    for role, name in value.items():
        if role not in panel_roles():
            raise wrong(
                f"unknown role {role!r}{did_you_mean(role, panel_roles())}", f"the known ones: {_some(panel_roles())}", key=role
            )
        if name and not re.fullmatch(r'[A-Za-z_:][\w:.]*(?:\{\s*\w+\s*=\s*"[^"]*"(?:\s*,\s*\w+\s*=\s*"[^"]*")*\s*\})?', name):
            raise wrong(f"{name!r} is no metric", """for example 'pool_in_use' or 'pool{state="busy"}'""", key=role)
    return value


def one_group(value: str) -> str:
    """A regular expression whose first group is what is looked for."""
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise wrong(f"no regular expression: {error}", "mend it") from None
    if not groups:
        raise wrong("its first group is to be the number of days, and it has none", r"for example 'keep_days = (\d+)'")
    return value


def did_you_mean(name: str, known: frozenset[str] | list[str]) -> str:
    """': did you mean ...?', or '' when nothing comes near."""
    spelt = {one.lower(): one for one in sorted(known)}
    meant = name.lower()
    near = get_close_matches(meant, list(spelt), n=len(spelt) or 1, cutoff=0.6 if len(name) > 3 else 0.5)
    # Of those equally near, the one with the same letters in another order, or the same number (H5 is H05).
    near.sort(key=lambda one: sorted(one) != sorted(meant) and _ZEROS.sub("", one) != _ZEROS.sub("", meant))
    return f": did you mean {spelt[near[0]]!r}?" if near else ""


def _some(known: frozenset[str]) -> str:
    listed = sorted(known)
    if len(listed) > 100:
        numbered = "C1 to C27, P1 to P16, A1 to A8, R1 to R7, M1 to M6, L1 to L2, H01 to H50, H61 to H73"
        return ", ".join([numbered, *sorted(RETRIES)])
    return ", ".join(listed)
