"""Fixtures that several modules share."""

from tests.engine import docker  # noqa: F401  (a fixture)
