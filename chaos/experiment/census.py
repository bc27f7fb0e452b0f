"""What the server's log says of the target's connections: who came in, how, and whose handshake it could not accept.

Which line belongs to which connection of the wire is known exactly: the wire notes the port from which it went on to PostgreSQL, and
the server (log_connections) the port from which a backend was called. So neither our own probes nor another instance of the target
are taken for the target's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.model import Connection

# log_line_prefix = '%m [%p] %q%u@%d ', log_timezone = UTC: chaos/environments/local/postgres.py
_LINE = re.compile(r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(?P<pid>\d+)\] (?P<text>.*)")
_RECEIVED = re.compile(r"connection received: .*\bport=(\d+)")
UPSTREAM = re.compile(r"goes on to PostgreSQL from port (\d+)")
_ABORTED = re.compile(r"EOF|unexpected eof|reset by peer|Broken pipe|SYSCALL|: Success")
_REFUSED = ("could not accept SSL connection", "requires a valid client certificate")
NEAR = 5.0  # s between the wire's and the server's time for one connection: ports come again, but not that soon


@dataclass(slots=True)
class Backend:
    """One server process: when it was called (seconds since the epoch), and what it logged."""

    port: int
    at: float
    refused: str = ""
    aborted: bool = False
    authorized: bool = False
    tls: bool = False


def backends(lines: Iterable[str]) -> list[Backend]:
    """All of them, in the order of the log."""
    by_pid: dict[str, Backend] = {}
    found: list[Backend] = []
    for line in lines:
        parts = _LINE.match(line)
        if not parts:
            continue
        text = parts["text"]
        received = _RECEIVED.search(text)
        if received:
            at = datetime.fromisoformat(f"{parts['at']}+00:00").timestamp()
            by_pid[parts["pid"]] = backend = Backend(int(received[1]), at)
            found.append(backend)
        elif (one := by_pid.get(parts["pid"])) is not None:
            _note(one, text)
    return found


def _note(backend: Backend, text: str) -> None:
    if any(words in text for words in _REFUSED):
        if _ABORTED.search(text):  # the client went away in the middle: it gave up, nobody refused anybody
            backend.aborted = True
        else:
            backend.refused = text.partition("  ")[2][:160] or text[:160]
    elif "connection authorized:" in text:
        backend.authorized, backend.tls = True, "SSL enabled" in text


def facts(connections: Sequence[Connection], quiet: Sequence[Connection], lines: Iterable[str]) -> dict[str, str]:
    """'log.refused' and 'log.aborted' of the `quiet` connections, 'log.tls' and 'log.plain' sessions of all: counts, and an example."""
    known = backends(lines)
    theirs = {one.id: mine for one in connections if (mine := _of(one, known)) is not None}
    refused = [theirs[one.id] for one in quiet if one.id in theirs and theirs[one.id].refused]
    sessions = [one for one in theirs.values() if one.authorized]
    return {
        "log.matched": str(len(theirs)),
        "log.refused": str(len(refused)),
        "log.aborted": str(sum(theirs[one.id].aborted for one in quiet if one.id in theirs)),
        "log.refused.text": refused[0].refused if refused else "",
        "log.tls": str(sum(one.tls for one in sessions)),
        "log.plain": str(sum(not one.tls for one in sessions)),
    }


def _of(one: Connection, known: Sequence[Backend]) -> Backend | None:
    said = next((match for _, what in one.steps if (match := UPSTREAM.match(what))), None)
    if said is None:
        return None
    port = int(said[1])
    return next((each for each in known if each.port == port and abs(each.at - one.opened) <= NEAR), None)
