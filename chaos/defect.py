"""An error that is our own fault: one line for people, and the traceback in a file for whoever mends it.

Imports nothing of the package: it has to work when the rest of it does not.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import traceback
from pathlib import Path


class Defect(Exception):  # noqa: N818  (it is one; an error is what it makes)
    """`render()` is all that people are shown of an exception that nobody expected."""

    exit_code = 4

    def __init__(self, what: str, file: Path | None) -> None:
        super().__init__(what)
        self.what = what
        self.file = file

    @classmethod
    def of(cls, error: BaseException, directory: Path | None) -> Defect:
        """Writes the traceback to traceback.txt in `directory`; where that is None or unwritable, to a temporary file."""
        first = (str(error).splitlines() or [""])[0]
        what = f"{type(error).__name__}: {first}" if first else type(error).__name__
        return cls(what, _write("".join(traceback.format_exception(error)), directory))

    def render(self) -> str:
        """'chaos-gate failed: ZeroDivisionError: ...', and where the rest is."""
        place = f"the traceback is in {self.file}" if self.file else "its traceback could not be written anywhere"
        return f"chaos-gate failed: {self.what}\n  -> this is a defect of chaos-gate, not of the target; {place}"


def _write(text: str, directory: Path | None) -> Path | None:
    if directory is not None:
        with contextlib.suppress(OSError):
            file = directory / "traceback.txt"
            file.write_text(text, encoding="utf-8", errors="backslashreplace")
            return file
    with contextlib.suppress(OSError):
        number, name = tempfile.mkstemp(prefix="chaos-gate-traceback-", suffix=".txt")
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
        return Path(name)
    return None
