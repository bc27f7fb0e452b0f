"""Outages in which the target is left alone: what it attempts by itself, and what a request makes it attempt."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from chaos.checks import backoff as judged
from chaos.experiment.core import note_exit
from chaos.faults.identity import Final
from chaos.faults.wire import Impostor, Relay
from chaos.model import Effect, History, Kind, Rung, Window, now

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.rig import Rig

SILENCE = 7.0  # s without a request: six pauses of a second, which is what many sleep
STILL = 2.5  # s after which a silence ends in which nothing was attempted
ASKED, ASKING = 6, 7.0  # requests, and the s for which somebody asks who is the only cause of attempts
BETWEEN = (0.03, 0.09)  # s between two of them, drawn: a regularity of ours must not be the target's
EPISODES = 3  # outages at the most: one that looks bad is repeated, so that chance cannot be blamed
REST = 1.0  # s of health between two
SHORT, SOON = 4.5, 1.5  # s, as SILENCE and STILL, where only the end of retries is looked for


def backoff(rig: Rig, case: Case, recording: Recording) -> History:
    """TLS failures: a server of an unknown authority in the database's place, and nobody who asks for anything."""
    silences: list[tuple[float, float]] = []
    for turn in range(EPISODES):
        if turn and (rig.steady() or rig.target.exited()):
            break
        if turn:
            time.sleep(REST)
        _episode(rig, case, recording, silences)
        recording.facts["silences"] = " ".join(f"{start!r}-{end!r}" for start, end in silences)
        if recording.exited or not judged.suspicious(recording.history()):
            break
    return recording.history()


def _episode(rig: Rig, case: Case, recording: Recording, silences: list[tuple[float, float]]) -> None:
    wire = rig.path.wire
    injected = now()
    try:
        wire.behave(Impostor(rig.identity(case.what), then="close"))
        wire.sever()
        silences.append(_silence(rig, injected))
        if not _met(rig, injected):  # it has to be asked before it notices
            rig.driver.once(rig.driver.samples[Kind.READ][0])
            silences.append(_silence(rig, now()))
        _ask(rig, alone=not _met(rig, silences[-1][0]))
        met = _met(rig, injected)
    finally:
        wire.behave(Relay())
        healed = now()
        wire.sever()
        rig.broken.append((injected, healed))
    effect = Effect(took=met > 0, seen=f"{met} connections of the target met it", count=met)
    recording.windows.append(Window(fault=case.id, scope="", injected=injected, healed=healed, effect=effect))
    note_exit(rig, recording)


def _silence(rig: Rig, start: float, *, seconds: float = SILENCE, still: float = STILL) -> tuple[float, float]:
    end = start + seconds
    while now() < end and not rig.target.exited() and (now() < start + still or _attempted(rig, start)):
        time.sleep(0.05)
        rig.check_parts()
    return start, now()


def _ask(rig: Rig, *, alone: bool) -> None:
    """A few requests; where they are the only cause of attempts (`alone`), so many that the pauses between attempts show."""
    rng = random.Random(rig.seed)  # noqa: S311  (reproducible, not secret)
    sample = rig.driver.samples[Kind.READ][0]
    end = now() + ASKING
    asked = 0
    while now() < end and (alone or asked < ASKED) and not rig.target.exited():
        rig.driver.once(sample)
        asked += 1
        time.sleep(rng.uniform(*BETWEEN))


def _attempted(rig: Rig, since: float) -> bool:
    """Whether a connection was tried, whatever it met."""
    return bool(judged.tried(rig.path.connections(since), since, now()))


def _met(rig: Rig, since: float) -> int:
    return sum(one.reached >= Rung.SSL_REQUEST for one in rig.path.connections(since) if one.behaviour != "relay")


def final(rig: Rig, case: Case, recording: Recording) -> History:
    """PostgreSQL itself refuses every connection with an error that no retry mends; otherwise as `backoff`."""
    silences: list[tuple[float, float]] = []
    for turn in range(EPISODES):
        if turn and (rig.steady() or rig.target.exited()):
            break
        _refused(rig, case, recording, silences)
        recording.facts["silences"] = " ".join(f"{start!r}-{end!r}" for start, end in silences)
        if recording.exited or not judged.suspicious(recording.history()):
            break
    return recording.history()


def _refused(rig: Rig, case: Case, recording: Recording, silences: list[tuple[float, float]]) -> None:
    fault = Final(case.what, rig.environment.postgres, rig.conninfo, time.sleep)
    injected = now()
    effect = Effect(took=False, seen="never confirmed")
    try:
        fault.inject()
        effect = fault.confirm()
        silences.append(_silence(rig, injected, seconds=SHORT, still=SOON))
        if not _attempted(rig, injected):
            rig.driver.once(rig.driver.samples[Kind.READ][0])
            silences.append(_silence(rig, now(), seconds=SHORT, still=SOON))
        _ask(rig, alone=False)
    finally:
        fault.heal()
        healed = now()
        rig.broken.append((injected, healed))
        recording.windows.append(Window(fault=case.id, scope="", injected=injected, healed=healed, effect=effect))
    if not rig.target.exited():
        recording.facts["again"] = rig.steady() or f"{now() - healed:.1f} s"
    note_exit(rig, recording)
