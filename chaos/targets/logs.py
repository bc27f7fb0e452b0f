"""A log file that is being written by somebody else, read by lines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TAIL = 32_768  # bytes in which the last lines are looked for


class LogFile:
    """Offsets are bytes. A file that is not there yet is empty; a shorter one was rotated: it is read from its start."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def offset(self) -> int:
        """The end of the last complete line."""
        size = self._size()
        length = _TAIL
        while b"\n" not in (block := self._read(max(0, size - length), size)) and length < size:
            length *= 2
        return max(0, size - length) + block.rfind(b"\n") + 1

    def lines(self, since: int = 0, *, ended: bool = False) -> tuple[str, ...]:
        """Lines from `since` on; one that is still being written only counts when the writer has `ended`."""
        size = self._size()
        text = self._read(since if since <= size else 0, size)
        if not ended:
            text = text[: text.rfind(b"\n") + 1]
        return tuple(line.rstrip("\r") for line in text.decode("utf-8", "replace").removesuffix("\n").split("\n")) if text else ()

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines, oldest first."""
        size = self._size()
        return tuple(self._read(max(0, size - _TAIL), size).decode("utf-8", "replace").splitlines()[-lines:])

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def _read(self, start: int, end: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(start, os.SEEK_SET)
                return file.read(max(0, end - start))
        except OSError:
            return b""
