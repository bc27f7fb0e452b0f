"""Safety rails: nothing is injected anywhere that was not named. Pure functions of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from chaos.config import Config

NO_PROXY = "the target runs elsewhere, and no proxy in front of its database is known ([environment] toxiproxy, proxy)"


def host(url: str) -> str:
    """The host of a URL: lower case, without port, user and brackets."""
    return urlsplit(url).hostname or ""


def refusal(config: Config) -> str:
    """Why nothing may be injected on the network to the target's database; '' when it may (or when all of it is ours)."""
    target, settings = config.target.url, config.environment
    if target is None:
        return ""
    if settings.toxiproxy is None:
        return NO_PROXY
    allowed = {name.lower().strip("[]") for name in settings.allow}
    unnamed = [one for one in dict.fromkeys((host(target), host(settings.toxiproxy))) if one not in allowed]
    return f"nothing is injected there: {' and '.join(unnamed)} not in [environment] allow" if unnamed else ""
