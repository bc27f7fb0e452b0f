"""Clients of ours that retry without jitter: the control group of retry forensics. `python -m chaos.faults.knocking CA_FILE PORT...`.

One client a port, in one process: SSLRequest, a TLS handshake that verifies, and so fails; then a pause that doubles from BASE to CAP.
A judgement that does not see that these have no jitter is none. It ends by a signal; nothing else ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys

from chaos.faults.wire.protocol import SSL_REQUEST

BASE, CAP = 0.1, 2.0  # s
HOST = "localhost"
PATIENCE = 5.0  # s for one attempt


async def attempt(port: int, context: ssl.SSLContext) -> None:
    """One connection, as far as it goes. OSError (ssl.SSLError is one) when it is refused, or refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(SSL_REQUEST)
        if await reader.readexactly(1) == b"S":
            await writer.start_tls(context, server_hostname=HOST)
    finally:
        writer.transport.abort()


async def knock(port: int, context: ssl.SSLContext) -> None:
    """For ever."""
    failures = 0
    while True:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await attempt(port, context)
        await asyncio.sleep(min(CAP, BASE * 2**failures))
        failures += 1


async def _all(ports: list[int], context: ssl.SSLContext) -> None:
    await asyncio.gather(*(knock(port, context) for port in ports))


def main() -> None:
    """From the command line."""
    context = ssl.create_default_context(cafile=sys.argv[1])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_all([int(port) for port in sys.argv[2:]], context))


if __name__ == "__main__":
    main()
