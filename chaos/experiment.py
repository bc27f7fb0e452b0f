"""The one place that composes an experiment: steady state, inject, took effect?, heal, recovered?, and the history of it all.

A runner a family, chosen by `Case.family`. Each returns a `History` and judges nothing; `chaos.checks.judge` does that, from the
history alone. Whatever happens inside, the fault is healed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from chaos.checks import audit
from chaos.errors import ChaosError
from chaos.faults import Fault, probe
from chaos.faults.database import Locks, Restart, ServerCertificate, Slots, TlsOff, admin
from chaos.faults.network import NETWORK, SLOW, NetworkInjector
from chaos.faults.wire import Impostor, Refuse, Relay
from chaos.model import Connection, Effect, History, Kind, Operation, Rung, Window, now
from chaos.traffic import hosts
from chaos.traffic.driver import wait_for
from chaos.traffic.requests import send

if TYPE_CHECKING:
    from chaos.cases import Case
    from chaos.rig import DatabasePath, Rig

HOLD = 1.5  # s that a fault lasts at least
BEFORE = 0.3  # s of traffic before it strikes: the control inside the same window
SETTLE = 0.7  # s after a client's first attempt with an impostor in which a second one (a fall-back) would follow
TAIL = 0.8  # s for which success must hold, at the least
LOAD_RATE, LOAD_SECONDS = 70.0, 5.5
AUDIT_PATIENCE = 3.0  # s in which a log line may still be on its way
TWICE = 3  # writes that are sent a second time with nothing broken
RETRIED = 10  # at most so many unknown writes are sent again with the same key


class Recording:
    """Collects what becomes a History."""

    def __init__(self, rig: Rig, case: Case) -> None:
        self.rig, self.case = rig, case
        self.started = now()
        self.windows: list[Window] = []
        self.facts: dict[str, str] = {"gate": case.gate, "family": case.family, "title": case.title}
        self.facts |= {f"once.{key}": str(count) for key, count in rig.once.items()}
        self.path: DatabasePath | None = getattr(rig, "path", None)
        self.extra: tuple[Operation, ...] = ()
        self.exited = ""

    def history(self, control: str = "") -> History:
        """Frozen, as it stands."""
        return History(
            experiment=self.case.id,
            started=self.started,
            finished=now(),
            windows=tuple(self.windows),
            operations=self.rig.driver.recorder.since(self.started) + self.extra,
            connections=self.path.connections(self.started) if self.path else (),
            control=control,
            exited=self.exited,
            logs=self.rig.target.log_tail(12) if self.exited else (),
            facts=self.facts,
        )


Runner = Callable[["Rig", "Case", Recording], History]


def run(rig: Rig, case: Case, more: Mapping[str, Runner] | None = None) -> History:
    """Run one case on a rig and return what was recorded. `more` are runners of families that are composed above (roll-out)."""
    recording = Recording(rig, case)
    sick = rig.healthy_or_restarted()
    if sick:
        return recording.history(control=sick)
    recording.facts |= {f"once.{key}": str(count) for key, count in rig.once.items()}
    return {**RUNNERS, **(more or {})}[case.family](rig, case, recording)


# -- faults under traffic -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """A fault, and how long it has to last: until `enough()` holds, but at least `HOLD` and at most `longest` seconds.

    A service may wait before it tries again: a fault on new connections that was over before it tried has shown nothing.
    """

    fault: Fault
    enough: Callable[[], bool] | None = None
    longest: float = 0.0
    met: bool = False  # the target has to have opened a connection into the fault, where the wire can see that


def under_fault(rig: Rig, recording: Recording, plan: Plan) -> History:
    """Traffic, fault, proof, heal, recovery, and the writes looked up again."""
    driver = rig.driver
    driver.begin_clients(rig.live)
    try:
        time.sleep(BEFORE)
        _window(rig, recording, plan)
        healed = recording.windows[-1].healed
        _await_recovery(rig, healed)
    finally:
        driver.end_clients()
    _note_exit(rig, recording)
    if not recording.exited and _serving(rig, healed):
        _look_up_writes(rig, recording.started)
    return recording.history()


def _window(rig: Rig, recording: Recording, plan: Plan) -> None:
    """Inject, confirm, hold, heal. Healed whatever happens; a window that could not be healed is recorded as such, and raised."""
    fault = plan.fault
    injected = now()
    effect, cleanup = Effect(took=False, seen="never confirmed"), "not healed"
    try:
        fault.inject()
        effect = fault.confirm()
        _hold(rig, injected, plan)
    finally:
        try:
            fault.heal()
            cleanup = "clean"
        finally:
            recording.windows.append(
                Window(
                    fault=fault.id, scope=recording.case.scope, injected=injected, healed=now(), effect=effect, cleanup=cleanup
                )
            )
            rig.broken.append((injected, now()))


def _hold(rig: Rig, injected: float, plan: Plan) -> None:
    """Until every client has had answers to two requests that it sent during the fault, or its deadline has long passed."""
    longest = plan.longest or rig.driver.deadline + 1.0

    def answered() -> bool:
        after = injected
        if plan.met:
            attempts = [one.opened for one in rig.path.connections(injected)]
            if not attempts:
                return False
            after = min(attempts) - 1.0  # the request that opened the connection counts as well
        sent = Counter(one.client for one in rig.driver.recorder.since(injected) if one.started >= max(injected, after))
        return len(sent) >= rig.driver.clients and min(sent.values()) >= 2

    def over() -> bool:
        rig.check_parts()
        return bool(rig.target.exited()) or (now() - injected >= HOLD and (plan.enough or answered)())

    wait_for(over, longest)


def _await_recovery(rig: Rig, healed: float) -> None:
    """Watch until success holds (a few in a row of each kind, for `TAIL` seconds) or the time for it has passed."""
    limit = rig.config.target.database.recovery + 1.5

    def holds() -> bool:
        rig.check_parts()
        return bool(rig.target.exited()) or _serving(rig, healed)

    wait_for(holds, limit + rig.driver.stalls.between(healed, now()))


def _serving(rig: Rig, healed: float) -> bool:
    after = [one for one in rig.driver.recorder.since(healed) if one.started >= healed]
    for kind, few in ((Kind.READ, 5), (Kind.WRITE, 3)):
        if not rig.driver.samples[kind]:
            continue
        these = [one for one in after if one.kind is kind]
        good = 0
        for one in reversed(these):
            if not one.ok:
                break
            good += 1
        held = these[-1].finished - these[-good].started if good else 0.0
        if good < few or held < TAIL:
            return False
    return True


def _note_exit(rig: Rig, recording: Recording) -> None:
    """A target that ended by itself during a fault is a finding; one that somebody killed is an environment error."""
    rig.check_parts()
    recording.exited = rig.target.exited()
    rig.exit_told = bool(recording.exited)


def _look_up_writes(rig: Rig, since: float) -> None:
    """Read back every acknowledged or unknown write; unknown ones with an idempotency key are sent again first, as a client would."""
    driver = rig.driver
    sent = [one for one in driver.recorder.since(since) if one.kind is Kind.WRITE]
    unknown = [one for one in sent if not one.ok and not 400 <= (one.status or 0) < 500]
    by_key = {sample.key: sample for sample in driver.samples[Kind.WRITE]}
    for one in unknown[:RETRIED]:
        sample = by_key[one.sample]
        if getattr(sample.request, "idempotency_header", None):
            driver.once(sample, unique=one.unique)
    driver.read_back(list({one.unique: one for one in sent}.values()))


def _network(rig: Rig, case: Case, recording: Recording) -> History:
    rows = {fault.id: fault for fault in (*NETWORK, SLOW)}
    injector = NetworkInjector(
        rows[case.what or case.family],
        case.scope,
        rig.control,
        rig.path.name,
        rig.path.port,
        rig.conninfo,
        rig.path.wire.sever,
    )
    if injector.arm():
        sick = rig.steady()
        if sick:
            rig.control.clean(rig.path.name)
            return recording.history(control=sick)
        recording.started = now()
    return under_fault(rig, recording, Plan(injector, met=case.scope == "new" and not injector.fault.disable))


def _certificate(rig: Rig, case: Case, recording: Recording) -> History:
    bad, good = rig.identity(case.what), rig.identity("valid")
    fault = ServerCertificate(
        id=case.id,
        title=case.title,
        server=rig.environment.postgres,
        chain_file=bad.chain_file,
        key_file=bad.key_file,
        good_chain=good.chain_file,
        good_key=good.key_file,
        probe_conninfo=rig.conninfo,
    )
    return under_fault(rig, recording, Plan(fault, met=True))


def _tls_off(rig: Rig, case: Case, recording: Recording) -> History:
    del case
    return under_fault(rig, recording, Plan(TlsOff(rig.environment.postgres, rig.conninfo), met=True))


def _restart(rig: Rig, case: Case, recording: Recording) -> History:
    return under_fault(rig, recording, Plan(Restart(rig.environment.postgres, case.what, rig.conninfo)))


def _locks(rig: Rig, case: Case, recording: Recording) -> History:
    del case
    return under_fault(rig, recording, Plan(Locks(rig.environment.postgres, rig.driver.add_reader, time.sleep)))


def _slots(rig: Rig, case: Case, recording: Recording) -> History:
    del case
    fault = Slots(rig.environment.postgres, rig.conninfo_at(rig.environment.postgres.port), rig.conninfo, time.sleep)
    return under_fault(rig, recording, Plan(fault))


# -- wrong servers --------------------------------------------------------------------------------------------------------------


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


def _reconnect(rig: Rig, case: Case, recording: Recording) -> History:
    fault = _masquerade(rig, case, recording, rig.path)
    working = recording.facts["must"] == "connect"
    patience = max(rig.config.target.database.recovery, rig.driver.deadline) + 2.0
    history = under_fault(rig, recording, Plan(fault, lambda: fault.shown(working=working), patience))
    met = len(fault.met())
    effect = Effect(took=met > 0, seen=f"{met} connections of the target met it", count=met)
    return replace(history, windows=tuple(replace(window, effect=effect) for window in history.windows))


def _start(rig: Rig, case: Case, recording: Recording) -> History:
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


# -- nothing broken -------------------------------------------------------------------------------------------------------------


def _steady(rig: Rig, case: Case, recording: Recording) -> History:
    """Invalid requests in a closed loop for a moment, then open-loop load by itself."""
    del case
    rig.driver.begin_clients(rig.live)
    time.sleep(1.0)
    rig.driver.end_clients()
    before = psutil.cpu_times()
    at = time.monotonic()
    rig.driver.load(rate=LOAD_RATE, seconds=LOAD_SECONDS)
    rig.check_alive()
    recording.facts["busy"] = f"{_busy(before, psutil.cpu_times(), time.monotonic() - at):.3f}"
    _send_twice(rig)
    _look_up_writes(rig, recording.started)
    return replace(recording.history(), connections=_undisturbed(rig))


def _send_twice(rig: Rig) -> None:
    """What a client does that never saw the answer: the same write again, under the same idempotency key."""
    for sample in rig.driver.samples[Kind.WRITE]:
        if getattr(sample.request, "idempotency_header", None):
            for _ in range(TWICE):
                first = rig.driver.once(sample)
                rig.driver.once(sample, unique=first.unique)


def _undisturbed(rig: Rig) -> tuple[Connection, ...]:
    """All of this worker's connections so far that were opened well outside the suite's own fault windows."""
    margin = rig.config.target.database.recovery
    return tuple(
        one
        for one in (rig.path.connections(0.0) if rig.injects else ())
        if not any(start - 1.0 <= one.opened <= end + margin for start, end in rig.broken)
    )


def _busy(before: object, after: object, seconds: float) -> float:
    """Share of the machine's CPU time in use between two psutil.cpu_times()."""
    idle = getattr(after, "idle", 0.0) - getattr(before, "idle", 0.0)
    idle += getattr(after, "iowait", 0.0) - getattr(before, "iowait", 0.0)
    return max(0.0, 1.0 - idle / max(0.001, seconds * (psutil.cpu_count() or 1)))


def _hosts(rig: Rig, case: Case, recording: Recording) -> History:
    del case
    target, facts = rig.target, recording.facts
    offset = target.log_offset()
    recording.extra = hosts.observe(rig.config.target, rig.driver.session, address=target.address, seed=rig.seed)
    history = recording.history()
    if rig.config.target.logs is None:
        return history
    refused = frozenset(one.unique.lower() for one in recording.extra if one.unique and one.status == 400)
    shown: list[str] = []

    def found() -> bool:
        shown[:] = [line for line in target.log_lines(offset) if audit.mentions(line, refused)]
        return bool(shown)

    wait_for(found, AUDIT_PATIENCE, every=0.1)
    facts |= {
        "audit.refused": str(len(refused)),
        "audit.shown": str(len({audit.mentions(line, refused).lower() for line in shown})),
        "audit.lines": str(len(target.log_lines(offset))),
    }
    return replace(history, logs=tuple(line[:400] for line in shown[:5]))


def _server(rig: Rig, case: Case, recording: Recording) -> History:
    del case
    direct = rig.conninfo_at(rig.environment.postgres.port)
    plain = probe.connect(direct.replace("sslmode=verify-full", "sslmode=disable"))
    verified = probe.connect(direct)
    for sample in rig.driver.samples[Kind.READ]:
        rig.driver.once(sample)
    rig.check_alive()
    with admin(rig.environment.postgres) as session:
        rows = session.execute(
            "SELECT s.ssl, count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
            "WHERE a.usename = %s AND a.application_name <> %s GROUP BY 1",
            (rig.environment.postgres.app_user, probe.PROBE_NAME),
        ).fetchall()
    counts = {bool(row[0]): int(str(row[1])) for row in rows}
    recording.facts |= {
        "plaintext": plain.how,
        "plaintext.text": " ".join(plain.text.split())[-160:],
        "verified": verified.how,
        "sessions.tls": str(counts.get(True, 0)),
        "sessions.plain": str(counts.get(False, 0)),
    }
    return recording.history()


RUNNERS: Mapping[str, Runner] = {
    "network": _network,
    "slow": _network,
    "certificate": _certificate,
    "tls-off": _tls_off,
    "locks": _locks,
    "slots": _slots,
    "restart": _restart,
    "reconnect": _reconnect,
    "start": _start,
    "steady": _steady,
    "hosts": _hosts,
    "server": _server,
}
