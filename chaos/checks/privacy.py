"""Whether something private is in a log: values that were planted, and secrets that the target was given.

A planted value is built around a core of hexadecimal digits, which is the same in clear, percent-encoded, escaped as in JSON, in
capitals, and inside a longer word: its first sixteen digits are looked for. Base64 and hexadecimal change it: there the forms are
computed, in all three alignments that base64 has (RFC 4648, 4). A secret that is not ours is looked for whole, in each form.
"""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CORE = 16  # digits of a planted value that are enough to recognise it
SHORTEST = 8  # letters that a secret of the target's has at the least; and it is no plain word: those are everywhere
LOOSE = 12  # letters from which on capitals do not matter
_FRAGMENT = 12  # letters of base64 that are looked for at the least
SHOWN = 300  # letters of a line that are kept as evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """Something that must not be in a log. `name` is its field's, `where` how it was sent; `planted`: `text` is a core of ours."""

    name: str
    where: str
    text: str
    planted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Where it was found: in how many lines, in which `form`; `line` is the first one, with the value taken out."""

    name: str
    where: str
    form: str
    lines: int
    line: str


def forms(one: Private) -> list[tuple[str, str]]:
    """(form, text) pairs to look for; a form that ends in '~' is compared without regard to capitals."""
    text = one.text[:CORE] if one.planted else one.text
    raw = text.encode("utf-8", "surrogatepass")
    if one.planted:
        found = [("in clear~", text.lower())]
    else:
        loose = "~" if len(text) >= LOOSE else ""
        shapes = {
            "in clear": text,
            "percent-encoded": quote(raw, safe=""),
            "as a form": quote_plus(raw),
            "escaped as in JSON": json.dumps(text)[1:-1],
            "escaped as in HTML": html.escape(text),
        }
        found = [
            (form + loose, shape.lower() if loose else shape)
            for form, shape in shapes.items()
            if form == "in clear" or shape != text
        ]
    found += [("in base64", piece) for piece in _base64(raw) if len(piece) >= _FRAGMENT]
    return [*found, ("in hexadecimal~", raw.hex())]


def _base64(raw: bytes) -> list[str]:
    """What of `raw` is sure to show in base64, whatever stands before and behind it."""
    pieces = []
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        first = -(-before * 8 // 6)
        pieces.append(encoded[first : (before + len(raw)) * 8 // 6])
    return pieces


def leaks(lines: Sequence[str], private: Iterable[Private]) -> list[Leak]:
    """Every private value that is in these lines, once for each value."""
    whole = "\n".join(lines)
    low, standard = whole.lower(), whole.replace("-", "+").replace("_", "/")
    found = []
    for one in private:
        if not one.planted and (len(one.text) < SHORTEST or one.text.isalpha()):
            continue
        for form, text in forms(one):
            place = low if form.endswith("~") else standard if form == "in base64" else whole
            if text in place:
                at = place.index(text)
                number = place.count("\n", 0, at)
                start = at - (place.rfind("\n", 0, at) + 1)
                found.append(
                    Leak(
                        name=one.name,
                        where=one.where,
                        form=form.rstrip("~"),
                        lines=sum(text in line for line in place.split("\n")),
                        line=_masked(lines[number], start, len(text), one),
                    )
                )
                break
    return found


def _masked(line: str, start: int, length: int, one: Private) -> str:
    """The line around the value, which is replaced by what it was: evidence must not leak it again."""
    end = start + length
    if one.planted:  # whatever of our digits follows goes as well
        while end < len(line) and line[end].isalnum():
            end += 1
    return f"{line[max(0, start - SHOWN // 2) : start]}<{one.name}>{line[end : end + SHOWN // 2]}"
