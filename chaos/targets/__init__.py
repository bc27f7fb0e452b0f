"""What is under test, however it is run: `CommandTarget` (start = ...) or `UrlTarget` (url = ..., already running).

The bundled reference service lives below this package and starts with it, so this file imports nothing of weight: the two classes
are loaded when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from chaos.targets.command import CommandTarget
    from chaos.targets.url import UrlTarget

__all__ = ["CommandTarget", "LogSource", "TargetHandle", "UrlTarget"]


class TargetHandle(Protocol):
    """A target's life. `address` and `base_url` are where it listens, the same after a restart."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for raw sockets."""

    @property
    def base_url(self) -> str:
        """Scheme, host and port; no slash at the end."""

    def start(self) -> None:
        """Start it; returns before it is ready. Nothing for a target that others run."""

    def wait_ready(self, timeout: float) -> float:
        """Seconds until `ready` (or `live`) was answered 2xx. Raises TargetFailed after `timeout` seconds, or when it died."""

    def stop(self) -> None:
        """Stop it and everything it started. Idempotent."""

    def exited(self) -> str:
        """How it ended by itself: 'exit status 3' or 'signal SIGSEGV'; '' while it runs and after `stop()`."""

    def killed_from_outside(self) -> bool:
        """Whether somebody (out of memory, an operator) ended it: then nothing is proven about the target."""


class LogSource(Protocol):
    """A target whose log can be read. Offsets are bytes; a line counts when it is complete."""

    def log_offset(self) -> int:
        """Where the log ends now."""

    def log_lines(self, since: int = 0) -> tuple[str, ...]:
        """The complete lines from there on."""

    def log_tail(self, lines: int = 12) -> tuple[str, ...]:
        """The last lines, for messages."""


def __getattr__(name: str) -> object:
    """Load the two classes late (PEP 562)."""
    modules = {"CommandTarget": "chaos.targets.command", "UrlTarget": "chaos.targets.url"}
    if name in modules:
        return getattr(import_module(modules[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
