"""The service's own log file, where nobody collects its output: a file a day (UTC), none kept longer than retention.toml says."""

from __future__ import annotations

import io
import re
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400
POLICY = Path(__file__).with_name("retention.toml")


def retention_days() -> int:
    """The days of retention.toml."""
    return int(tomllib.loads(POLICY.read_text(encoding="utf-8"))["retention_days"])


class DailyFile(io.TextIOBase):
    """A text stream into `path`. When the UTC day changes, it is renamed to `path.YYYY-MM-DD`; those older than `days` are removed.

    A line is written whole: a day begins between two lines. Raises OSError as any file does.
    """

    def __init__(self, path: Path, *, days: int | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.path = path
        self.days = retention_days() if days is None else days
        self._clock = clock
        self._day = self._last_day()
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._turn()

    def write(self, text: str) -> int:
        """Append; after midnight into a new file."""
        self._turn()
        return self._file.write(text)

    def flush(self) -> None:
        """Hand on what is written."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        super().close()  # flushes
        self._file.close()

    def _last_day(self) -> str:
        """The day on which the file was last written: a process that was started again goes on where the last one was."""
        try:
            return _day(self.path.stat().st_mtime)
        except OSError:
            return _day(self._clock())

    def _turn(self) -> None:
        today = _day(self._clock())
        if today == self._day:
            return
        self._file.close()
        self.path.rename(self.path.with_name(f"{self.path.name}.{self._day}"))
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._day = today
        oldest = _day(self._clock() - self.days * DAY)
        for one in self.path.parent.glob(f"{self.path.name}.*"):
            stamp = one.name.removeprefix(f"{self.path.name}.")
            if re.fullmatch(r"\d{4}-\d\d-\d\d", stamp) and stamp < oldest:
                one.unlink(missing_ok=True)


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
