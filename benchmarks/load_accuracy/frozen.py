"""A server that answers after 200 ms, and is frozen for a part of every so many seconds: an answer that is due then waits for its end.

    python frozen.py --service 0.2 --freeze 1 --every 20 --begin 10

It prints its port, then obeys a fixed schedule: frozen from `begin` on, each `every` seconds, for `freeze` seconds, counted from the
time that it prints beside the port (seconds since the epoch). `truth` says what a request that is sent at a given time has to wait.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from chaos.traffic.load.loop import punctual

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


def truth(at: float, *, begun: float, service: float, freeze: float, every: float, begin: float) -> float:
    """Seconds that a request sent `at` waits for its answer."""
    due = at + service
    since = (due - begun - begin) % every
    if due < begun + begin or since >= freeze:
        return service
    return due + (freeze - since) - at


class Server(asyncio.Protocol):
    """One connection. Requests have no body."""

    options: argparse.Namespace
    begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.read = b""

    def data_received(self, data: bytes) -> None:
        """Each whole request is answered when it is time."""
        self.read += data
        while b"\r\n\r\n" in self.read:
            head, _, self.read = self.read.partition(b"\r\n\r\n")
            options = vars(self.options)
            wait = truth(time.time(), begun=self.begun, **options) if options["freeze"] else options["service"]
            last = b"connection: close" in head.lower()
            if wait:
                asyncio.get_running_loop().call_later(wait, self._answer, last)
            else:
                self._answer(last)

    def _answer(self, last: bool) -> None:
        self.transport.write(ANSWER)
        if last:
            self.transport.close()


async def main(options: argparse.Namespace) -> None:
    """Serve for ever."""
    Server.options, Server.begun = options, time.time()
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], Server.begun, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a server that is frozen from time to time")
    for name, default in (("service", 0.2), ("freeze", 1.0), ("every", 20.0), ("begin", 10.0)):
        parser.add_argument(f"--{name}", type=float, default=default)
    with asyncio.Runner(loop_factory=punctual) as runner:
        runner.run(main(parser.parse_args()))
