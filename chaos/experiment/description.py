"""The target's own OpenAPI description, fetched or read once a rig; and what is wrong with it, when it cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from chaos.errors import ChaosError
from chaos.traffic import openapi

if TYPE_CHECKING:
    from chaos.config import Target
    from chaos.rig import Rig
    from chaos.traffic.driver import Driver
    from chaos.traffic.openapi import Description
    from chaos.traffic.requests import Session

DEADLINE = 15.0  # s for a description: a framework may build it at the first request

_known: WeakKeyDictionary[Driver, tuple[str, ...]] = WeakKeyDictionary()


def load(driver: Driver, target: Target, session: Session) -> Description | None:
    """What [target.openapi] names; None without that table. Raises ConfigError for what cannot be used."""
    if target.openapi is None:
        return None
    if target.openapi.file is not None:
        return openapi.read(target.openapi.file)
    return driver.call(openapi.fetch(session, str(target.openapi.path), deadline=DEADLINE))


def templates(rig: Rig) -> tuple[str, ...]:
    """The path templates of the target's description, each with what comes before all of them; () when there is none to be had."""
    driver = rig.driver
    if driver not in _known:
        try:
            found = load(driver, rig.config.target, driver.session)
        except ChaosError:  # grouping can do without; the contract's own check says what is wrong with it
            found = None
        base = found.base() if found else ""
        _known[driver] = tuple(dict.fromkeys(base + one.path for one in found.operations())) if found else ()
    return _known[driver]
