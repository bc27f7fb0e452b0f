"""What of chaos.toml host validation is asked with: the names, and a request that the target serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from chaos.traffic.host_names import HostNames

if TYPE_CHECKING:
    from chaos.config import Target
    from chaos.traffic.requests import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOn:
    """`path` is the first read's, `others` those of the further ones, `health` the health paths; `headers` the target's own."""

    names: HostNames
    path: str
    headers: tuple[tuple[str, str], ...]
    others: tuple[str, ...]
    health: tuple[str, ...]


def asked_on(target: Target, session: Session) -> AskedOn:
    """For a target with [target.hosts]."""
    from chaos.config import expand  # noqa: PLC0415  (the model is heavy)

    assert target.hosts is not None
    lists = ("allowed", "seo", "preview", "staging", "crawler", "health")
    reads = [one for one in target.read if one.method == "GET" and one.path.startswith("/")]
    paths = [_path(expand(one.path, {**session.values, "unique": "chaos"})) for one in reads] or ["/"]
    own = session.headers("chaos") | (expand(dict(reads[0].headers), session.values) if reads else {})
    return AskedOn(
        names=HostNames(**{name: getattr(target.hosts, name) for name in lists}),
        path=paths[0],
        headers=tuple((name, value) for name, value in own.items() if name.lower() not in {"host", "connection"}),
        others=tuple(dict.fromkeys(paths[1:])),
        health=tuple(dict.fromkeys(one for one in (target.live, target.ready) if one and one.startswith("/"))),
    )


def _path(path: str) -> str:
    """A path as it goes over the wire: what is encoded stays, what is not becomes so."""
    return quote(path, safe="/?#[]@!$&'()*+,;=:%~")


__all__ = ["AskedOn", "asked_on"]
