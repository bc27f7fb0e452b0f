"""Options and arguments that several commands take."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "-c", "--config", "given", metavar="FILE", help="the target's chaos.toml (default: the bundled service)"
)

directory_argument = click.argument("directory", type=click.Path(path_type=Path), default=Path("evidence/latest"))
