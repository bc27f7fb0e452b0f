"""Which Host is served, and what: the outermost layer, in front of every route, method and protocol upgrade.

Nothing here repairs a request. One Host line, in the exact grammar of a DNS name with an optional port, that is on a list: served.
Everything else: 400. X-Forwarded-Host, Forwarded, X-Host and the like are never read, here or anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from chaos.targets.reference.problems import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import ASGIApp, Receive, Scope, Send

    from chaos.targets.reference.settings import Settings

# RFC 9110, 7.2 with RFC 3986, 3.2.2 and 3.2.3, narrowed to what DNS names are made of (RFC 1123, 2.1): no underscore, no empty label,
# no percent-encoding, no userinfo, no empty port. One trailing dot is the same name spelled absolutely, and is served (row H64).
_LABEL = rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(
    rb"(?:(?P<name>%b(?:\.%b)*)\.?|(?P<address>\[[0-9A-Fa-f:.]{2,45}\]))(?::(?P<port>[0-9]{1,5}))?" % (_LABEL, _LABEL)
)
_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#]*)(?:[/?].*)?", re.IGNORECASE | re.DOTALL)
HEALTH_PATHS = frozenset({b"/healthz", b"/readyz"})


class Surface(StrEnum):
    """What a host is for."""

    API = "api"
    LANDING = "landing"
    HEALTH = "health"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`reason` is '' when the request is served as `surface`; `name` is the host in lower case, '' when it has none."""

    surface: Surface
    name: str = ""
    reason: str = ""


def parse(value: bytes) -> str:
    """The host name in a Host value or an authority: lower case, no port, no trailing dot; '' when it is not well-formed."""
    match = _HOST.fullmatch(value.strip(b" \t"))
    if match is None:
        return ""
    if (port := match["port"]) is not None and not 1 <= int(port) <= 65_535:
        return ""
    name = (match["name"] or match["address"]).decode("ascii").lower()
    return name if len(name) <= 253 else ""


def covers(pattern: str, name: str) -> bool:
    """Whether `pattern` names `name`. `*.x` is exactly one label, as in a certificate (RFC 6125, 6.4.3): never x, never a.b.x."""
    if not pattern.startswith("*."):
        return name == pattern.lower()
    label, _, rest = name.partition(".")
    return bool(label) and rest == pattern[2:].lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPolicy:
    """The allow-list. `served` are (pattern, surface) pairs; `health` hosts get the health paths and nothing else."""

    served: tuple[tuple[str, Surface], ...]
    health: tuple[str, ...]
    enforce: bool = True
    bypass: bool = False

    @classmethod
    def from_settings(cls, settings: Settings) -> HostPolicy:
        """The lists of the settings, with the surface each is for."""
        api = (*settings.allowed_hosts, *settings.preview_hosts, *settings.staging_hosts, *settings.crawler_hosts)
        served = tuple((pattern, Surface.API) for pattern in api) + tuple(
            (pattern, Surface.LANDING) for pattern in settings.seo_hosts
        )
        return cls(served=served, health=settings.health_hosts, enforce=settings.enforce_hosts, bypass=settings.bypass)

    def judge(self, hosts: Sequence[bytes], *, target: bytes, path: bytes) -> Judgement:
        """Judge a request by all its Host values, its request target as sent, and its path.

        The reasons are: missing, duplicate, empty, malformed, target, unknown, health_path.
        """
        if len(hosts) != 1:
            return Judgement(surface=Surface.API, reason="duplicate" if hosts else "missing")
        if not hosts[0].strip(b" \t"):
            return Judgement(surface=Surface.API, reason="empty")
        name = parse(hosts[0])
        if not name:
            return Judgement(surface=Surface.API, reason="malformed")
        if not _target_agrees(target, name):
            return Judgement(surface=Surface.API, name=name, reason="target")
        return self._by_name(name, path)

    def _by_name(self, name: str, path: bytes) -> Judgement:
        for pattern, surface in self.served:
            if covers(pattern, name):
                return Judgement(surface=surface, name=name)
        if name in self.health:
            reason = "" if path in HEALTH_PATHS else "health_path"
            return Judgement(surface=Surface.HEALTH, name=name, reason=reason)
        if self.bypass and path in HEALTH_PATHS:
            return Judgement(surface=Surface.HEALTH, name=name)
        seo = self._below_seo(name)
        surface = Surface.LANDING if seo else Surface.API
        return Judgement(surface=surface, name=name, reason="" if seo and self.bypass else "unknown")

    def _below_seo(self, name: str) -> bool:
        """The domain of an SEO pattern, or any name below it: what the emergency bypass opens."""
        domains = [pattern.removeprefix("*.").lower() for pattern, surface in self.served if surface is Surface.LANDING]
        return any(name == domain or name.endswith(f".{domain}") for domain in domains)


def _target_agrees(target: bytes, name: str) -> bool:
    """Origin form, `*`, or an absolute form whose authority is the Host (RFC 9112, 3.2.2: the target would win over Host)."""
    if target.startswith(b"/") or target == b"*":
        return True
    match = _ABSOLUTE.fullmatch(target)
    return match is not None and parse(match["authority"]) == name


class HostGate:
    """ASGI: judges each request before anything else sees it. `refuse` answers the others; `audit` is told of each refusal."""

    def __init__(
        self, app: ASGIApp, *, policy: HostPolicy, refuse: ASGIApp, audit: Callable[[Scope, Judgement, bool], None]
    ) -> None:
        self.app = app
        self.policy = policy
        self.refuse = refuse
        self.audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, or refuse with 400. In monitor mode what would have been refused is written down and served."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        target: bytes = scope.get("extensions", {}).get("http.target", {}).get("raw", raw_path)
        judgement = self.policy.judge(hosts, target=target, path=raw_path)
        scope["reference.host"] = judgement
        if judgement.reason:
            self.audit(scope, judgement, self.policy.enforce)
            if self.policy.enforce:
                await self.refuse(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def refusal(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  (an ASGI application)
    """The innermost application of a refused request. It says nothing about which hosts exist, and repeats nothing."""
    raise Refused(400, "host_not_allowed", "This service does not answer requests for that host.")
