"""The wire's rows as experiments on a service: each at its start, and when it reconnects; or why a row cannot be asked of one.

Starting an instance takes the service's own time, cutting its connections takes none: so a quick run plays every row on reconnect, and
at start those that tell most. The nightly profile plays all of them in both situations.
"""

from __future__ import annotations

from chaos.cases.case import ALWAYS, Case
from chaos.faults.wire.rows import ROWS, Row

SITUATIONS = {"start": "at start", "reconnect": "on reconnect"}
TELLING = {"valid", "C1", "C3", "C16", "C17", "C18", "P1", "P2", "P9.http", "A8"}  # at start, in a quick run
ADDRESS = "127.0.0.1"

_SETTINGS = "it takes an option in the client's own settings ({}): `chaos-gate matrix` asks it of drivers"
_BELOW = "no name below the database's own resolves here: `chaos-gate matrix` asks it of drivers"
_BY_NAME = "the running target connects to a name, not to an address: the row is asked at start"
_STANDS_STILL = "it is the same code as at start, and a running target would stand still for minutes: the row is asked at start"
_NO_QUERY = "an instance at its start has no query to cancel"
_CLIENT_CERTIFICATES = (
    "the target's database asks for a password, not for a client certificate: [target] has no placeholder for one"
)


def _why_not(row: Row, situation: str) -> str:
    if row.client:
        return _SETTINGS.format(", ".join(row.client))
    if row.host not in {"{host}", ADDRESS}:
        return _BELOW
    if situation == "reconnect" and row.host == ADDRESS:
        return _BY_NAME
    if row.id == "A7" and situation == "reconnect":
        return _STANDS_STILL
    return _NO_QUERY if row.when == "cancel" and situation == "start" else ""


def _case(row: Row, situation: str) -> Case:
    gates: tuple[str, ...]
    family, gates = situation, ("sec.verify_full", "rel.no_400_to_500", "rel.error_schema")
    if situation == "start":
        gates = ("sec.verify_full",)
    elif row.when == "cancel":
        family = "cancel"
    elif row.must == "bounded":
        family, gates = "stall", ("res.network", *ALWAYS)
    return Case(
        id=f"{row.id}.{situation}",
        family=family,
        title=f"{row.title}, {SITUATIONS[situation]}",
        gates=gates,
        what=row.id,
        nightly=row.when == "cancel" or (situation == "start" and row.id not in TELLING),
        reason=_why_not(row, situation),
    )


_CLIENTS = {
    "M1": "an expired client certificate",
    "M2": "a client certificate of another authority",
    "M3": "a client certificate for servers",
    "M4": "a client certificate for another user",
    "M5": "no client certificate",
    "M6": "a client key that others can read",
}

WIRE: tuple[Case, ...] = (
    Case(
        id="P7",
        family="injection",
        title="bytes injected between an SSLRequest and the client's handshake",
        gates=("sec.verify_full",),
        what="P7",
        needs=(),
    ),
    *(_case(row, situation) for row in ROWS for situation in SITUATIONS),
    *(
        Case(id=row, family="server", title=title, gates=("sec.verify_full",), what=row, reason=_CLIENT_CERTIFICATES)
        for row, title in _CLIENTS.items()
    ),
)
