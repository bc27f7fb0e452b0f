"""Wrong servers: the wire plays one, to a target that reconnects or to one that starts. What it disclosed is in the connections.

Each row is paired: the same target, on the same path, has to have accepted the right server (and, where a row differs from a good
certificate in more than the defect, the good one of its kind) before its refusal is worth anything.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.cases.wire import ADDRESS
from chaos.errors import ChaosError, UsageError
from chaos.experiment.core import errors_only, note_exit
from chaos.faults.wire import Relay
from chaos.faults.wire.rows import BY_ID, Row, twin
from chaos.model import Connection, Effect, History, Kind, Rung, Window, now
from chaos.traffic.driver import wait_for
from chaos.traffic.requests import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.faults.wire import Behaviour
    from chaos.paths import DatabasePath
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

SETTLE = 0.7  # s after a client's first attempt with an impostor in which a second one (a fall-back) would follow
LINGER = 0.6  # s more in which a second attempt is waited for, when there was only one
CUT = 0.05  # s after the impostor has gone in which a connection may still have been cut with it
CONTROL = 4.0  # s in which an instance that still runs may find the right server by itself


@dataclass(slots=True)
class Masquerade:
    """The wire stops relaying and plays a server of its own; what the target discloses to it is recorded there."""

    row: Row
    path: DatabasePath
    behaviour: Behaviour
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

    def shown(self) -> bool:
        """Whether enough was seen: an attempt that is over (or works), and the time in which a second one would have followed."""
        met = self.met()
        done = [one for one in met if one.closed or one.reached >= max(self.row.until, Rung.STARTUP)]
        if not done:
            return False
        after = now() - min(one.closed or one.opened for one in done)
        return after >= SETTLE and (len(met) > 1 or after >= SETTLE + LINGER)


def masquerade(rig: Rig, case: Case, recording: Recording, path: DatabasePath) -> Masquerade | None:
    """What the case plays; its facts are recorded. None, and why in the facts, when this machine or this target cannot be asked."""
    row = BY_ID[case.what]
    recording.facts |= {
        "row": row.id,
        "must": row.must,
        "why": row.why,
        "until": row.until.name,
        "severity": row.severity,
        "presented": row.title,
        "behaviour": "",
    }
    absent = _unlike(row, rig)
    if absent:
        recording.facts["absent"] = absent
        return None
    fault = Masquerade(row, path, row.make(rig.identity))
    try:
        path.wire.behave(fault.behaviour)  # once, to see that it can be played: old ciphers may not be in this OpenSSL
    except UsageError as error:
        recording.facts["absent"] = f"it cannot be played here: {error.what}"
        return None
    finally:
        path.wire.behave(Relay())
    recording.facts["behaviour"] = fault.behaviour.name
    return fault


def _unlike(row: Row, rig: Rig) -> str:
    """Why the row is none for a target that connects as this one does; '' when it is. All of its connections so far are looked at."""
    if row.host == ADDRESS and rig.environment.postgres.host != "localhost":
        return "the target reaches the database by a name in a network of its own, where 127.0.0.1 is somebody else"
    wanted, missing = {
        "direct": ("direct", "the target asks for TLS with an SSLRequest, not with a ClientHello (sslnegotiation=direct)"),
        "gss": ("GSSENCRequest", "the target sends no GSSENCRequest (gssencmode=disable, or no Kerberos credentials)"),
    }.get(row.when, ("", ""))
    if not wanted or any(wanted in opening_words(one) for one in rig.path.connections(0.0)):
        return ""
    return missing


def opening_words(one: Connection) -> set[str]:
    """How a connection began: 'direct', or the names of its first packets."""
    words = {what.partition(" ")[0] for _, what in one.steps}
    direct = one.reached >= Rung.CLIENT_HELLO and one.tls and "SSL_REQUEST" not in words
    return words | ({"direct"} if direct else set())


# -- a running target -----------------------------------------------------------------------------------------------------------


def reconnect(rig: Rig, case: Case, recording: Recording) -> History:
    """A running target, whose connections are cut, finds an impostor when it comes back; then the right server again."""
    fault = masquerade(rig, case, recording, rig.path)
    if fault is None:
        return recording.history()
    patience = max(rig.config.target.database.recovery, rig.driver.deadline) + 2.0
    rig.driver.begin_clients()
    try:
        injected = now()
        try:
            fault.inject()
            wait_for(lambda: bool(rig.target.exited()) or fault.shown(), patience)
            effect = fault.confirm()
            recording.facts["held"] = f"{_longest(fault):.2f}"
            if fault.row.pair != "valid" and fault.row.must != "connect":
                _meet_twin(rig, fault, recording, patience)
        finally:
            fault.heal()
            rig.posed.append((injected, now() + CUT))
        recording.windows.append(Window(fault=case.id, scope="reconnect", injected=injected, healed=now(), effect=effect))
        wait_for(lambda: bool(rig.target.exited()) or _served(rig, recording.windows[-1].healed), patience)
        _note_return(rig, recording)
    finally:
        rig.driver.end_clients()
    return recording.history()


def _meet_twin(rig: Rig, fault: Masquerade, recording: Recording, patience: float) -> None:
    """The certificate that differs by the defect alone, on the same path, at once."""
    behaviour = twin(fault.row)(rig.identity)
    since = now()
    rig.path.wire.behave(behaviour)

    def went_on() -> bool:
        return any(
            one.behaviour == behaviour.name and one.tls and one.reached >= Rung.STARTUP for one in rig.path.connections(since)
        )

    accepted = wait_for(lambda: bool(rig.target.exited()) or went_on(), patience) and went_on()
    recording.facts["pair"] = "accepted" if accepted else "refused"


def _served(rig: Rig, healed: float) -> bool:
    """Whether the target has a session with the right server again, and answers a read."""
    rig.check_parts()
    met = [one for one in rig.path.connections(healed) if one.behaviour == "relay" and one.tls]
    session = any(one.established or not one.closed for one in met)  # a read that is answered says the rest
    return session and any(
        one.ok and one.kind is Kind.READ and one.started >= healed for one in rig.driver.recorder.since(healed)
    )


def _note_return(rig: Rig, recording: Recording) -> None:
    """The accept case: back at the right server, if need be after it was started again (a supervisor would have done that)."""
    note_exit(rig, recording)
    if recording.exited:
        rig.restart()
        recording.facts["back"] = "" if rig.steady() else "after a restart"
    elif _served(rig, recording.windows[-1].healed):
        recording.facts["back"] = f"{now() - recording.windows[-1].healed:.2f} s later"
    else:
        recording.facts["back"] = ""


# -- a target that starts -------------------------------------------------------------------------------------------------------


def start(rig: Rig, case: Case, recording: Recording) -> History:
    """A second instance is started on the twin path, where it has never met anything but the impostor."""
    recording.path = path = rig.start_path
    fault = masquerade(rig, case, recording, path)
    if fault is None:
        return recording.history()
    values = _values(rig, fault.row.host)
    instance = rig.second_instance(case.id.replace(".", "-"), values=values)
    injected, patience = now(), rig.config.target.startup_timeout
    over = _held_out if fault.row.must == "bounded" or fault.row.id == "A7" else Masquerade.shown
    try:
        fault.inject()
        instance.start()
        recording.facts["ready"] = "no"
        if fault.row.id == "valid":
            with suppress(ChaosError):
                instance.wait_ready(patience)
                recording.facts["ready"] = "yes"
        _provoke(rig, instance, lambda: over(fault) or (bool(instance.exited()) and not _open(fault)), patience)
        effect, healed = fault.confirm(), now()
        recording.facts["held"] = f"{_longest(fault):.2f}"
        fault.heal()
        recording.facts["back"] = _control(rig, instance, fault.row, values)
    finally:
        instance.stop()
        fault.heal()
    recording.windows.append(Window(fault=case.id, scope="start", injected=injected, healed=healed, effect=effect))
    history = recording.history()
    return replace(history, operations=errors_only(history.operations))


def _held_out(fault: Masquerade) -> bool:
    """A client that is kept waiting has given up, or will not in any time worth waiting for."""
    met = fault.met()
    return bool(met) and (any(one.closed for one in met) or _longest(fault) >= LONG)


LONG = 12.0  # s after which a client that still waits is told of: twice what most are set to


def _longest(fault: Masquerade) -> float:
    """Seconds that one of its connections lasted, or lasts."""
    return max(((one.closed or now()) - one.opened for one in fault.met()), default=0.0)


def _open(fault: Masquerade) -> bool:
    return any(not one.closed for one in fault.met())


def _values(rig: Rig, host: str) -> dict[str, str]:
    """The placeholders of an instance that connects to another name of the same server."""
    if host != ADDRESS:
        return {}
    postgres = rig.environment.postgres
    url = postgres.database_url(rig.start_path.port)
    return {"pg_host": ADDRESS, "database_url": url.replace(f"@{postgres.host}:", f"@{ADDRESS}:")}


def _control(rig: Rig, instance: CommandTarget, row: Row, values: dict[str, str]) -> str:
    """How an instance like this one came to the right server on this path: this one itself, else another. '' when none did.

    Once a worker is enough for the other one: what is asked is whether the command works here at all.
    """
    since = now()

    def here() -> bool:
        return any(one.behaviour == "relay" and one.established for one in rig.start_path.connections(since))

    if row.pair == "valid" or row.must == "connect":
        _provoke(rig, instance, lambda: here() or bool(instance.exited()), CONTROL)
        if here():
            return "the same instance, a moment later"
    key = (row.host, "valid" if row.must == "connect" else row.pair)
    if key not in rig.controls:
        behaviour = Relay() if key[1] == "valid" else twin(row)(rig.identity)
        since = now()
        rig.start_path.wire.behave(behaviour)
        other = rig.second_instance(f"control-{row.id.replace('.', '-')}", values=values)

        def accepted() -> bool:
            met = [one for one in rig.start_path.connections(since) if one.behaviour == behaviour.name and one.tls]
            return any(one.established or one.reached >= Rung.STARTUP for one in met)

        try:
            other.start()
            _provoke(rig, other, lambda: accepted() or bool(other.exited()), rig.config.target.startup_timeout)
            rig.controls[key] = accepted()
        finally:
            other.stop()
            rig.start_path.wire.behave(Relay())
    return "another instance, on the same path" if rig.controls[key] else ""


def _provoke(rig: Rig, instance: CommandTarget, seen: Callable[[], bool], patience: float) -> None:
    """Ask the instance for something from the database now and then: some services connect only when they have to."""
    session = replace(rig.driver.session, base_url=instance.base_url)
    sample = rig.driver.samples[Kind.READ][0]

    async def ask() -> None:
        rig.driver.recorder.aside(await send(session, sample, deadline=rig.driver.deadline, unique="provoked"))

    end = now() + patience
    asked = 0.0
    pending = None
    while now() < end and not seen():
        if now() - asked > 1.0 and (pending is None or pending.done()):
            asked = now()
            pending = rig.driver.begin(ask())
        time.sleep(0.03)
    if pending is not None:
        pending.cancel()
