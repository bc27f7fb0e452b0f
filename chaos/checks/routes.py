"""Which route a request went to: the path template of the target's own description where one fits, else the path with ids masked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ID = re.compile(r"\d+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\{[\w:.-]*\}|\S{60,}", re.IGNORECASE)
_ORIGIN = re.compile(r"^https?://[^/]*(?=/|$)")
VARIABLE = re.compile(r"\{[^{}/]*\}")


def bare(path: str) -> str:
    """A request's path without origin, query and fragment."""
    return re.split(r"[?#]", _ORIGIN.sub("", path), maxsplit=1)[0] or "/"


def fits(template: str, path: str) -> bool:
    """Whether an OpenAPI path template ('/items/{id}') is that of a path; a variable never spans a '/' (OpenAPI 3.1, 4.8.8.2)."""
    pattern = "[^/]+".join(re.escape(part) for part in VARIABLE.split(template))
    return re.fullmatch(pattern, path) is not None


def best(templates: Iterable[str], path: str) -> str:
    """The template that fits, the one with the fewest variables when several do (OpenAPI 3.1: concrete before templated); ''."""
    found = [one for one in templates if fits(one, path)]
    return min(found, key=lambda one: (len(VARIABLE.findall(one)), one), default="")


def route(path: str, templates: Sequence[str] = ()) -> str:
    """What requests to one route have in common: '/items/{id}', or '/items/*' where no template fits."""
    plain = bare(path)
    return best(templates, plain) or "/".join("*" if _ID.fullmatch(part) else part for part in plain.split("/"))[:120]
