"""`python -m chaos.traffic.load`: the sender, as a process of its own. It is told what to send, and ends with who started it."""

from __future__ import annotations

import asyncio
import resource
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from chaos.traffic.load.link import Child
from chaos.traffic.load.loop import punctual
from chaos.traffic.load.sender import Sender, lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.model import Interval, Operation

HEARTBEAT = 1.0  # s
SWITCH = 0.0005  # s for which the thread that writes histograms may keep the interpreter from the one that sends


async def main() -> None:
    """Obey until told to stop, or until nobody is there any more."""
    child = await Child.connected()
    sender: Sender | None = None

    def keep(intervals: Sequence[Interval], operations: Sequence[Operation], until: float) -> None:
        child.say(lines(intervals, operations, until))

    beating = asyncio.get_running_loop().create_task(_beat(child, lambda: dict(sender.counts) if sender else {}))
    while (message := await child.next()) is not None:
        number = message.get("number")
        if "orders" in message and sender is None:
            sender = Sender(message["orders"], epoch=message["epoch"], keep=keep)
            sender.start()
        elif sender is not None:
            await _obey(sender, message)
        child.say({"did": number})
        if "stop" in message:
            break
    beating.cancel()
    await child.close()


async def _obey(sender: Sender, message: dict[str, Any]) -> None:
    if "orders" in message:
        sender.change(message["orders"])
    elif "mark" in message:
        sender.mark(message["mark"], message.get("at", 0.0))
    elif "rate" in message:
        sender.rate(message["rate"], message.get("at", 0.0))
    elif "stop" in message:
        await sender.stop()


async def _beat(child: Child, counts: Any) -> None:
    while True:
        child.say({"counts": counts()})
        await asyncio.sleep(HEARTBEAT)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who leads the run is interrupted, and ends this one in order
    with suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536, hard))
    sys.setswitchinterval(SWITCH)
    with asyncio.Runner(loop_factory=punctual) as runner:
        runner.run(main())
