"""The walk of a search engine's crawler over a target's landing pages: robots.txt, its sitemaps, their pages. Pure: it sends nothing.

RFC 9309 (robots.txt) and sitemaps.org. What is asked is bounded, and only on hosts that [target.hosts] seo lists. A page is asked again
and again once it was there; one that never was (a sitemap may be out of date, a sub-domain may have no page) is left alone and accuses
nobody.
"""

from __future__ import annotations

import fnmatch
import html
import re
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROBOTS, SITEMAP, PAGE = "robots", "sitemap", "page"
AGAIN = 600.0  # s until robots.txt and sitemaps are read once more (RFC 9309, 2.4: within a day)
LATER = 10.0  # s until that is tried again when it failed, and an older one is at hand
LARGEST = 1 << 20  # bytes of a robots.txt or sitemap that are looked at (RFC 9309, 2.5: at least 500 KiB)
SITEMAPS, PER_SITE, HOSTS = 20, 500, 50
REDIRECTS = 5  # RFC 9309, 2.3.1.2
ABSENT = {401, 403, 404, 410, 451}  # an answer about what is not there, or not for everybody: RFC 9309, 2.3.1.3 and no fault
_LOC = re.compile(rb"<loc>\s*(?:<!\[CDATA\[)?\s*([^<\]]{1,2048}?)\s*(?:\]\]>)?\s*</loc>", re.IGNORECASE)


class Robots:
    """One robots.txt: the rules for `agent` (RFC 9309, 2.2), and the sitemaps that it names."""

    def __init__(self, text: str, agent: str) -> None:
        token = (re.search(r"([A-Za-z_-]+)(?:/[\d.]+)?\)?$", agent) or re.search(r"([A-Za-z_-]+)", agent) or [agent, agent])[
            1
        ].lower()
        groups: dict[str, list[tuple[bool, str]]] = {}
        self.sitemaps: list[str] = []
        names: list[str] = []
        open_ = False  # whether the last line was a user-agent line: several of them share a group
        for line in text.splitlines():
            field_, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
            key = field_.lower()
            if key == "user-agent":
                names = [*names, value.lower()] if open_ else [value.lower()]
                open_ = True
                groups.setdefault(names[-1], [])
            elif key in {"allow", "disallow"}:
                open_ = False
                if value:
                    for name in names:
                        groups[name].append((key == "allow", value))
            elif key == "sitemap" and value:
                self.sitemaps.append(value)
        self._rules = groups.get(token, groups.get("*", []))

    def allows(self, path: str) -> bool:
        """The longest rule that matches decides, and of two equally long ones the one that allows (RFC 9309, 2.2.2)."""
        matching = [(len(rule), allow) for allow, rule in self._rules if _matches(rule, path)]
        return max(matching, default=(0, True))[1]


def _matches(rule: str, path: str) -> bool:
    """`*` stands for anything, `$` for the end (RFC 9309, 2.2.3)."""
    anchored = rule.endswith("$")
    pattern = ".*".join(re.escape(unquote(part)) for part in rule.removesuffix("$").split("*"))
    return re.match(pattern + ("$" if anchored else ""), unquote(path)) is not None


@dataclass(slots=True)
class Site:
    """What is known of one host. `robots` is None until it was read; `pages` maps a path to whether it was ever there."""

    host: str
    robots: Robots | None = None
    read_at: float = 0.0
    asking: bool = False
    robots_path: str = "/robots.txt"
    redirects: int = 0
    sitemaps: deque[str] = field(default_factory=deque)
    walked: set[str] = field(default_factory=set)
    pages: dict[str, bool] = field(default_factory=dict)
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What to ask next: `path` of `host`, which is one of ROBOTS, SITEMAP and PAGE."""

    site: Site
    path: str
    what: str


class Crawl:
    """`next` says what to ask, `done` learns from the answer and says whether it was a healthy one."""

    def __init__(self, *, hosts: Iterable[str], patterns: Iterable[str], agent: str) -> None:
        self._agent = agent
        self._patterns = tuple(one.lower() for one in patterns)
        self._sites: deque[Site] = deque()
        self._known: dict[str, Site] = {}
        for host in hosts:
            self._site(host, "/")

    def next(self, now: float) -> Step:
        """The next step of one of the sites, in turn. While a robots.txt is under way nothing else of its host is asked."""
        for _ in range(len(self._sites)):
            site = self._sites[0]
            self._sites.rotate(-1)
            if (step := self._of(site, now)) is not None:
                return step
        return Step(self._sites[0], self._sites[0].robots_path, ROBOTS)

    def _of(self, site: Site, now: float) -> Step | None:
        if not site.asking and (site.robots is None or now - site.read_at > AGAIN):
            site.asking = True
            return Step(site, site.robots_path, ROBOTS)
        if site.robots is None:
            return None
        while site.sitemaps:
            path = site.sitemaps.popleft()
            if site.robots.allows(path):
                return Step(site, path, SITEMAP)
        paths = [*site.pages]
        for _ in paths:
            path = paths[site.turn % len(paths)]
            site.turn += 1
            if site.robots.allows(path):
                return Step(site, path, PAGE)
        return None

    def done(self, step: Step, status: int | None, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        """What came back (`status` None: nothing). Whether that was healthy."""
        if step.what == ROBOTS:
            return self._robots(step.site, status, headers, body, now)
        there = status is not None and 200 <= status < 400
        if step.what == SITEMAP:
            if status == 200:
                self._sitemap(step.site, body)
            return there or status in ABSENT
        if step.path in step.site.pages:
            if there:
                step.site.pages[step.path] = True
            elif status in ABSENT and not step.site.pages[step.path]:
                del step.site.pages[step.path]
                return True
        return there

    def _robots(self, site: Site, status: int | None, headers: Mapping[str, str], body: bytes, now: float) -> bool:
        site.asking = False
        if status is None or status >= 500 or status in {400, 421, 429}:
            # Nothing is asked of it but robots.txt again; what was read before holds, and is tried later (RFC 9309, 2.3.1.4).
            site.read_at = now - AGAIN + LATER
            return False
        if 300 <= status < 400 and site.redirects < REDIRECTS:
            where = urlsplit(headers.get("location", ""))
            site.redirects += 1
            if where.path.startswith("/") and (where.hostname or site.host).lower() == site.host:
                site.robots_path = where.path
                return True
        site.robots = Robots(_unpacked(body).decode("utf-8", "replace") if status == 200 else "", self._agent)
        site.read_at, site.redirects, site.robots_path = now, 0, "/robots.txt"
        site.walked.clear()
        for location in site.robots.sitemaps or ["/sitemap.xml"]:
            self._found(site, location)
        return True

    def _found(self, site: Site, location: str) -> None:
        """One more sitemap to be read."""
        parts = urlsplit(location)
        path = _target(location)
        if (parts.hostname or site.host).lower() == site.host and path not in site.walked and len(site.walked) < SITEMAPS:
            site.walked.add(path)
            site.sitemaps.append(path)

    def _sitemap(self, site: Site, body: bytes) -> None:
        text = _unpacked(body)
        places = [html.unescape(one.decode("utf-8", "replace")) for one in _LOC.findall(text)][:PER_SITE]
        if b"<sitemapindex" in text[:2048]:
            for place in places:
                self._found(site, place)
            return
        for place in places:
            host = (urlsplit(place).hostname or site.host).lower()
            if host == site.host or any(fnmatch.fnmatchcase(host, one) for one in self._patterns):
                self._site(host, _target(place))

    def _site(self, host: str, path: str) -> None:
        site = self._known.get(host.lower())
        if site is None:
            if len(self._known) >= HOSTS:
                return
            site = self._known[host.lower()] = Site(host.lower())
            self._sites.append(site)
        if len(site.pages) < PER_SITE:
            site.pages.setdefault(path, False)


def _target(location: str) -> str:
    """Path and query, as a request line has them; what has no place there is percent-encoded by who wrote the sitemap, or left out."""
    parts = urlsplit(location)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    clean = "".join(one for one in target if one.isascii() and one.isprintable() and one != " ")
    return clean if clean.startswith("/") else f"/{clean}"


def _unpacked(body: bytes) -> bytes:
    """Out of gzip, where it is in it: at most `LARGEST` bytes, however many there are."""
    if not body.startswith(b"\x1f\x8b"):
        return body[:LARGEST]
    try:
        return zlib.decompressobj(wbits=31).decompress(body, LARGEST)
    except zlib.error:
        return b""
