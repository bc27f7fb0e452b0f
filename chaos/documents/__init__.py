"""The documents that a Go/No-Go review asks for: which they are, what each has to hold, and texts to start from.

A document is Markdown with a head of `key: value` lines between two lines of three dashes: `owner`, `date` (of its last review), and
what documents.toml asks for beside them. `examine` reads; whether that is good enough is judged in chaos.checks.documents.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from chaos.errors import EvidenceUnwritable, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from pathlib import Path

UNDECLARED = "no [documents] in chaos.toml; `chaos-gate init --documents` writes nine texts to start from"
LARGEST = 4 << 20  # bytes of a document that are read
_BLANK = re.compile(r"\[\[[^\]\n]*\]\]")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
_KEY = re.compile(r"([A-Za-z_][\w-]*)\s*:\s*(.*?)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One row of documents.toml. `headings` are words that a heading has to hold; `keys` further numbers in the head."""

    id: str
    title: str
    headings: tuple[str, ...]
    keys: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Its name in the directory."""
        return f"{self.id}.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What a file says of itself. `wrong` is why it could not be read ('' when it could); `blanks` are 'line: text' left to fill in."""

    id: str
    file: str
    wrong: str = ""
    head: Mapping[str, str]
    headings: tuple[str, ...] = ()
    blanks: tuple[str, ...] = ()

    def plain(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


@cache
def wanted() -> tuple[Document, ...]:
    """All documents, in the order in which they are listed."""
    rows = tomllib.loads(files("chaos.documents").joinpath("documents.toml").read_text(encoding="utf-8"))["document"]
    return tuple(
        Document(id=row["id"], title=row["title"], headings=tuple(row["headings"]), keys=tuple(row.get("keys", ())))
        for row in rows
    )


def examine(directory: Path) -> tuple[Examined, ...]:
    """Each document as it stands in the directory."""
    return tuple(_examine(one, directory / one.file) for one in wanted())


def _examine(document: Document, path: Path) -> Examined:
    seen = Examined(id=document.id, file=document.file, head={})
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST).decode("utf-8")
    except FileNotFoundError:
        return replace(seen, wrong="is not there")
    except (OSError, UnicodeDecodeError) as error:
        return replace(seen, wrong=f"cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}")
    lines = text.replace("\r\n", "\n").lstrip("\ufeff").split("\n")
    bare = [line.strip() for line in lines]
    if bare[0] != "---" or "---" not in bare[1:]:
        return replace(seen, wrong="has no head (owner and date between two lines of ---)")
    last = bare.index("---", 1)
    return replace(
        seen,
        head={found[1]: found[2] for line in lines[1:last] if (found := _KEY.match(line))},
        headings=tuple(_HEADING.findall("\n".join(lines[last + 1 :]))),
        blanks=tuple(f"{number}: {one}" for number, line in enumerate(lines, 1) for one in _BLANK.findall(line)),
    )


def write_texts(directory: Path, *, target: str, today: date, force: bool) -> tuple[Path, ...]:
    """Texts to start from, for all documents; those that are there stay, but with `force`. Raises UsageError, EvidenceUnwritable."""
    places = [directory / one.file for one in wanted()]
    there = [place.name for place in places if place.exists()]
    if there and not force:
        raise UsageError(
            f"some are there already: {', '.join(there)}",
            remedy="edit them, or overwrite them with --force",
            where=str(directory),
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for place in places:
            text = files("chaos.documents").joinpath("texts", place.name).read_text(encoding="utf-8")
            place.write_text(text.replace("{target}", target).replace("{date}", today.isoformat()), encoding="utf-8")
    except OSError as error:
        what = f"cannot write it: {error.strerror}"
        raise EvidenceUnwritable(what, remedy="choose a directory that can be written", where=str(directory)) from error
    return tuple(places)
