"""The other direction (row P7, CVE-2021-23214): a client's SSLRequest with a StartupMessage injected behind it, to the real server.

A server that keeps the injected bytes would take them, after the handshake, for the verified client's own. PostgreSQL since 14.1 ends
such a connection with FATAL 08P01, and 17 feeds the bytes to the handshake, which fails.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from typing import TYPE_CHECKING

from chaos.faults.wire.protocol import SSL_REQUEST

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 5.0  # s for each step


def startup(user: str, database: str) -> bytes:
    """A StartupMessage of protocol 3.0."""
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in (("user", user), ("database", database)))
    return struct.pack("!II", len(body) + 9, 196608) + body + b"\0"


def try_it(port: int, ca_file: Path, *, user: str, database: str, inject: bool) -> str:
    """What the server at 127.0.0.1:port says inside TLS: 'R' (it goes on to authentication), an SQLSTATE, or how it ended.

    Without `inject` the StartupMessage comes where it belongs, inside TLS: the control.
    """
    hello = startup(user, database)
    context = ssl.create_default_context(cafile=str(ca_file))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as link:
            link.sendall(SSL_REQUEST + (hello if inject else b""))
            answer = link.recv(1)
            if answer != b"S":
                return f"answered {answer!r} to the SSLRequest"
            with context.wrap_socket(link, server_hostname="localhost") as secure:
                if not inject:
                    secure.sendall(hello)
                words = secure.recv(4096)
    except OSError as error:  # ssl.SSLError is one
        return type(error).__name__
    if words[:1] == b"R":
        return "R"
    code = re.search(rb"\0C([0-9A-Z]{5})\0", words)
    return code[1].decode() if code else "closed" if not words else f"{words[:1]!r}"
