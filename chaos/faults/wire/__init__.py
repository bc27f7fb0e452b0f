"""The wire: a man in the middle, or an impostor, between Toxiproxy and PostgreSQL.

    target -> Toxiproxy -> wire -> PostgreSQL

It relays bytes unchanged, or plays a PostgreSQL that a client must not trust, and records of every connection how far the client
went (`chaos.model.Rung`). See `Wire`, and `behaviours` for what it can be told to be.
"""

from __future__ import annotations

from chaos.faults.wire.behaviours import Behaviour, Impostor, Meddle, Refuse, Relay, Stall, Terms
from chaos.faults.wire.commit import Fuse
from chaos.faults.wire.server import Wire

__all__ = ["Behaviour", "Fuse", "Impostor", "Meddle", "Refuse", "Relay", "Stall", "Terms", "Wire"]
