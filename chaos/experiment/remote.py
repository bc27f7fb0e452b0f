"""Faults on a path that is not ours: no wire sees the target's connections there, so its own traffic has to show what was broken."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from chaos.faults.toxiproxy import ProxyControl, Toxic
from chaos.model import Effect, History, Kind

if TYPE_CHECKING:
    from chaos.config import Config
    from chaos.ledger import Restore
    from chaos.model import Operation
    from chaos.rig import Rig

DELAY = 0.4  # s that the database's answers are late while it is looked at whether the target waits for them
ROUNDS = 3  # requests of each kind, before and during
TITLE = f"{DELAY:g} s of delay, to see that the target is behind the proxy"
WORK = (Kind.READ, Kind.WRITE)


def nothing() -> int:
    """No connection is left to be cut."""
    return 0


@dataclass(slots=True)
class Delay:
    """The mildest fault there is, to see whether the target's database is behind the proxy at all."""

    control: ProxyControl
    proxy: str
    id: str = "path"
    title: str = TITLE
    toxic: Toxic = field(default=Toxic("latency", attributes={"latency": int(DELAY * 1000)}))

    def undo(self) -> tuple[Restore, ...]:
        """The proxy without it."""
        return (self.control.undo(self.proxy, (self.toxic,)),)


def longest(config: Config) -> float:
    """Seconds that the delay lasts at the most: every request of it takes as long as it may."""
    database = config.target.database
    return len(config.target.read) * ROUNDS * (database.fail_fast + max(2.0, database.fail_fast * 0.5))


def behind(rig: Rig) -> str:
    """'' when the target's requests wait for what passes the proxy; else why it cannot be told. Looked at once a run.

    Without this a fault on somebody else's proxy would prove a target that never noticed it.
    """
    if rig.behind is None:
        rig.behind = _look(rig)
    return rig.behind


def _look(rig: Rig) -> str:
    reads = rig.driver.samples[Kind.READ]
    before = {sample.key: [rig.driver.once(sample) for _ in range(ROUNDS)] for sample in reads}
    delay = Delay(rig.control, rig.path.name)
    entry = rig.ledger.begin(delay)
    during = {}
    try:
        with rig.watched():
            rig.control.add(rig.path.name, delay.toxic)
            for sample in reads:
                during[sample.key] = [rig.driver.once(sample) for _ in range(ROUNDS)]
    finally:
        rig.control.clean(rig.path.name)
        rig.ledger.healed(entry)
    if any(_waits(before[key], during[key]) for key in before):
        return ""
    return (
        f"none of {len(reads)} kinds of read became slower when proxy {rig.path.name!r} was made {DELAY:g} s slower: "
        "it is not in front of the target's database, or they do not read it"
    )


def _waits(before: list[Operation], during: list[Operation]) -> bool:
    """Whether every one was late, or failed where it had not."""
    if not all(one.ok for one in before):
        return False
    floor = max(one.seconds for one in before) + DELAY / 2
    return all(not one.ok or one.seconds >= floor for one in during)


def judged_by_traffic(history: History) -> History:
    """The effect, by the probe or by what the target's own requests met during the window against those before it."""
    windows = []
    for window in history.windows:
        work = [one for one in history.operations if one.kind in WORK]
        before = [one for one in work if one.finished <= window.injected]
        during = [one for one in work if window.injected <= one.started < window.healed]
        failed = sum(not one.ok for one in during)
        slow = _median(during) - _median(before)
        disturbed = bool(before) and all(one.ok for one in before) and (failed > 0 or slow > max(0.1, _median(before)))
        told = f"{failed} of the target's {len(during)} requests failed, the median was {slow * 1000:+.0f} ms"
        effect = Effect(took=window.effect.took or disturbed, seen=f"{window.effect.seen}; {told}", count=window.effect.count)
        windows.append(replace(window, effect=effect))
    return replace(history, windows=tuple(windows))


def _median(operations: list[Operation]) -> float:
    return statistics.median([one.seconds for one in operations]) if operations else 0.0
