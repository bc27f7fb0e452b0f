"""What can be set, from the environment, checked before anything is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Durations are seconds.

    The deadlines nest: `statement_timeout` (the server gives up) < `silence` (we take the connection for dead) < `deadline` (the
    caller is answered, whatever happens). 2.5 s is half of the fail_fast that chaos.toml promises: room for a noisy machine.
    """

    database_url: str
    bind: str = "127.0.0.1"
    port: int = 8000
    release: str = "v1"
    log_file: str = ""

    allowed_hosts: tuple[str, ...] = ("api.example.test",)
    seo_hosts: tuple[str, ...] = ("*.landing.example.test",)
    preview_hosts: tuple[str, ...] = ("*.preview.example.test",)
    staging_hosts: tuple[str, ...] = ("staging.example.test",)
    crawler_hosts: tuple[str, ...] = ("render.example.test",)
    health_hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    enforce_hosts: bool = True
    bypass: bool = False
    provider_keys: tuple[str, ...] = ("demo-provider-key",)
    trusted_proxies: tuple[str, ...] = ()

    pool_size: int = 5
    waiting: int = 20
    acquire_timeout: float = 1.0
    connect_timeout: int = 2
    statement_timeout: float = 1.0
    lock_timeout: float = 0.75
    silence: float = 1.4
    deadline: float = 2.5
    reconnect_base: float = 0.02
    reconnect_cap: float = 1.5
    retry_attempts: int = 3
    retry_base: float = 0.05
    retry_cap: float = 0.4
    retry_ratio: float = 0.1
    channel_binding: str = "prefer"
    chain_pins: tuple[str, ...] = ()
    chain_interval: float = 5.0

    max_body: int = 65_536
    body_timeout: float = 5.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the variables named in docs/reference-service.md. Raises ConfigError for one that is missing or makes no sense."""
        env = os.environ if environment is None else environment
        return cls(
            database_url=_url(env),
            bind=env.get("BIND", "127.0.0.1"),
            port=_number(env, "PORT", 8000),
            release=env.get("RELEASE", "v1"),
            log_file=env.get("LOG_FILE", ""),
            allowed_hosts=_list(env, "ALLOWED_HOSTS", ("api.example.test",)),
            seo_hosts=_list(env, "SEO_HOSTS", ("*.landing.example.test",)),
            preview_hosts=_list(env, "PREVIEW_HOSTS", ("*.preview.example.test",)),
            staging_hosts=_list(env, "STAGING_HOSTS", ("staging.example.test",)),
            crawler_hosts=_list(env, "CRAWLER_HOSTS", ("render.example.test",)),
            health_hosts=_list(env, "HEALTH_HOSTS", ("127.0.0.1", "localhost")),
            enforce_hosts=_choice(env, "HOST_ALLOWLIST", "enforce", ("enforce", "monitor")) == "enforce",
            bypass=_choice(env, "HOST_BYPASS", "0", ("0", "1")) == "1",
            provider_keys=_list(env, "PROVIDER_KEYS", ("demo-provider-key",)),
            trusted_proxies=_list(env, "TRUSTED_PROXIES", ()),
            pool_size=_number(env, "POOL_SIZE", 5, low=1),
            channel_binding=_choice(env, "CHANNEL_BINDING", "prefer", ("prefer", "require")),
            chain_pins=_list(env, "CHAIN_PINS", ()),
        )


def _wrong(name: str, what: str, remedy: str) -> ConfigError:
    return ConfigError(what, remedy=remedy, where=name)


def _list(env: Mapping[str, str], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    raw = env.get(name)
    return default if raw is None else tuple(part.strip() for part in raw.split(",") if part.strip())


def _number(env: Mapping[str, str], name: str, default: int, *, low: int = 0) -> int:
    raw = env.get(name, str(default))
    if not (raw.isascii() and raw.isdigit() and low <= int(raw) <= 65_535):
        raise _wrong(
            name, f"{raw!r} is not a number from {low} to 65535", f"set {name} to a number, or leave it out for {default}"
        )
    return int(raw)


def _choice(env: Mapping[str, str], name: str, default: str, choices: tuple[str, ...]) -> str:
    raw = env.get(name, default)
    if raw not in choices:
        # A typing mistake in a security switch must not quietly mean its weaker side.
        raise _wrong(
            name, f"{raw!r} is none of {', '.join(choices)}", f"set {name} to one of them, or leave it out for {default}"
        )
    return raw


def _url(env: Mapping[str, str]) -> str:
    raw = env.get("DATABASE_URL", "")
    if not raw:
        raise _wrong("DATABASE_URL", "it is not set", "set it to a libpq URI that ends in sslmode=verify-full&sslrootcert=FILE")
    check_database_url(raw)
    return raw


def check_database_url(url: str) -> None:
    """Insist on a database whose certificate and name are verified. Raises ConfigError for anything weaker.

    libpq checks the chain and the name only under verify-full (PostgreSQL documentation, 34.19.3). It ignores an `sslcrl` that does not
    exist, and every `sslcrl` when sslrootcert=system (catalogue rows C24, C26), so both are refused here: fail closed.
    The message never holds the URL: there is a password in it.
    """
    import psycopg  # noqa: PLC0415  (heavy: settings are read by tools that need no driver)
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415  (the same)

    try:
        given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.ProgrammingError:
        raise _wrong("DATABASE_URL", "it is no libpq URI", "write postgresql://user:password@host:port/database?...") from None
    if given.get("sslmode") != "verify-full":
        seen = given.get("sslmode", "not set")
        raise _wrong(
            "DATABASE_URL", f"sslmode is {seen}: the server's name or certificate would not be verified", "use verify-full"
        )
    root = given.get("sslrootcert", "")
    if root == "system" and (given.get("sslcrl") or given.get("sslcrldir")):
        raise _wrong("DATABASE_URL", "libpq ignores the revocation list beside sslrootcert=system", "name the CA's own file")
    if root != "system" and not (root and Path(root).is_file()):
        raise _wrong(
            "DATABASE_URL", "sslrootcert names no file", "point it at the certificate of the CA that signed the database's"
        )
    for option in ("sslcrl", "sslcrldir"):
        if option in given and not Path(given[option]).exists():
            raise _wrong("DATABASE_URL", f"{option} does not exist, and libpq would connect without it", "put the list there")
