"""The smallest request that still shows it: delta debugging (Zeller and Hildebrandt, 2002) over what a request is made of."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chaos.traffic.corpus.deserving import parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.traffic.corpus.ask import Ask

TRIES = 60
KEEP_HEADERS = {"content-type"}
_WIDE = re.compile(rb"\d{19,}|\\u0000")


def shrink(ask: Ask, holds: Callable[[Ask], bool], *, tries: int = TRIES) -> list[Ask]:
    """Smaller and smaller requests for each of which `holds`, from `ask` itself, which is not tried, on. At most `tries` calls."""
    chain, left = [ask], tries
    while True:
        for one in smaller(chain[-1]):
            if left <= 0:
                return chain
            left -= 1
            if holds(one):
                chain.append(one)
                break
        else:
            return chain


def smaller(ask: Ask) -> Iterator[Ask]:
    """Requests with something left out, the largest parts first."""
    path, mark, query = ask.target.partition("?")
    if mark:
        for pairs in without(query.split("&")):
            yield replace(ask, target=path + ("?" + "&".join(pairs) if pairs else ""))
    plain = [pair for pair in ask.headers if pair[0].lower() not in KEEP_HEADERS]
    for headers in without(plain):
        yield replace(ask, headers=(*(pair for pair in ask.headers if pair not in plain), *headers))
    if ask.body:
        yield from _bodies(ask)
    for shorter in _shorter(ask.target):
        yield replace(ask, target=shorter)
    for number, (name, value) in enumerate(ask.headers):
        if len(value) > 24:
            yield replace(
                ask, headers=(*ask.headers[:number], (name, value[: len(value) // 2].strip()), *ask.headers[number + 1 :])
            )


def without(parts: list[Any]) -> Iterator[list[Any]]:
    """The list without a half of it, a quarter, ... and each single element."""
    size = len(parts)
    while size >= 1:
        for start in range(0, len(parts), size):
            yield parts[:start] + parts[start + size :]
        size //= 2


def _shorter(target: str) -> Iterator[str]:
    """Long values of path and query cut to a half; a percent-encoded character is not cut."""
    for found in re.finditer(r"(?:[^/?&=%]|%[0-9A-Fa-f]{2}){13,}", target):
        units = re.findall(r"%[0-9A-Fa-f]{2}|.", found[0])
        for kept in (units[: len(units) // 2], units[len(units) // 2 :]):
            yield target[: found.start()] + "".join(kept) + target[found.end() :]


def _bodies(ask: Ask) -> Iterator[Ask]:
    value = parsed(ask.body)
    if isinstance(value, dict | list):
        for one in _values(value, 0):
            body = json.dumps(one).encode()
            if len(body) < len(ask.body):
                yield replace(ask, body=body)
        return
    yield replace(ask, body=b"")
    for size in (2, 4, 8):
        for start in range(size):
            cut = len(ask.body) // size
            if cut:
                yield replace(ask, body=ask.body[: start * cut] + ask.body[(start + 1) * cut :])


def _values(value: Any, depth: int) -> Iterator[Any]:
    """A JSON value with members left out, inner ones made smaller, long text cut."""
    if isinstance(value, dict):
        for names in without(list(value)):
            yield {name: value[name] for name in names}
        for name, each in value.items() if depth < 4 else ():
            yield from ({**value, name: one} for one in _values(each, depth + 1))
    elif isinstance(value, list):
        yield from without(value)
        for number, each in enumerate(value[:8]) if depth < 4 else ():
            yield from ([*value[:number], one, *value[number + 1 :]] for one in _values(each, depth + 1))
    elif isinstance(value, str) and len(value) > 8:
        yield value[: len(value) // 2]
        yield value[len(value) // 2 :]


def tamed(ask: Ask) -> Ask:
    """The same request with what no database can hold replaced by what every one can: the control beside it."""
    target = re.sub(r"%00", "x", ask.target)
    target = re.sub(r"-?\d{19,}", "1", target)
    return replace(ask, target=target, body=_WIDE.sub(lambda found: b"1" if found[0][:1].isdigit() else b"x", ask.body))
