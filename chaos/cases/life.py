"""What happens to a database in its life: killed, recovering, failed over, full, locked, migrated, pooled by others."""

from __future__ import annotations

from chaos.cases.case import ALWAYS, Case

GATES = ("res.network", *ALWAYS)
_ROWS = {
    "backend": ("a backend is killed (SIGKILL): PostgreSQL ends all sessions and recovers", ("read",)),
    "postmaster": ("the postmaster is killed (SIGKILL), and started again", ("read",)),
    "recovery": ("a crash and a long recovery: 'the database system is starting up' (57P03)", ("read",)),
    "failover": ("the primary dies, and its streaming standby is promoted behind the same address", ("read",)),
    "demoted": ("a planned fail-over; the old primary answers at the address for a while, read-only (25006)", ("read", "write")),
    "disk": ("no space left for WAL", ("read",)),
    "locks": ("a storm of short ACCESS EXCLUSIVE locks", ("read",)),
    "cancelled": ("the server cancels queries (57014), as a statement time-out does", ("read",)),
    "deadlock": ("writes end in deadlocks (40P01)", ("read", "write")),
    "conflict": ("writes end in serialization failures (40001)", ("read", "write")),
    "migration": ("ALTER TABLE waits behind a long transaction, in mid-traffic", ("read",)),
}
_BOUNCER = {
    "restart": "PgBouncer (transaction mode) in front, and PostgreSQL behind it crashes",
    "impostor": "PgBouncer (transaction mode) in front, and an impostor behind it: its own TLS leg must refuse it",
}
_STARTS = {
    "57P03": "an instance starts while the database recovers (57P03)",
    "slow": "an instance starts on a slow path to its database",
}

LIFE: tuple[Case, ...] = (
    *(
        Case(id=f"life.{what}", family="life", title=title, gates=GATES, what=what, needs=needs, nightly=True)
        for what, (title, needs) in _ROWS.items()
    ),
    *(
        Case(id=f"bouncer.{what}", family="bouncer", title=title, gates=GATES, what=what, nightly=True)
        for what, title in _BOUNCER.items()
    ),
    *(
        Case(id=f"starting.{what}", family="starting", title=title, gates=("res.network",), what=what, nightly=True)
        for what, title in _STARTS.items()
    ),
)
