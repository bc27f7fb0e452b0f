"""What every client here does: 'ready VERSION', then for each line 'URL [verb]' on stdin 'ok' or 'error WHY'."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(version: str, once: Callable[[str], object], verbs: dict[str, Callable[[str], object]] | None = None) -> None:
    """Until stdin ends. `verbs` are other things that can be asked for ('cancel')."""
    print("ready", version, flush=True)  # noqa: T201  (that is how it talks)
    for line in sys.stdin:
        url, _, verb = line.strip().partition(" ")
        try:
            ({"": once} | (verbs or {}))[verb](url)
            said = "ok"
        except Exception as error:  # noqa: BLE001  (whatever it was is the answer)
            said = f"error {type(error).__name__}: {error}"
        print(" ".join(said.split())[:300], flush=True)  # noqa: T201


def parts(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its query, and the query: for drivers whose options are not libpq's."""
    split = urlsplit(url)
    return urlunsplit(split._replace(query="")), dict(parse_qsl(split.query))


def context(options: dict[str, str]) -> ssl.SSLContext:
    """Python's own way to verify-full, with libpq's file names."""
    made = ssl.create_default_context(cafile=options["sslrootcert"])
    if "sslcrl" in options:
        made.load_verify_locations(options["sslcrl"])
        made.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    return made
