"""Wrong servers: the wire plays one, to a target that reconnects or to one that starts. What it disclosed is in the connections."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.errors import ChaosError
from chaos.experiment.core import Plan, under_fault
from chaos.faults.wire import Impostor, Refuse, Relay
from chaos.model import Connection, Effect, History, Kind, Rung, Window, now
from chaos.traffic.requests import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import DatabasePath, Rig

SETTLE = 0.7  # s after a client's first attempt with an impostor in which a second one (a fall-back) would follow


@dataclass(slots=True)
class Masquerade:
    """The wire stops relaying and plays a server of its own; what the target discloses to it is recorded there."""

    id: str
    title: str
    path: DatabasePath
    behaviour: Impostor | Refuse
    since: float = 0.0

    def inject(self) -> None:
        """From the next connection on; the established ones are cut, so that there is one."""
        self.since = now()
        self.path.wire.behave(self.behaviour)
        self.path.wire.sever()

    def confirm(self) -> Effect:
        """How many of the target's connections have met it so far."""
        met = self.met()
        return Effect(took=bool(met), seen=f"{len(met)} connections of the target met it", count=len(met))

    def heal(self) -> None:
        """Relay again; whoever still talks to the impostor is cut off."""
        self.path.wire.behave(Relay())
        self.path.wire.sever()

    def met(self) -> list[Connection]:
        """The target's connections that said something to the impostor."""
        return [
            one
            for one in self.path.connections(self.since)
            if one.behaviour == self.behaviour.name and (one.reached >= Rung.SSL_REQUEST or one.plaintext)
        ]

    def shown(self, *, working: bool) -> bool:
        """Whether enough was seen: an attempt that is over (or works) and the time in which a second one would have followed."""
        met = self.met()
        done = [one for one in met if one.closed or (working and one.reached >= Rung.QUERY)]
        return bool(done) and now() - min(one.closed or one.opened for one in done) >= SETTLE


def _masquerade(rig: Rig, case: Case, recording: Recording, path: DatabasePath) -> Masquerade:
    entries = {entry.name: entry for entry in rig.zoo.entries}
    if case.what == "refuse":
        behaviour: Impostor | Refuse = Refuse(answer=b"N")
        must, why = "reject", "a server that offers no TLS is refused (libpq, 34.19.3: verify-full)"
    else:
        must, why = entries[case.what].must, entries[case.what].why
        behaviour = Impostor(rig.identity(case.what), then="relay" if must == "connect" else "ask")
    presented = case.title.rsplit(",", 1)[0]
    recording.facts |= {"behaviour": behaviour.name, "must": must, "why": why, "presented": presented}
    return Masquerade(case.id, case.title, path, behaviour)


def reconnect(rig: Rig, case: Case, recording: Recording) -> History:
    """A running target, whose connections are cut, finds an impostor when it comes back."""
    fault = _masquerade(rig, case, recording, rig.path)
    working = recording.facts["must"] == "connect"
    patience = max(rig.config.target.database.recovery, rig.driver.deadline) + 2.0
    history = under_fault(rig, recording, Plan(fault, lambda: fault.shown(working=working), patience))
    met = len(fault.met())
    effect = Effect(took=met > 0, seen=f"{met} connections of the target met it", count=met)
    return replace(history, windows=tuple(replace(window, effect=effect) for window in history.windows))


def start(rig: Rig, case: Case, recording: Recording) -> History:
    """A second instance is started on the twin path, where it has never met anything but the impostor."""
    recording.path = path = rig.start_path
    fault = _masquerade(rig, case, recording, path)
    working = recording.facts["must"] == "connect"
    instance = rig.second_instance(case.id.replace(".", "-"))
    injected = now()
    try:
        fault.inject()
        instance.start()
        recording.facts["ready"] = "no"
        if working:
            with suppress(ChaosError):
                instance.wait_ready(rig.config.target.startup_timeout)
                recording.facts["ready"] = "yes"
        _provoke(rig, instance.base_url, lambda: bool(instance.exited()) or fault.shown(working=working))
        effect = fault.confirm()
    finally:
        instance.stop()
        fault.heal()
    recording.windows.append(Window(fault=case.id, scope="start", injected=injected, healed=now(), effect=effect))
    return replace(recording.history(), operations=())


def _provoke(rig: Rig, base_url: str, seen: Callable[[], bool]) -> None:
    """Ask the instance for something from the database now and then: some services connect only when they have to."""
    session = replace(rig.driver.session, base_url=base_url)
    sample = rig.driver.samples[Kind.READ][0]

    async def ask() -> None:
        await send(session, sample, deadline=rig.driver.deadline, unique="provoked")

    end = now() + rig.config.target.startup_timeout
    asked = 0.0
    pending = None
    while now() < end and not seen():
        if now() - asked > 1.0 and (pending is None or pending.done()):
            asked = now()
            pending = rig.driver.begin(ask())
        time.sleep(0.03)
    if pending is not None:
        pending.cancel()
