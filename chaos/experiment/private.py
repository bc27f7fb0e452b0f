"""What an answer may never tell, and only the run itself knows: passwords, keys, addresses and places on this machine.

These values are taken out of what is recorded, and what they were is put in their place in white brackets: the evidence holds no
secret, and whoever judges it, now or from disk, still sees that one was told.
"""

from __future__ import annotations

import json
import re
import socket
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from chaos.checks.leaks import CLOSES, OPENS
from chaos.checks.routes import bare, best
from chaos.config import expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from chaos.config import Config, Target
    from chaos.model import Operation
    from chaos.rig import Rig

SHORTEST = 8  # characters: a shorter value also stands in ordinary text
DEEPEST = 3  # parts of a path on this machine: '/app/src' may also be a route
_CREDENTIAL = re.compile(r"authorization|cookie|token|secret|passw|api-?key|session|credential", re.IGNORECASE)
_SECRET = re.compile(
    r"(?:SECRET|TOKEN|PASSWORD|PASSWD|PWD|DSN|(?:API|SECRET|PRIVATE|ACCESS|ENCRYPTION|SIGNING)_?KEY)$", re.IGNORECASE
)
_LOGIN = re.compile(r"\w+://[^/\s:@]*:[^/\s@]+@")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def known(rig: Rig) -> Mapping[str, str]:
    """Value -> what it is ("the database's password"). Values that the target's own requests hold in their URLs are left out."""
    target = rig.config.target
    values = rig.driver.session.values
    releases = (target, target.candidate) if target.candidate else (target,)
    found = [*_database(rig), *_machine(rig), *(pair for one in releases for pair in _configured(one, values))]
    said = " ".join(one.path for one in (*target.read, *target.write, *target.invalid))
    public = {*(target.hosts.allowed if target.hosts else ()), target.name}
    return {value: what for value, what in found if len(value) >= SHORTEST and value not in said and value not in public}


def own_secrets(config: Config) -> tuple[str, ...]:
    """The secrets that chaos.toml itself holds, as they stand there: in headers, environments and log-ins. No output may hold one."""
    target = config.target
    releases = (target, target.candidate) if target.candidate else (target,)
    found = {value for one in releases for value, _ in _configured(one, _Unfilled())}
    sent = [body for one in target.prepare for body in (one.json, one.form) if isinstance(body, dict)]
    found |= {value for body in sent for name, value in body.items() if isinstance(value, str) and _CREDENTIAL.search(name)}
    return tuple(sorted(one for one in found if len(one) >= SHORTEST and "{" not in one))


class _Unfilled(dict[str, str]):
    """Placeholders stay what they are."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"


def _database(rig: Rig) -> Iterator[tuple[str, str]]:
    if not rig.injects:
        return
    paths = [path for path in (getattr(rig, "path", None), rig.__dict__.get("start_path")) if path is not None]
    ports = [path.port for path in paths if hasattr(path, "port")]
    if rig.ours:
        postgres = rig.environment.postgres
        yield postgres.app_password, "the database's password"
        yield str(postgres.ca_file), "the path of the database's CA file"
        ports.append(postgres.port)
        if postgres.host not in _LOOPBACK:
            yield postgres.host, "the database's host"
            yield from ((f"{postgres.host}:{port}", "the database's address") for port in ports)
    for host in _LOOPBACK:
        yield from ((f"{host}:{port}", "the database's address") for port in ports)


def _machine(rig: Rig) -> Iterator[tuple[str, str]]:
    name = socket.gethostname()
    if re.search(r"[\d-]", name):
        yield name, "the name of its machine"
    places = [rig.run_dir / rig.worker / "target", rig.run_dir] if rig.ours else []
    places += [rig.config.target.cwd] if rig.config.target.start else []
    for place in places:
        if len(place.parts) > DEEPEST:
            yield str(place), "a path on its machine"


def _configured(target: Target, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What chaos.toml sends and sets: credentials in headers, what `prepare` saved as such, secrets in the environment."""
    sent = (target.headers, *(one.headers for one in (*target.prepare, *target.read, *target.write, *target.invalid)))
    for name, text in ((name, text) for headers in sent for name, text in headers.items()):
        if _CREDENTIAL.search(name) and "{unique}" not in text:
            value = expand(text, {"unique": "", **values})
            for part in {value, value.rpartition(" ")[2]}:
                yield part, f"the value of the request's {name} header"
    saved = {name for one in target.prepare for name in one.save if _CREDENTIAL.search(name)}
    yield from ((values[name], f"the {name} that a log-in returned") for name in saved if name in values)
    for name, text in target.env.items():
        value = expand(text, values)
        if _LOGIN.match(value):
            yield value, f"the value of {name}"
            yield value.partition("?")[0], f"the value of {name}"
            yield urlsplit(value).netloc, f"the login and address in {name}"
        elif _SECRET.search(name):
            yield value, f"the value of {name}"


def marked(operations: Iterable[Operation], private: Mapping[str, str]) -> tuple[Operation, ...]:
    """The operations, with each private value in a body replaced by what it is."""
    shapes = [
        (shape, f"{OPENS}{what}{CLOSES}")
        for value, what in sorted(private.items(), key=lambda item: -len(item[0]))
        for shape in {value, json.dumps(value)[1:-1], value.replace("/", "\\/"), quote(value, safe="")}
    ]
    return tuple(_marked(one, shapes) if one.body else one for one in operations)


def _marked(operation: Operation, shapes: list[tuple[str, str]]) -> Operation:
    body = operation.body
    for shape, mark in shapes:
        if shape in body and shape not in operation.path:
            body = body.replace(shape, mark)
    return replace(operation, body=body) if body is not operation.body else operation


def routes(operations: Iterable[Operation], templates: Iterable[str]) -> str:
    """The path templates, as JSON, that error answers among the operations belong to: what groups them."""
    paths = {bare(one.path) for one in operations if one.status is not None and one.status >= 400}
    listed = list(templates)
    return json.dumps(sorted({found for path in paths if (found := best(listed, path))}))
