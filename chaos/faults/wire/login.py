"""Authentication by an impostor that has passed TLS (rows A1 to A8): what it asks for, and what it makes of the answer.

https://www.postgresql.org/docs/current/protocol-flow.html, 'Start-up'; SCRAM: RFC 5802. No proof is ever checked, and nothing that a
client sends is kept: the ladder notes which kind of message it was.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.faults.wire import protocol
from chaos.faults.wire.behaviours import ITERATIONS, Then
from chaos.faults.wire.protocol import (
    AUTH_CLEARTEXT,
    AUTH_MD5,
    AUTH_SASL_FINAL,
    Ladder,
    Splitter,
    authentication,
    error_response,
)
from chaos.faults.wire.scene import Scene, gone, watch_out

if TYPE_CHECKING:
    from chaos.faults.wire.channel import Stream

NOT_NOW = ("57P03", "the database system is not accepting connections")
WRONG_PASSWORD = ("28P01", "password authentication failed")
_SCRAM: frozenset[Then] = frozenset({"ask", "scram", "unsigned", "missigned", "iterate"})


@dataclass(slots=True)
class _Talk:
    """One login, as it goes. `asked` is whether the SCRAM challenge is out."""

    scene: Scene
    stream: Stream
    then: Then
    tls: bool
    ladder: Ladder
    asked: bool = False

    async def say(self, data: bytes) -> None:
        self.ladder.down(data)
        await self.stream.write(data)

    async def refuse(self, code: str, text: str) -> None:
        await self.say(error_response(code, text))
        self.scene.record.end("wire", f"FATAL {code}")
        await self.stream.end()
        await watch_out(self.stream, self.ladder)

    async def begin(self) -> None:
        """The first request, or none."""
        step = self.scene.record.step
        if self.then in _SCRAM:
            await self.say(protocol.ask_for_scram(tls=self.tls and self.then != "scram"))
            step("asked for SCRAM" + ("" if self.tls and self.then != "scram" else ", without channel binding"))
        elif self.then == "cleartext":
            step("asked for the password in the clear")
            await self.say(authentication(AUTH_CLEARTEXT))
        elif self.then == "md5":
            step("asked for the MD5 of the password")
            await self.say(authentication(AUTH_MD5, secrets.token_bytes(4)))
        else:
            step("let in without being asked for anything")
            await self.say(protocol.let_in())

    async def answer(self, kind: bytes, body: bytes) -> bool:
        """To one message of the client's; False when that was the last word."""
        if kind != b"p":
            await self.refuse(*NOT_NOW)
            return False
        if self.then not in _SCRAM:
            await self.refuse(*NOT_NOW)
            return False
        challenge = b"" if self.asked else protocol.scram_challenge(body, ITERATIONS if self.then == "iterate" else 4096)
        if challenge:
            self.asked = True
            if self.then == "iterate":
                self.scene.record.step(f"challenged to {ITERATIONS:,} iterations")
            await self.say(challenge)
        elif self.asked and self.then in {"unsigned", "missigned"}:
            await self.welcome()
        else:
            await self.refuse(*(WRONG_PASSWORD if self.then == "ask" else NOT_NOW))
            return False
        return True

    async def welcome(self) -> None:
        """As if the proof were right; the server's own signature is left out, or is 32 random bytes."""
        final = b""
        if self.then == "missigned":
            final = authentication(AUTH_SASL_FINAL, b"v=" + base64.b64encode(secrets.token_bytes(32)))
        self.scene.record.step(
            "let in, " + ("with a wrong signature of the server's" if final else "without the server's signature")
        )
        await self.say(final + protocol.let_in())


async def login(scene: Scene, stream: Stream, rest: bytes, *, then: Then, tls: bool) -> None:
    """Play it to where the client goes, or has said what was to be found out. `rest` is what came behind StartupMessage."""
    talk = _Talk(scene, stream, then, tls, Ladder(scene.record))
    splitter = Splitter(4096)
    await talk.begin()
    data = rest or await stream.read()
    while data:
        talk.ladder.up(data)
        for kind, body in splitter.feed(data):
            if kind == b"X":  # Terminate
                gone(scene)
                return
            if not await talk.answer(kind, body):
                return
        if splitter.broken:
            scene.record.end("wire", "not the PostgreSQL protocol")
            return
        data = await stream.read()
    gone(scene)
