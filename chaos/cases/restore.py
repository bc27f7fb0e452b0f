"""The restore drill: one row for each kind of recovery target, each with a disaster of its own (`chaos.experiment.restore`)."""

from __future__ import annotations

from chaos.cases.case import Case

_ROWS = {
    "time": "the tables are dropped; restored to a time before it (base backup and WAL)",
    "lsn": "the tables are emptied; restored to a place in the WAL before it",
    "name": "the tables are renamed; restored to a named point before it",
}

RESTORE: tuple[Case, ...] = tuple(
    Case(
        id=f"restore.pitr.{what}",
        family="restore",
        title=title,
        gates=("res.rollback", "res.durability", "rel.error_schema"),
        what=what,
        nightly=True,
    )
    for what, title in _ROWS.items()
)
