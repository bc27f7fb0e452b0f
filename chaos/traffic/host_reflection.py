"""Whether an answer is built from a host that it should not be built from: headers that lead somewhere, and links in a body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from chaos.traffic.host_requests import Asked
    from chaos.traffic.raw import RawAnswer

REFLECTING = (
    "location",
    "content-location",
    "refresh",
    "link",
    "set-cookie",
    "access-control-allow-origin",
    "content-security-policy",
    "content-security-policy-report-only",
    "x-frame-options",
    "reporting-endpoints",
    "report-to",
    "sourcemap",
    "www-authenticate",  # RFC 9728: resource_metadata="https://..."
    "alt-svc",
)
_BEFORE = 80  # characters ahead of a name in which the // of its link is looked for
_ENDS_AUTHORITY = frozenset("/?#\"'<> \t\r\n")


def reflected(asked: Asked, answer: RawAnswer) -> str:
    """Where the evil name came back in something that leads there: 'reflected in HEADER: VALUE', '' when nowhere.

    The whole name counts, or a name below it; not one that merely begins or ends alike. An error's text may name the host that it
    refuses ('host evil.example is not allowed'), so there only a link counts ('//name', its slashes escaped for JSON or a query or
    not): canonical and og links, sitemaps, mails. In an answer below 400 any mention counts. A request that names it in its target
    may see that target again.
    """
    if not asked.evil or answer.status is None:
        return ""
    named = whole(asked.evil, but=asked.spared)
    for name, value in answer.headers:
        if name in REFLECTING and named.search(value) and (name != "location" or _leads(value, named)):
            return f"reflected in {name}: {value[:200]}"
    if asked.evil.lower() in asked.target.lower():
        return ""
    body = answer.body.decode("utf-8", "replace")
    for found in named.finditer(body):
        if answer.status < 400 or _is_link(body[max(0, found.start() - _BEFORE) : found.start()]):
            return f"reflected in the body: {' '.join(body[max(0, found.start() - 60) : found.end() + 40].split())}"
    return ""


def whole(name: str, *, but: str = "") -> re.Pattern[str]:
    """`name` in any case, as a whole host name or as the end of one: not within a longer label, nor as the beginning of a name.

    `but` is a name that ends in it and does not count.
    """
    above = re.escape(but.removesuffix(name)) if but else ""
    spared = rf"(?<!{above})" if above else ""
    return re.compile(rf"(?:(?<![a-z0-9-])|(?<=%2f)){spared}{re.escape(name)}(?![a-z0-9-])(?!\.[a-z0-9])", re.IGNORECASE)


def _is_link(before: str) -> bool:
    """Whether what stands before a name makes it the authority of a link."""
    plain = re.sub("%2f", "/", before.replace("\\/", "/"), flags=re.IGNORECASE)
    _, slashes, authority = plain.rpartition("//")
    return bool(slashes) and not set(authority) & _ENDS_AUTHORITY


def _leads(location: str, named: re.Pattern[str]) -> bool:
    """Whether a Location goes to the evil name, rather than carrying it in a path or a query on a host of its own."""
    try:
        authority = urlsplit(location.replace("\\", "/").strip()).netloc
    except ValueError:
        return True
    return named.search(authority) is not None


__all__ = ["REFLECTING", "reflected", "whole"]
