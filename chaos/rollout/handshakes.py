"""TLS handshakes with the database, counted as they happen, of one release: what the wire saw, and what the server's log says.

A refusal inside TLS 1.3 is encrypted for an onlooker; the server's log tells of it, by the port that the wire went on from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.checks.handshakes import counted
from chaos.experiment.census import NEAR, UPSTREAM, backends
from chaos.model import Rung, now

if TYPE_CHECKING:
    from chaos.environments import Database
    from chaos.model import Connection
    from chaos.paths import DatabasePath

LATE = 1.0  # s that a line of the log may come after the connection's end
_WORTH = re.compile(r"connection received|could not accept SSL|requires a valid client certificate|connection authorized")


@dataclass(slots=True)
class Refusals:
    """The server's log, read on: the ports whose handshakes it could not accept, the last one of each."""

    server: Database
    refused: dict[int, float] = field(default_factory=dict)  # port -> when it was called from
    _offset: int = 0
    _open: list[str] = field(default_factory=list)  # lines of connections whose story may go on

    def __post_init__(self) -> None:
        self._offset = self.server.log_offset()

    def read(self) -> None:
        """What has been added since."""
        at, self._offset = self._offset, self.server.log_offset()
        self._open = [*self._open, *(line for line in self.server.log_since(at) if _WORTH.search(line))][-2000:]
        self.refused |= {one.port: one.at for one in backends(self._open) if one.refused}


@dataclass(slots=True)
class Handshakes:
    """Of one release, on a path of its own, since `since`: how many, and how many of them failed. `take` counts on."""

    path: DatabasePath
    since: float
    refusals: Refusals | None = None
    total: int = 0
    failed: int = 0
    _done: set[int] = field(default_factory=set)

    def take(self) -> tuple[int, int]:
        """(handshakes, failed) so far."""
        oldest, done = now(), set[int]()
        for one in self.path.connections(self.since):
            done |= {one.id} & self._done
            if one.id in self._done or one.behaviour != "relay" or one.reached < Rung.CLIENT_HELLO:
                continue
            if not (one.established or (one.closed and now() - one.closed > LATE)):
                oldest = min(oldest, one.opened)
                continue
            done.add(one.id)
            refused = self._refused(one)
            if counted(one) or refused:
                self.total += 1
                self.failed += not one.established
        self.since, self._done = oldest - LATE, done  # what is settled before that is not looked at again
        return self.total, self.failed

    def _refused(self, one: Connection) -> bool:
        refused = self.refusals.refused if self.refusals else {}
        said = next((found for _, what in one.steps if (found := UPSTREAM.match(what))), None)
        return said is not None and abs(refused.get(int(said[1]), 0.0) - one.opened) <= NEAR
