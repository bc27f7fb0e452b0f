"""What runs already and is not ours: a target somewhere, and the Toxiproxy in front of its database."""

from __future__ import annotations

from chaos.environments.remote.environment import RemoteEnvironment
from chaos.environments.remote.rails import host, refusal

__all__ = ["RemoteEnvironment", "host", "refusal"]
