"""What undoes a migration, carried out by itself: `python -m chaos.rollout.undo FILE`, the database in CHAOS_UNDO (a conninfo).

All statements of the file in one transaction, so that it can be run again when it failed. A roll-back's state names it as `undo`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg

CONNINFO = "CHAOS_UNDO"


def main(arguments: list[str]) -> int:
    """0 when done; 1, with PostgreSQL's words, when not."""
    try:
        statements = Path(arguments[0]).read_bytes()
        with psycopg.connect(os.environ[CONNINFO], application_name="chaos-gate") as session:
            session.execute("SET lock_timeout = '10s'")
            session.execute(statements)
    except (psycopg.Error, OSError, LookupError) as error:
        sys.stderr.write(f"undo: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
