"""Attached to a Toxiproxy that others run: looked at, never started, stopped or reset. Faults go to one proxy of it, by name."""

from __future__ import annotations

import difflib
import ipaddress
from typing import TYPE_CHECKING, NoReturn, Protocol

from chaos import healing
from chaos.environments import Reach
from chaos.environments.remote.rails import host
from chaos.errors import PartFailed, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.certs import Authority, Identity
    from chaos.environments import ControlledDatabase, Edge, Front, Runner

OURS = "chaos-gate-"  # how the toxics of every run are called, ours or another's: see chaos.faults.toxiproxy
_ANYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104  (what a proxy that listens everywhere says; nothing is bound here)


def _loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


class Settings(Protocol):
    """What of `[environment]` in chaos.toml concerns a remote one."""

    @property
    def toxiproxy(self) -> str | None:
        """The control API's URL."""

    @property
    def proxy(self) -> str | None:
        """The proxy's name there."""

    @property
    def probe(self) -> str | None:
        """Where the proxy can be reached from here ('host:port'), when that is not where it says that it listens."""


class RemoteEnvironment:
    """See `chaos.environments.Environment`. `proxy_address` is where probes of our own reach the database through the proxy."""

    def __init__(self, settings: Settings) -> None:
        assert settings.toxiproxy is not None
        assert settings.proxy is not None
        self.toxiproxy_url, self.proxy = settings.toxiproxy, settings.proxy
        self.proxy_address = ("", 0)
        self.upstream = ""
        self.toxics: tuple[str, ...] = ()
        self.reach = Reach()
        self.versions: dict[str, str] = {}
        self._probe = settings.probe

    def start(self) -> None:
        """Look at what is there. UsageError: no such proxy; PartFailed: no answer, disabled, or in use by another run."""
        version = self._get("/version")
        found = self._named(self._get("/proxies"))
        self.toxics = tuple(sorted(str(one["name"]) for one in found["toxics"]))  # type: ignore[attr-defined]
        self.upstream = str(found["upstream"])
        self.versions = {"Toxiproxy": f"{version.get('version', '?')} (attached, proxy {self.proxy})"}
        if not found["enabled"]:
            self._fail("is disabled", "enable it: nobody reaches the database through it")
        if left := [name for name in self.toxics if name.startswith(OURS)]:
            self._fail(
                f"holds {', '.join(left)}: another run of chaos-gate is on, or one ended without healing",
                "wait for it, or heal what it left: chaos-gate heal",
            )
        self.proxy_address = self._address(str(found["listen"]))

    def stop(self) -> None:
        """Nothing: it is not ours."""

    def check(self) -> None:
        """Nothing: whoever asks it to do something is told when it does not."""

    # -- what a remote environment has not ----------------------------------------------------------------------------------------

    @property
    def authority(self) -> Authority:
        """Not ours."""
        self._not_ours("a certificate authority")

    @property
    def postgres(self) -> ControlledDatabase:
        """Not ours."""
        self._not_ours("control of PostgreSQL")

    def runner(self, image: str) -> Runner:
        """Not ours."""
        self._not_ours(f"a container of {image}")

    def edge(self, upstreams: Mapping[str, int]) -> Edge:
        """Not ours."""
        self._not_ours(f"an edge before {len(upstreams)} upstreams")

    def front(self, origin_port: int, identity: Identity) -> Front:
        """Not ours."""
        self._not_ours(f"an edge with the certificate {identity.name!r} before port {origin_port}")

    def _not_ours(self, what: str) -> NoReturn:
        raise UsageError(
            f"{what} is asked for, where the target runs already",
            remedy="run that check on a target that is started here: [target] start or image",
            where="[target] url",
        )

    # -- looking ------------------------------------------------------------------------------------------------------------------

    def _get(self, path: str) -> dict[str, object]:
        try:
            status, data = healing.call("GET", self.toxiproxy_url + path)
        except OSError as error:
            status, data = 0, error
        if status != 200 or not isinstance(data, dict):
            told = f"answers {status} to {path}" if status else f"does not answer: {data}"
            raise PartFailed(
                f"Toxiproxy {told}",
                remedy="see that it runs and can be reached from here, or mend [environment] toxiproxy",
                where=self.toxiproxy_url,
            )
        return data

    def _named(self, proxies: Mapping[str, object]) -> dict[str, object]:
        found = proxies.get(self.proxy)
        if isinstance(found, dict):
            return found
        close = difflib.get_close_matches(self.proxy, proxies, n=1)
        meant = f": did you mean {close[0]!r}?" if close else ""
        raise UsageError(
            f"there is no proxy {self.proxy!r}{meant}",
            remedy=f"name one of its proxies in [environment] proxy: {', '.join(sorted(proxies)) or 'it has none'}",
            where=self.toxiproxy_url,
        )

    def _address(self, listen: str) -> tuple[str, int]:
        """Where the proxy listens, as seen from here."""
        name, _, port = (self._probe or listen).rpartition(":")
        name = name.strip("[]")
        if not self._probe and _loopback(name) and not _loopback(host(self.toxiproxy_url)):
            self._fail(
                f"listens at {listen}, the loopback of its own machine, where nothing of ours can see what is broken",
                'say where it can be reached from here: [environment] probe = "host:port"',
            )
        return (host(self.toxiproxy_url) if name in _ANYWHERE else name, int(port))

    def _fail(self, what: str, remedy: str) -> NoReturn:
        raise PartFailed(f"proxy {self.proxy!r} {what}", remedy=remedy, where=self.toxiproxy_url)
