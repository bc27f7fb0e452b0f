"""How long evidence is kept: directories that no rule keeps any more go, whole or not at all."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from chaos import ledger
from chaos.errors import EvidenceUnwritable, UsageError
from chaos.evidence import schema
from chaos.evidence.bundle import LATEST, resolve

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0  # s
KEPT, DAYS = 20, 90  # the newest ones, and how long all others are kept


@dataclass(frozen=True, slots=True)
class Held:
    """One evidence directory. `why` it is kept; '' when it may go."""

    place: Path
    finished: float
    why: str


def held(base: Path, *, now: float, kept: int, days: float) -> tuple[Held, ...]:
    """Each evidence directory in `base`, the newest first. What holds no evidence.json of ours is none, and is not looked at.

    Kept are the newest `kept`, those of the last `days` days, `latest`, and one whose faults nobody has healed.
    """
    if not base.is_dir():
        raise UsageError("there is no such directory", remedy="name the one that holds the evidence directories", where=str(base))
    found = []
    for place in base.iterdir():
        if place.is_symlink() or not place.is_dir():
            continue
        with suppress(UsageError):
            finished = schema.read(place / "evidence.json").finished
            found.append((datetime.fromisoformat(finished).timestamp(), place))
    latest = resolve(base / LATEST)
    return tuple(
        Held(place, at, _why(place, index, (now - at) / DAY, kept, days, latest))
        for index, (at, place) in enumerate(sorted(found, reverse=True))
    )


def _why(place: Path, index: int, age: float, kept: int, days: float, latest: Path | None) -> str:  # noqa: PLR0917  (one rule each)
    if latest is not None and latest.resolve() == place.resolve():
        return "latest"
    if ledger.account(place / ledger.NAME).open:
        return "its faults were not healed"
    if index < kept:
        return f"one of the newest {kept}"
    return f"of the last {days:g} days" if age < days else ""


def prune(these: tuple[Held, ...]) -> list[Path]:
    """Removes those that nothing keeps; what was removed. Raises EvidenceUnwritable."""
    gone = []
    for one in these:
        if one.why:
            continue
        going = one.place.with_name(f".{one.place.name}.going")  # half a directory would look like evidence
        try:
            one.place.rename(going)
            shutil.rmtree(going)
        except OSError as error:
            what = f"cannot be removed: {error.strerror}"
            raise EvidenceUnwritable(what, remedy="remove it by hand", where=str(one.place)) from error
        gone.append(one.place)
    return gone
