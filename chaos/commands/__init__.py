"""The commands of `chaos-gate` that have a file of their own. Each module's `command` is what `chaos.cli` registers.

A command says what it takes and hands it on; what it needs is imported when it is called, so that `--help` stays quick.
"""

from __future__ import annotations

COMMANDS = (
    "attest",
    "canary",
    "documents",
    "export",
    "init",
    "pack",
    "prune",
    "report",
    "rollback",
    "shadow",
    "soak",
    "soc2",
    "summary",
    "trust",
    "verify",
)
