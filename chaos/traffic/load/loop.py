"""An event loop that wakes when it was to wake."""

from __future__ import annotations

import asyncio
import select
import selectors


class Punctual(selectors.DefaultSelector):
    """epoll rounds its time-out up to a millisecond, which would be in every latency; select(2) on its descriptor does not."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As any selector's."""
        if timeout is not None and timeout > 0 and isinstance(self, getattr(selectors, "EpollSelector", ())):
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def punctual() -> asyncio.AbstractEventLoop:
    """For `asyncio.Runner(loop_factory=punctual)`."""
    return asyncio.SelectorEventLoop(Punctual())
