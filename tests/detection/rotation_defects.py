"""The reference service with one defect that only a rotation shows: `python rotation_defects.py DEFECT PORT`."""

import hashlib
import socket
import ssl
import struct
import sys
from dataclasses import replace
from urllib.parse import urlsplit

from chaos.targets.reference.__main__ import serve
from chaos.targets.reference.app import build_app
from chaos.targets.reference.connecting import connector
from chaos.targets.reference.settings import Settings


def leaf(url):
    """SHA-256 of the certificate that the server of a database URL serves."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    place = urlsplit(url)
    with socket.create_connection(("127.0.0.1", place.port), timeout=2) as plain:
        plain.sendall(struct.pack("!ii", 8, 80877103))
        plain.recv(1)
        with context.wrap_socket(plain) as secure:
            return hashlib.sha256(secure.getpeercert(binary_form=True)).hexdigest()


def pins_the_leaf(settings):
    """Trusts the one certificate that it saw first, as 'certificate pinning' is often built."""
    strict, pinned = connector(settings), []

    async def connect():
        seen = leaf(settings.database_url)
        pinned[:] = pinned or [seen]
        if seen != pinned[0]:
            raise ConnectionError("SSL error: the certificate is not the pinned one")
        return await strict()

    return build_app(settings, connect=connect)


def trusts_whoever_has_the_name(settings):
    """The name is looked at, the authority is not: right in every rotation, and with every impostor who knows the name."""
    lax = connector(settings, change={"sslmode": "require", "sslrootcert": "", "channel_binding": "prefer"})
    return build_app(settings, connect=lax)


DEFECTS = {one.__name__: one for one in (pins_the_leaf, trusts_whoever_has_the_name)}

if __name__ == "__main__":
    made = replace(Settings.from_environment(), port=int(sys.argv[2]))
    sys.exit(serve(DEFECTS[sys.argv[1]](made), made))
