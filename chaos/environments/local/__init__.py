"""An environment of processes on this machine: no container engine, no root, nothing installed but wheels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.environments.local.environment import LocalEnvironment, LocalSettings, provide

__all__ = ["LocalEnvironment", "LocalSettings", "provide"]


def __getattr__(name: str) -> object:
    # Late, since set-up runs `chaos.environments.local.toxiproxy` before anything is installed.
    if name in __all__:
        from chaos.environments.local import environment  # noqa: PLC0415

        return getattr(environment, name)
    raise AttributeError(name)
