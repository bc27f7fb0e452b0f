"""The decisive fault for writes: the server has committed, and the answer is cut off before the client sees it.

Seen from the messages inside a session (protocol, 'Message Flow'): a transaction that changed rows is over when the server says
CommandComplete 'COMMIT', or, for a statement by itself, when ReadyForQuery says 'idle' after one that changed rows. From the first such
CommandComplete on, what the server says is held back up to ReadyForQuery; then it is passed on, or, when it told of a commit and
the fuse is armed, the connection is cut in its place. Nothing is held back while the fuse is not armed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.faults.wire.channel import Stream
    from chaos.faults.wire.scene import Scene

_CHANGED = re.compile(rb"(?:INSERT \d+|UPDATE|DELETE|MERGE) [1-9]\d*\0")  # CommandComplete tags of statements that changed rows
_WHAT = "cut after PostgreSQL had committed, before it was told"


@dataclass(slots=True)
class Fuse:
    """Shared by an experiment and the wire: once `armed`, the next commit blows it. `blown` counts."""

    armed: bool = False
    blown: int = 0

    def blow(self) -> None:
        """One commit was cut; the next one is not, unless it is armed again."""
        self.armed = False
        self.blown += 1


@dataclass(slots=True)
class Answers:
    """Splits what a server says into what may pass and what is held back. Pure: bytes in, bytes out.

    `feed` gives what may pass now; `committed` is True when a commit is being held back, whole.
    """

    committed: bool = False
    _part: bytearray = field(default_factory=bytearray)
    _held: bytearray = field(default_factory=bytearray)
    _changed: bool = False
    _over: bool = False
    _failed: bool = False

    def feed(self, data: bytes, *, hold: bool) -> bytes:
        """`hold` says whether anything is to be held back from here on."""
        self._part += data
        out = bytearray()
        while len(self._part) >= 5:
            length = 1 + int.from_bytes(self._part[1:5], "big")
            if len(self._part) < length:
                break
            message = bytes(self._part[:length])
            del self._part[:length]
            self._note(message)
            if self._held or (hold and (self._over or (self._changed and message[:1] == b"C"))):
                self._held += message
                if message[:1] == b"Z":
                    self.committed = self._ready(message)
                    if self.committed:
                        break  # whoever asked decides: cut, or `release`
                    out += self.release()
            else:
                out += message
                if message[:1] == b"Z":
                    self._ready(message)
        return bytes(out)

    def release(self) -> bytes:
        """What was held back."""
        held = bytes(self._held)
        self._held.clear()
        self.committed = False
        return held

    def _note(self, message: bytes) -> None:
        kind, body = message[:1], message[5:]
        if kind == b"C":
            if body == b"ROLLBACK\0":
                self._changed = False
            elif body == b"COMMIT\0":
                self._over = self._changed
            elif _CHANGED.fullmatch(body):
                self._changed = True
        elif kind == b"E":
            self._failed = True

    def _ready(self, message: bytes) -> bool:
        """At ReadyForQuery: whether rows were changed and committed since the last time the session was idle."""
        if message[5:6] != b"I":  # inside a transaction
            self._failed = False
            return False
        committed = self._changed and not self._failed
        self._changed = self._over = self._failed = False
        return committed


class Unanswered:
    """The client's side of a session (a Stream) whose commits are cut when the fuse is armed. Everything else passes."""

    def __init__(self, client: Stream, scene: Scene, fuse: Fuse) -> None:
        self._client, self._scene, self._fuse = client, scene, fuse
        self._answers = Answers()

    async def read(self) -> bytes:
        """See Stream."""
        return await self._client.read()

    async def write(self, data: bytes) -> None:
        """See Stream; ConnectionResetError when the connection was cut in place of an answer."""
        out = self._answers.feed(data, hold=self._fuse.armed)
        while self._answers.committed:
            if self._fuse.armed:
                self._fuse.blow()
                self._scene.record.step(_WHAT)
                self._scene.record.end("wire", "RST")
                raise ConnectionResetError(_WHAT)
            out += self._answers.release() + self._answers.feed(b"", hold=False)
        if out:
            await self._client.write(out)

    async def end(self) -> None:
        """See Stream."""
        await self._client.end()
