"""What is there for the day on which a roll-out goes wrong, demonstrated one by one: roll.safeguards.

The fifth of them, that WAF and edge do not hide host validation, is a gate of its own with experiments of its own: sec.waf.
"""

from __future__ import annotations

from chaos.cases.case import Case

GATE = ("roll.safeguards",)
_ROWS = {
    "allowlist": ("the allow-list's flag: on refuses unknown hosts, off serves them", ("flags", "hosts", "read")),
    "bypass": ("the emergency bypass: what it opens, and what stays shut", ("flags", "hosts", "read")),
    "pools": ("first requests after a start, with a slow path to the database", ("flags", "read")),
    "chain": ("the database presents another chain: ready says no, live says yes", ("flags", "read", "ready")),
}

SAFEGUARDS: tuple[Case, ...] = tuple(
    Case(id=f"safeguard.{what}", family="safeguards", title=title, gates=GATE, what=what, needs=needs, nightly=True)
    for what, (title, needs) in _ROWS.items()
)
