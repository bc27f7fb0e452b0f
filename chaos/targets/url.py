"""A target that others run: it is spoken to, never started or stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chaos.config import expand
from chaos.errors import TargetFailed
from chaos.targets.logs import LogFile
from chaos.targets.ready import ask, question

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.config import Target

_PAUSE = 0.2  # s between questions: it is someone's staging


class UrlTarget:
    """`url = "https://..."`. Its log can be read when logs.file names a file on this machine."""

    def __init__(self, target: Target, *, placeholders: Mapping[str, str] | None = None) -> None:
        assert target.url is not None
        self.target = target
        self.base_url = target.url
        parts = urlsplit(target.url)
        self.address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        self.values: Mapping[str, str] = {"port": str(self.address[1]), **(placeholders or {})}
        named = target.logs.file if target.logs else None
        self._log = LogFile(target.cwd / expand(named, self.values)) if named else LogFile(Path("/dev/null"))

    @property
    def pid(self) -> None:
        """None: it runs elsewhere."""

    def prepare_database(self) -> None:
        """Nothing: whoever runs it has done so."""

    def start(self) -> None:
        """Nothing: it runs already."""

    def stop(self) -> None:
        """Nothing: it is not ours."""

    def wait_ready(self, timeout: float) -> float:
        """See `TargetHandle`."""
        url, headers = question(self.target, self.values, self.base_url)
        begun = time.monotonic()
        while answer := ask(url, headers, timeout=max(0.5, min(5.0, begun + timeout - time.monotonic()))):
            if time.monotonic() >= begun + timeout:
                raise TargetFailed(
                    f"{self.target.name} is not ready after {timeout:g} s; the last answer of {url}: {answer}",
                    remedy="see that it runs and can be reached from here, or mend url and ready",
                    where=self.target.where("url"),
                    tail=self.log_tail(),
                )
            time.sleep(_PAUSE)
        return time.monotonic() - begun

    def exited(self) -> str:
        """'': that cannot be seen from here."""
        return ""

    def killed_from_outside(self) -> bool:
        """False: that cannot be seen from here."""
        return False

    def log_offset(self) -> int:
        """See `LogSource`."""
        return self._log.offset()

    def log_lines(self, since: int = 0) -> tuple[str, ...]:
        """See `LogSource`."""
        return self._log.lines(since)

    def log_tail(self, lines: int = 12) -> tuple[str, ...]:
        """See `LogSource`."""
        return self._log.tail(lines)
