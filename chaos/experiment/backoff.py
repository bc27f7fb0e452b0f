"""An outage in which the target is left alone: what it attempts by itself, and what a request makes it attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from chaos.checks import backoff as judged
from chaos.experiment.core import note_exit
from chaos.faults.wire import Impostor, Relay
from chaos.model import Effect, History, Kind, Rung, Window, now

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig

SILENCE = 6.0  # s without a request: six pauses of a second, which is what many sleep
ASKED, ASKING = 6, 4.0  # requests, and the s after which no further one is sent
BETWEEN = 0.2  # s between two of them
EPISODES = 3  # outages at the most: one that looks bad is repeated, so that chance cannot be blamed
REST = 1.0  # s of health between two


def backoff(rig: Rig, case: Case, recording: Recording) -> History:
    """TLS failures: a server of an unknown authority in the database's place, and nobody who asks for anything."""
    silences: list[tuple[float, float]] = []
    for turn in range(EPISODES):
        if turn and (rig.steady() or rig.target.exited()):
            break
        if turn:
            time.sleep(REST)
        _episode(rig, case, recording, silences)
        recording.facts["silences"] = " ".join(f"{start:.6f}-{end:.6f}" for start, end in silences)
        if recording.exited or not judged.suspicious(recording.history()):
            break
    return recording.history()


def _episode(rig: Rig, case: Case, recording: Recording, silences: list[tuple[float, float]]) -> None:
    wire = rig.path.wire
    injected = now()
    try:
        wire.behave(Impostor(rig.identity(case.what), then="close"))
        wire.sever()
        silences.append(_silence(rig))
        if not _met(rig, injected):  # it has to be asked before it notices
            rig.driver.once(rig.driver.samples[Kind.READ][0])
            silences.append(_silence(rig))
        end = now() + ASKING
        for _ in range(ASKED):
            if now() < end:
                rig.driver.once(rig.driver.samples[Kind.READ][0])
                time.sleep(BETWEEN)
        met = _met(rig, injected)
    finally:
        wire.behave(Relay())
        healed = now()
        wire.sever()
        rig.broken.append((injected, healed))
    effect = Effect(took=met > 0, seen=f"{met} connections of the target met it", count=met)
    recording.windows.append(Window(fault=case.id, scope="", injected=injected, healed=healed, effect=effect))
    note_exit(rig, recording)


def _silence(rig: Rig) -> tuple[float, float]:
    start = now()
    while now() < start + SILENCE and not rig.target.exited():
        time.sleep(0.05)
        rig.check_parts()
    return start, now()


def _met(rig: Rig, since: float) -> int:
    return sum(one.reached >= Rung.SSL_REQUEST for one in rig.path.connections(since) if one.behaviour != "relay")
