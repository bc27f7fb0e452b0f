"""An edge of a team's own that takes TLS 1.0, and hands messages on as they came: `python naive.py`, its places in the environment."""

import os
import socket
import ssl
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.unit.pentest_app import Edge

warnings.simplefilter("ignore", DeprecationWarning)
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CONTEXT.load_cert_chain(os.environ["EDGE_CERT"], os.environ["EDGE_KEY"])
CONTEXT.minimum_version = ssl.TLSVersion.TLSv1
CONTEXT.set_ciphers("DEFAULT:@SECLEVEL=0")
EDGE = Edge(("127.0.0.1", int(os.environ["ORIGIN_PORT"])))


def serve(client):
    with client, suppress(OSError):
        client.settimeout(5)
        EDGE.serve(CONTEXT.wrap_socket(client, server_side=True))


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(os.environ["EDGE_PORT"]))) as listening:
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
