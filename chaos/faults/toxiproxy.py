"""Toxiproxy's control API: the one file that imports its Python client.

What the client leaves out is added here: every call has a time-out, obeys no proxy variable, and is believed only after the state
was read back. The server takes wrong attribute names in silence, so they are checked on our side against its own table
(Toxiproxy 2.12, `toxics/`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import toxiproxy.api
from toxiproxy import Proxy, Toxiproxy

from chaos.errors import CleanupFailed, PartFailed
from chaos.ledger import Restore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OURS = "chaos-gate-"  # how the names of our toxics begin, so that those of others are told apart on a shared Toxiproxy
TIMEOUT = 5.0  # s for one control call; a toxic that is stuck in removal blocks the API, and must not block us

ATTRIBUTES: Mapping[str, frozenset[str]] = {
    "latency": frozenset({"latency", "jitter"}),
    "bandwidth": frozenset({"rate"}),
    "slow_close": frozenset({"delay"}),
    "timeout": frozenset({"timeout"}),
    "reset_peer": frozenset({"timeout"}),
    "slicer": frozenset({"average_size", "size_variation", "delay"}),
    "limit_data": frozenset({"bytes"}),
}


@dataclass(frozen=True, slots=True)
class Toxic:
    """One toxic. Units as Toxiproxy has them: ms for latency, jitter and timeout, KB/s for rate, us for a slicer's delay, bytes."""

    kind: str
    stream: str = "downstream"
    attributes: Mapping[str, int] = field(default_factory=dict)
    toxicity: float = 1.0

    def __post_init__(self) -> None:
        known = ATTRIBUTES.get(self.kind)
        if known is None or not set(self.attributes) <= known:
            msg = f"no toxic {self.kind!r} with {sorted(self.attributes)}"
            raise ValueError(msg)
        if self.stream not in {"upstream", "downstream"} or not 0.0 <= self.toxicity <= 1.0:
            msg = f"stream {self.stream!r}, toxicity {self.toxicity}"
            raise ValueError(msg)

    @property
    def name(self) -> str:
        """Unique on a proxy: one toxic of a kind and direction at a time."""
        return f"{self.kind}_{self.stream}"


def _bounded() -> SimpleNamespace:
    """What `toxiproxy.api` uses of `requests`, with a time-out and without the environment's proxies."""
    session = requests.Session()
    session.trust_env = False

    def bound(method: str) -> Any:
        def call(*, url: str, **options: Any) -> requests.Response:
            # A redirect could lead to a host that nobody allowed.
            return session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **options)

        return call

    return SimpleNamespace(get=bound("GET"), post=bound("POST"), delete=bound("DELETE"))


class ProxyControl:
    """One Toxiproxy server. The client keeps its address in a class attribute, so a process can talk to one server only.

    `mark` (the run's id) is in the name of each toxic. `ours`: the server ends with the run; else it is shared, and only what this
    run put there is ever removed.
    """

    def __init__(self, url: str, *, mark: str = "", ours: bool = True) -> None:
        self.mark, self.ours = mark, ours
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        toxiproxy.api.requests = _bounded()
        self._server = Toxiproxy()
        self._server.update_api_consumer(parts.hostname, parts.port)

    def create(self, name: str, upstream_port: int, *, host: str = "127.0.0.1", listen: str = "127.0.0.1:0") -> int:
        """A proxy from `listen` (a free loopback port) to `upstream_port` of `host`; returns the port it listens on."""
        try:
            proxy = self._server.create(name=name, upstream=f"{host}:{upstream_port}", listen=listen)
        except (requests.RequestException, KeyError) as error:  # KeyError: the server's error answer has no 'name'
            raise self._failed(f"cannot create proxy {name!r}: {error}") from error
        return int(str(proxy.listen).rsplit(":", 1)[1])

    def delete(self, name: str) -> None:
        """Remove a proxy; silent when there is none."""
        try:
            proxy = self._server.get_proxy(name)
            if proxy is not None:
                self._server.destroy(proxy)
        except requests.RequestException as error:
            raise self._failed(f"cannot delete proxy {name!r}: {error}") from error

    def add(self, name: str, toxic: Toxic) -> None:
        """Add a toxic and read it back."""
        proxy, called = self._proxy(name), self.called(toxic)
        try:
            proxy.add_toxic(
                type=toxic.kind,
                stream=toxic.stream,
                name=called,
                toxicity=toxic.toxicity,
                attributes=dict(toxic.attributes),
            )
            held = proxy.get_toxic(called)
        except requests.RequestException as error:
            raise self._failed(f"cannot add {toxic.name}: {error}") from error
        if held is None or any(held.attributes.get(key) != value for key, value in toxic.attributes.items()):
            raise self._failed(f"{toxic.name} was added but reads back as {held and held.attributes}")

    def remove(self, name: str, toxic: Toxic) -> None:
        """Remove a toxic; silent when it is not there."""
        proxy, called = self._proxy(name), self.called(toxic)
        try:
            if proxy.get_toxic(called) is not None:
                proxy.destroy_toxic(called)
        except requests.RequestException as error:
            raise self._failed(f"cannot remove {toxic.name}: {error}") from error

    def enable(self, name: str, enabled: bool) -> None:
        """Enable or disable, and read it back: the server may refuse to listen again, and the client does not notice."""
        try:
            proxy = self._proxy(name)
            if enabled:
                proxy.enable()
            else:
                proxy.disable()
            state = self._proxy(name).enabled
        except (requests.RequestException, KeyError) as error:
            raise self._failed(f"cannot {'enable' if enabled else 'disable'} proxy {name!r}: {error}") from error
        if state is not enabled:
            raise self._failed(f"proxy {name!r} is {'enabled' if state else 'disabled'} after being told otherwise")

    def called(self, toxic: Toxic) -> str:
        """The name that a toxic has on the server."""
        return f"{OURS}{self.mark}-{toxic.name}" if self.mark else OURS + toxic.name

    def state(self, name: str) -> tuple[tuple[str, ...], bool]:
        """The names of all toxics on a proxy, and whether it is enabled."""
        proxy = self._proxy(name)
        try:
            return tuple(sorted(proxy.toxics())), bool(proxy.enabled)
        except (requests.RequestException, ValueError) as error:
            raise self._failed(f"does not answer: {error}") from error

    def undo(self, name: str, toxics: Iterable[Toxic]) -> Restore:
        """What takes these toxics off again and puts the proxy back to what it is now."""
        _, enabled = self.state(name)
        return Restore(
            url=self.url, proxy=name, toxics=tuple(dict.fromkeys(map(self.called, toxics))), enabled=enabled, ours=self.ours
        )

    def clean(self, name: str, *, enabled: bool = True) -> None:
        """No toxics of ours, and enabled as it was, read back; CleanupFailed otherwise. Idempotent: heals every network fault."""
        try:
            held, _ = self.state(name)
        except PartFailed as error:
            raise self._dirty(name, str(error)) from error
        mine = tuple(one for one in held if one.startswith(OURS + self.mark))
        why = Restore(url=self.url, proxy=name, toxics=mine, enabled=enabled, ours=False).heal(cut=False)
        if why:
            raise self._dirty(name, why)

    def _proxy(self, name: str) -> Proxy:
        try:
            proxy = self._server.get_proxy(name)
        except (requests.RequestException, ValueError) as error:
            raise self._failed(f"does not answer: {error}") from error
        if proxy is None:
            raise self._failed(f"has no proxy {name!r}")
        return proxy

    def _failed(self, what: str) -> PartFailed:
        return PartFailed(
            f"Toxiproxy {what}", remedy="run again; if it stays, `chaos-gate doctor` tests the server by itself", where=self.url
        )

    def _dirty(self, name: str, what: str) -> CleanupFailed:
        return CleanupFailed(
            f"proxy {name!r} could not be healed: {what}",
            remedy="it is thrown away with the run; a shared one: make it reachable, then chaos-gate heal",
            where=self.url,
        )
