"""A target's log as data: which lines are JSON, and what a declared field holds in one.

A field is named by a path. `http.request.id` is a member of that very name (OpenTelemetry's attributes are written so), or a member of
objects within objects; a plain name is looked for at the top and then, level by level, inside. An object that was written as text
inside a member ('{"log": "{...}"}', as container runtimes do) is read too.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Members = Mapping[str, Any]  # a JSON object: what a target logs may hold anything
NOTHING = frozenset({"", "-", "--", "none", "null", "nil", "undefined", "n/a", "na", "0", "ok", "false", "success", "no_error"})
_VERSION = re.compile(r"(?:^|[^\d.])1[._]?([0-3])(?![\d.])")
_NUMBERS = {"769": "1.0", "770": "1.1", "771": "1.2", "772": "1.3", "0x0303": "1.2", "0x0304": "1.3"}  # RFC 8446, 4.2.1
_CIPHER = re.compile(
    r"AES|CHACHA20|CAMELLIA|ARIA|3DES|RC4|0x13[0-9a-f]{2}|0xc0[0-9a-f]{2}|^(?:4865|4866|4867|49\d{3})$", re.IGNORECASE
)
_DEPTH = 6  # levels of objects that are looked into


def members(line: str) -> Members | None:
    """The JSON object that a line is; None when it is none."""
    text = line.strip()
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def field(line: Members, path: str) -> str | None:
    """What the declared field holds in this line, as text ('' for null); None when the line has no such field."""
    for found in _at(line, path):
        return _text(found)
    if "." not in path:
        level: list[Members] = [line]
        for _ in range(_DEPTH):
            level = [inner for one in level for inner in map(_object, one.values()) if inner is not None]
            for one in level:
                if path in one:
                    return _text(one[path])
    return None


def _at(value: Members, path: str) -> Iterator[Any]:
    if path in value:
        yield value[path]
    for at, letter in enumerate(path):
        inner = _object(value.get(path[:at])) if letter == "." else None
        if inner is not None:
            yield from _at(inner, path[at + 1 :])


def _object(value: Any) -> Members | None:
    if isinstance(value, dict):
        return value
    return members(value) if isinstance(value, str) else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value.strip() if isinstance(value, str) else json.dumps(value)


def fields(line: Members, declared: Mapping[str, str]) -> dict[str, str]:
    """The declared fields (what the suite calls them -> what the target does) that this line has."""
    found = {name: field(line, path) for name, path in declared.items()}
    return {name: text for name, text in found.items() if text is not None}


def some(text: str) -> bool:
    """Whether a field's text says anything: null, 'none', '-' and the like do not."""
    return text.strip().lower() not in NOTHING


def address(text: str) -> bool:
    """Whether it is an IP address, with or without a port, a zone, or brackets; of several the last."""
    last = text.rpartition(",")[2].strip().partition("%")[0]
    for candidate in (last, last.strip("[]"), last.rpartition(":")[0].strip("[]")):
        try:
            ipaddress.ip_address(candidate)
        except ValueError:
            continue
        return True
    return False


def tls_version(text: str) -> str:
    """'1.3' for TLSv1.3, TLS 1.3, TLS1_3, 772 and the like; '' for what names no version of TLS."""
    if text.lower() in _NUMBERS:
        return _NUMBERS[text.lower()]
    found = _VERSION.search(text)
    return f"1.{found[1]}" if found else ""


def same_version(one: str, other: str) -> bool:
    """Whether two texts name the same version of TLS."""
    return tls_version(one) == tls_version(other)


def is_cipher(text: str) -> bool:
    """Whether it names a cipher suite, as IANA or OpenSSL do, or is its number."""
    return bool(_CIPHER.search(text))


def cipher(text: str) -> str:
    """A cipher suite's name without what OpenSSL and IANA write differently (RFC 8446, B.4; openssl-ciphers(1))."""
    bare = re.sub(r"[^A-Z0-9]", "", text.upper().replace("WITH", "").replace("TLS", ""))
    bare = re.sub(r"(?<=CHACHA20POLY1305)SHA256$", "", bare)
    return bare.replace("CBC3", "CBC").replace("CBC", "")


def same_cipher(one: str, other: str) -> bool:
    """Whether two texts may mean the same suite: one may say less than the other ('Aes256'), and a number says nothing here."""
    a, b = cipher(one), cipher(other)
    return a in b or b in a or not re.search(r"[A-Z]{2}", a.replace("0X", ""))


def same_id(one: str, other: str) -> bool:
    """Whether two request ids are the same: dashes and case aside, and one may carry the other (a prefix, a traceparent)."""
    a, b = (text.lower().replace("-", "") for text in (one, other))
    short, long = sorted((a, b), key=len)
    return a == b or (len(short) >= ID_LENGTH and short in long)


ID_LENGTH = 8  # letters that an id has at the least when it is looked for inside another text


def name_of(host: str) -> str:
    """A Host without port, closing dot and capitals."""
    text = host.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0].strip("[")
    return text.partition(":")[0].rstrip(".") if text.count(":") <= 1 else text


def texts(value: Any) -> Iterator[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        yield value
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        yield from texts(one)


def tells_refusal(line: Members, host: str = "") -> bool:
    """Whether a line says that something was not well: a status from 400 on, a word, a level, a 'false', a member that says so.

    The name of the `host` itself says nothing, whatever it is.
    """
    return any(
        _refusing(name, value)
        for name, value in _leaves("", line)
        if not (host and isinstance(value, str) and name_of(value) == host)
    )


def _refusing(name: str, value: Any) -> bool:
    if value is False:
        return True
    if isinstance(value, int | float) and not isinstance(value, bool) and 400 <= value < 600:
        return True
    return bool(value) and bool(_REFUSED.search(name) or (isinstance(value, str) and _REFUSED.search(value)))


_REFUSED = re.compile(
    r"refus|reject|den(?:y|ied)|unknown|forbid|audit|not.?allowed|disallow|block|invalid|bad|untrusted|unexpected|mismatch|warn|err"
    r"|\b4\d\d\b|misdirect|not.?served|illegal|unauthori[sz]ed",
    re.IGNORECASE,
)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(name of the member, value) of everything that holds no more members."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(name, inner)
    else:
        yield name, value
