"""Faults: what is broken, how it is healed, and how we know that it took effect. `registry` lists them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from chaos.model import Effect


class Fault(Protocol):
    """One thing that can be broken around the target. A fault ships with its healer and with its proof.

    `inject` returns when the fault is in force; `confirm` probes the same path as the target's and says what was seen; `heal` is
    idempotent, returns when the fault has gone, and raises CleanupFailed when it could not be undone.
    """

    id: str
    title: str

    def inject(self) -> None:
        """Break it."""

    def confirm(self) -> Effect:
        """Probe, while it is broken."""

    def heal(self) -> None:
        """Mend it."""
