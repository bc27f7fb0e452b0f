"""PostgreSQL, Toxiproxy, Caddy and, where it is an image, the target, in containers of an engine on this machine."""

from chaos.environments.docker.environment import DockerEnvironment, DockerSettings, ImageRunner, provide, release
from chaos.environments.docker.labels import sweep

__all__ = ["DockerEnvironment", "DockerSettings", "ImageRunner", "provide", "release", "sweep"]
