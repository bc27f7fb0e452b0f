"""The schema: `python -m chaos.targets.reference.migrate`. Idempotent, and safe when several start it at once."""

from __future__ import annotations

import sys

import psycopg

from chaos.errors import ConfigError
from chaos.targets.reference.connecting import connect_once
from chaos.targets.reference.settings import Settings

LOCK = 4_713_001  # an advisory lock of ours: CREATE TABLE IF NOT EXISTS is not safe against itself
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS items_name ON items (name);
CREATE TABLE IF NOT EXISTS item_ledger (
    item_id bigint NOT NULL,
    name text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS item_ledger_name ON item_ledger (name);
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key text PRIMARY KEY,
    fingerprint text NOT NULL,
    item_id bigint,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS pages (
    slug text PRIMARY KEY,
    title text NOT NULL,
    body text NOT NULL
);
INSERT INTO pages (slug, title, body) VALUES
    ('blue-widgets', 'Blue widgets', 'Widgets in every shade of blue.'),
    ('red-widgets', 'Red widgets', 'Widgets in every shade of red.')
ON CONFLICT (slug) DO NOTHING;
INSERT INTO items (name) SELECT name FROM (VALUES ('first item'), ('second item')) AS seed (name)
WHERE NOT EXISTS (SELECT FROM items);
"""


def main() -> int:
    """Apply the schema; 0 when done."""
    try:
        settings = Settings.from_environment()
        with connect_once(settings) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            connection.execute(SCHEMA)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except psycopg.Error as error:
        sys.stderr.write(f"migrate: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
