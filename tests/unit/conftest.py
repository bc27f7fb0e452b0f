"""Fixtures that several modules share."""

from tests.engine import docker, small  # noqa: F401  (fixtures)
