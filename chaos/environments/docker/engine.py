"""The container engine: found, asked who it is, and its errors put into our words.

It has to be on this machine: the wire runs in our own process, and what is in the containers has to reach it. Docker, Docker
Desktop, Colima and Podman's Docker socket all answer the same API (https://docs.docker.com/reference/api/engine/).
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from chaos.errors import EnvironmentFault, PartFailed, PartMissing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import DockerClient

_PING = 5.0  # s for the first answer; a stopped daemon accepts connections and says nothing
_TIMEOUT = 60  # s for any later one: removing a container can take its time on a busy machine
_WITHOUT = "or use --backend local, which needs no engine"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine that answered. `url` is the address that the watchdog can send a request to without a client, '' when it cannot.

    `host_network` says whether a container on the host's network shares our loopback: only then a reset and a refusal are seen
    as they are, and everything else of the suite holds in any case.
    """

    client: DockerClient
    version: str
    system: str
    url: str
    host_network: bool


def connect(*, timeout: float = _TIMEOUT) -> DockerClient:
    """A client of the engine that DOCKER_HOST, testcontainers' properties or Docker's context name. PartMissing when none answers."""
    client = _client(_PING)
    address = _address(client)
    with told(f"the engine at {address}", remedy=f"start it (systemctl start docker), {_WITHOUT}"):
        client.ping()
    client.api.timeout = int(timeout)
    return client


def find() -> Engine:
    """The engine, as far as this suite can use it; PartMissing otherwise."""
    client = connect()
    with told("the engine", remedy=f"see `docker info`, {_WITHOUT}"):
        facts, version = client.info(), client.version()
    if facts.get("OSType") != "linux":
        raise PartMissing(
            f"the engine runs {facts.get('OSType')} containers", remedy="switch it to Linux containers", where="Docker"
        )
    same_kernel = sys.platform == "linux" and facts.get("KernelVersion") == platform.release()
    return Engine(
        client=client,
        version=str(version.get("Version", "unknown")),
        system=str(facts.get("OperatingSystem", "")),
        url=_plain_url(client),
        host_network=same_kernel and "Desktop" not in str(facts.get("OperatingSystem", "")),
    )


def _client(timeout: float) -> DockerClient:
    address = os.environ.get("DOCKER_HOST", "")
    parts = urlsplit(address)
    if parts.scheme == "ssh" or (parts.scheme in {"tcp", "http", "https"} and parts.hostname not in _LOOPBACK):
        raise PartMissing(
            f"the engine at {address} is on another machine, and the suite's own part of the path is on this one",
            remedy=f"unset DOCKER_HOST and use an engine on this machine, {_WITHOUT}",
            where="Docker",
        )
    with warnings.catch_warnings(), told("no Docker engine answers", remedy=f"install and start one, {_WITHOUT}"):
        warnings.simplefilter("ignore")  # of libraries that testcontainers loads
        from testcontainers.core.docker_client import DockerClient as Client  # noqa: PLC0415  # 0.3 s

        return Client(timeout=timeout).client


def _address(client: DockerClient) -> str:
    return os.environ.get("DOCKER_HOST") or f"unix://{_socket(client)}"


def _socket(client: DockerClient) -> str:
    """The path of the engine's Unix socket; '' when it is spoken to in another way."""
    adapter = client.api.get_adapter(client.api.base_url)
    path = str(getattr(adapter, "socket_path", ""))
    return "/" + path.lstrip("/") if path else ""


def _plain_url(client: DockerClient) -> str:
    if path := _socket(client):
        return f"http+unix://{quote(path, safe='')}"
    return str(client.api.base_url) if str(client.api.base_url).startswith("http://") else ""


@contextmanager
def told(what: str, *, where: str = "Docker", remedy: str = "read the engine's own words", pulling: str = "") -> Iterator[None]:
    """Whatever the engine or the way to it raises within comes out as one of our errors, with the remedy for what it says.

    `pulling` is the image that is being fetched: all that can go wrong with that means that it is not there.
    """
    import requests  # noqa: PLC0415  # late, as the next
    from docker.errors import APIError, DockerException, ImageNotFound, NotFound  # noqa: PLC0415

    try:
        yield
    except ImageNotFound as error:
        raise _missing_image(str(error.explanation or error)) from error
    except NotFound as error:
        if pulling:
            raise _missing_image(f"{pulling} cannot be pulled: {_words(error)}") from error
        raise _known(what, _words(error), where=where, remedy="see who removed it: chaos-gate did not") from error
    except APIError as error:
        if pulling and "no space left" not in _words(error).lower():
            raise _missing_image(f"{pulling} cannot be pulled: {_words(error)}") from error
        raise _known(what, _words(error), where=where, remedy=remedy) from error
    except (requests.exceptions.Timeout, TimeoutError) as error:
        raise PartMissing(
            f"{what} does not answer in time", remedy=f"restart it (systemctl restart docker), {_WITHOUT}", where=where
        ) from error
    except (DockerException, requests.exceptions.RequestException, OSError) as error:
        raise _unreachable(what, error, where=where, remedy=remedy) from error


def _words(error: Exception) -> str:
    said = getattr(error, "explanation", None) or str(error)
    return " ".join(str(said.decode() if isinstance(said, bytes) else said).split())


def _missing_image(said: str) -> PartMissing:
    return PartMissing(
        f"image not there: {said}",
        remedy="docker pull it, name another in [environment] of chaos.toml, or build ours: python docker/build.py",
        where="Docker",
    )


def _known(what: str, said: str, *, where: str, remedy: str) -> EnvironmentFault:
    """What goes wrong most, each with its own remedy."""
    lower = said.lower()
    if "no space left" in lower or "disk quota exceeded" in lower:
        remedy = "make room where the engine keeps its data (docker system df; docker system prune)"
    elif "non-overlapping ipv4 address pool" in lower or "could not find an available" in lower:
        remedy = 'remove networks that nobody uses (docker network prune), or set docker_network = "host" in [environment]'
    elif "already allocated" in lower or "address already in use" in lower or "port is already" in lower:
        remedy = "run again when that was a coincidence; otherwise see who listens on it (ss -ltnp)"
    elif "manifest unknown" in lower or "pull access denied" in lower or "no such image" in lower:
        return _missing_image(said)
    elif "permission denied" in lower:
        remedy = f"add this user to the group docker, {_WITHOUT}"
    return PartFailed(f"{what}: {said}", remedy=remedy, where=where)


def _unreachable(what: str, error: BaseException, *, where: str, remedy: str) -> PartMissing:
    said = " ".join(str(error).split())
    if "PermissionError" in said or "Permission denied" in said:
        said, remedy = "this user may not use its socket", f"add the user to the group docker, {_WITHOUT}"
    elif "FileNotFoundError" in said or "No such file" in said:
        said, remedy = "there is no such socket", f"install and start an engine (apt-get install docker.io), {_WITHOUT}"
    elif "ConnectionRefused" in said or "Connection refused" in said:
        said, remedy = "nobody listens there", f"start the daemon (systemctl start docker), {_WITHOUT}"
    elif "timed out" in said:
        said, remedy = "it does not answer in time", f"restart it (systemctl restart docker), {_WITHOUT}"
    return PartMissing(f"{what}: {said[:300]}", remedy=remedy, where=where)
