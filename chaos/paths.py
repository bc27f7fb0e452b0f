"""The way from a target to its database: our own, with a wire in it, or one that others run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.faults.probe import PROBE_NAME

if TYPE_CHECKING:
    from chaos.faults.toxiproxy import ProxyControl
    from chaos.faults.wire import Wire
    from chaos.model import Connection

PATHS = ("database", "start")  # the path, and its twin


@dataclass
class DatabasePath:
    """One way from a target to the database: a proxy that can be broken, and the wire that sees (and plays) everything behind it."""

    name: str
    wire: Wire
    port: int

    def connections(self, since: float) -> tuple[Connection, ...]:
        """The target's connections since then; our own probes name themselves in their SNI."""
        return tuple(one for one in self.wire.connections(since) if one.sni != PROBE_NAME)

    def forget(self, before: float) -> None:
        """Drop the records of connections that had ended by then."""
        self.wire.forget(before)

    def sever(self) -> int:
        """Close the target's established connections; how many there were."""
        return self.wire.sever()

    def stop(self) -> None:
        """End the wire."""
        self.wire.stop()


class SharedPath(DatabasePath):
    """A proxy that others run, with no wire of ours behind it: connections can be cut, but not seen."""

    def __init__(self, name: str, address: tuple[str, int], control: ProxyControl) -> None:
        self.name, self.address, self.port = name, address, address[1]
        self._control = control

    def connections(self, since: float) -> tuple[Connection, ...]:
        """None that could be seen from here."""
        del since
        return ()

    def forget(self, before: float) -> None:
        """There are none."""
        del before

    def sever(self) -> int:
        """A proxy that is disabled closes all its connections, whoever's they are; how many is not told."""
        self._control.enable(self.name, False)
        self._control.enable(self.name, True)
        return 0

    def stop(self) -> None:
        """Nothing of ours."""
