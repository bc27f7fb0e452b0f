"""Digests of records by docs/attestation.md, written again: this module knows the document and no other module of ours."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Value = None | int | float | str | bytes
"""What a SQLite column holds."""


def encode(value: Value) -> bytes:
    """N; I, digits, ';'; F and the 64 bits of the number; T or B, the length in bytes, ':' and the bytes."""
    if value is None:
        return b"N"
    if isinstance(value, float):
        return b"F" + struct.pack("!d", value)
    if isinstance(value, int):
        return f"I{value};".encode("ascii")
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    return (b"B" if isinstance(value, bytes) else b"T") + str(len(raw)).encode("ascii") + b":" + raw


def first(policy: str, segment: str) -> str:
    """What the first link of a segment has before it; `policy` is the SHA-256 of policy.json."""
    return hashlib.sha256(b"chaos-gate/genesis/1\n" + encode(policy) + encode(segment)).hexdigest()


def link(number: int, kind: str, at: float, previous: str, tables: Iterable[tuple[str, Sequence[Sequence[Value]]]]) -> str:
    """The digest of a link: its head, then each table of the record with its name, its number of rows, and its rows."""
    made = hashlib.sha256(b"chaos-gate/link/1\n")
    made.update(encode(number) + encode(kind) + encode(float(at)) + encode(previous))
    for name, rows in tables:
        made.update(encode(name) + encode(len(rows)))
        for row in rows:
            made.update(b"".join([encode(item) for item in row]))
    return made.hexdigest()
