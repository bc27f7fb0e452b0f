"""Where a key stands in a TOML document, so that an error can say 'chaos.toml:12'.

`tomllib` keeps no positions. The document has already been parsed by it when this runs, so this scanner only has to find its way
through valid TOML 1.0 (https://toml.io/en/v1.0.0): it may be tolerant, but it must never run away.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Step = str | int
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}(?!")', re.DOTALL),
    re.compile(r"'''.*?'{3,5}(?!')", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)
_SCALAR = re.compile(r"[^,\]}\n#]*")


class Locator:
    """Finds the line of a key path in the text of a TOML document.

    A path is keys and, within an array, indices: ('target', 'read', 0, 'path').
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [i for i, char in enumerate(text) if char == "\n"]
        self._lines: dict[tuple[Step, ...], int] = {(): 1}
        self._tables: dict[tuple[Step, ...], int] = {}
        self._document()

    def line(self, path: Sequence[Step]) -> int:
        """The line (from 1) of the longest part of `path` that the document holds; 1 when it holds none."""
        whole = tuple(path)
        return next(self._lines[whole[:n]] for n in range(len(whole), -1, -1) if whole[:n] in self._lines)

    def __contains__(self, path: Sequence[Step]) -> bool:
        return tuple(path) in self._lines

    def _document(self) -> None:
        base: tuple[Step, ...] = ()
        self._take(_BLANK)
        while self._at < len(self._text):
            start = self._at
            base = self._header() if self._text[start] == "[" else self._pair(base)
            if self._at == start:  # not TOML after all: say what is known rather than turn in circles
                return
            self._take(_BLANK)

    def _header(self) -> tuple[Step, ...]:
        """`[a.b]` or `[[a.b]]`: the path of the table that it opens."""
        start = self._at
        double = self._text.startswith("[[", start)
        self._at += 2 if double else 1
        *outer, last = self._keys() or [""]
        self._at += 2 if double else 1
        path: tuple[Step, ...] = ()
        for key in outer:
            path = self._last_of((*path, key))
            self._lines.setdefault(path, self._line_at(start))
        path = (*path, last)
        if double:
            self._tables[path] = self._tables.get(path, -1) + 1
            self._lines.setdefault(path, self._line_at(start))
            path = (*path, self._tables[path])
        self._lines[path] = self._line_at(start)
        return path

    def _last_of(self, path: tuple[Step, ...]) -> tuple[Step, ...]:
        """Within an array of tables, a header speaks of its last element."""
        return (*path, self._tables[path]) if path in self._tables else path

    def _pair(self, base: tuple[Step, ...]) -> tuple[Step, ...]:
        """`a.b = value`; answers the table it stands in."""
        line = self._line_at(self._at)
        path = base
        for key in self._keys():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._value(path)
        return base

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._take(_SPACE)
            if self._text[self._at : self._at + 1] in {'"', "'"}:
                keys.append(_text(self._string()))
            else:
                keys.append(self._take(_BARE))
            self._take(_SPACE)
            if self._text[self._at : self._at + 1] != ".":
                return keys
            self._at += 1

    def _value(self, path: tuple[Step, ...]) -> None:
        self._take(_SPACE)
        match self._text[self._at : self._at + 1]:
            case '"' | "'":
                self._string()
            case "[":
                self._items(path, "]")
            case "{":
                self._items(path, "}")
            case _:
                self._take(_SCALAR)

    def _items(self, path: tuple[Step, ...], end: str) -> None:
        self._at += 1
        index = 0
        self._take(_BLANK)
        while self._at < len(self._text) and self._text[self._at] != end:
            start = self._at
            if end == "}":
                self._pair(path)
            else:
                self._lines[(*path, index)] = self._line_at(start)
                self._value((*path, index))
                index += 1
            self._take(_BLANK)
            if self._text.startswith(",", self._at):
                self._at += 1
            elif self._at == start:
                return
            self._take(_BLANK)
        self._at += 1

    def _string(self) -> str:
        for form in _STRINGS:
            if found := form.match(self._text, self._at):
                self._at = found.end()
                return found.group()
        self._at += 1
        return '""'

    def _take(self, what: re.Pattern[str]) -> str:
        found = what.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found.group()

    def _line_at(self, offset: int) -> int:
        return bisect_right(self._newlines, offset - 1) + 1


def _text(quoted: str) -> str:
    """What a quoted key says. One that is not TOML is its own name: nobody will ask for it."""
    try:
        return str(tomllib.loads(f"k = {quoted}")["k"])
    except tomllib.TOMLDecodeError:
        return quoted
