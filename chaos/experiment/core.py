"""What every experiment is made of: a recording that becomes a history, and a fault held under traffic until it has shown enough."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from chaos.checks.errors import HEALTH
from chaos.errors import CleanupFailed
from chaos.experiment import description, private
from chaos.model import Effect, History, Kind, Operation, Window, now
from chaos.traffic.driver import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.cases import Case
    from chaos.faults import Fault
    from chaos.paths import DatabasePath
    from chaos.rig import Rig

HOLD = 1.5  # s that a fault lasts at least
BEFORE = 0.3  # s of traffic before it strikes: the control inside the same window
TAIL = 0.8  # s for which success must hold, at the least
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
        # Error answers since the last history (the first start, a restart): of no experiment, and looked at all the same.
        between = rig.driver.recorder.since(rig.driver.recorder.taken)
        self.unseen = errors_only(one for one in between if one.finished < self.started)
        self.templates = description.templates(rig)
        self.exited = ""

    def history(self, control: str = "") -> History:
        """Frozen, as it stands; what may not be told is not in it any more."""
        recorder = self.rig.driver.recorder
        self.unseen += errors_only(recorder.take_aside())
        operations = private.marked((*self.unseen, *recorder.since(self.started), *self.extra), private.known(self.rig))
        recorder.taken = now()
        if self.templates:
            self.facts["routes"] = private.routes(operations, self.templates)
        return History(
            experiment=self.case.id,
            started=self.started,
            finished=now(),
            windows=tuple(self.windows),
            operations=operations,
            connections=self.path.connections(self.started) if self.path else (),
            control=control,
            exited=self.exited,
            logs=self.rig.target.log_tail(12) if self.exited else (),
            facts=self.facts,
        )


def errors_only(operations: Iterable[Operation]) -> tuple[Operation, ...]:
    """Error answers, as of requests that no check of an outage counts; those to health checks stay what they are."""
    return tuple(one if one.kind in HEALTH else replace(one, kind=Kind.PREPARE) for one in operations if (one.status or 0) >= 400)


Runner = Callable[["Rig", "Case", Recording], History]


class Healed(Protocol):
    """What can be broken and healed, as a whole: a fault, or several that overlap."""

    id: str
    title: str

    def heal(self) -> None:
        """Idempotent; CleanupFailed when it could not be undone."""


# -- faults under traffic -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """A fault, and how long it has to last: until `enough()` holds, but at least `least` and at most `longest` seconds.

    A service may wait before it tries again: a fault on new connections that was over before it tried has shown nothing.
    """

    fault: Fault
    enough: Callable[[], bool] | None = None
    longest: float = 0.0
    entry: str = ""  # in the ledger, where it was written down already: something of it had to be in place before
    met: bool = False  # the target has to have opened a connection into the fault, where the wire can see that
    least: float = HOLD
    idle: bool = False  # it strikes while nobody asks the target for anything; traffic begins when it is in force


def under_fault(rig: Rig, recording: Recording, plan: Plan) -> History:
    """Traffic, fault, proof, heal, recovery, and the writes looked up again."""
    return under_traffic(rig, recording, lambda: window(rig, recording, plan), begin=not plan.idle)


def under_traffic(rig: Rig, recording: Recording, strike: Callable[[], None], *, begin: bool = True) -> History:
    """Traffic, whatever `strike` breaks and heals, recovery, and the writes looked up again.

    With `begin` false the traffic is for `strike` to begin.
    """
    driver = rig.driver
    if begin:
        driver.begin_clients(rig.live)
    try:
        time.sleep(BEFORE)
        driver.witness([one for one in driver.recorder.since(recording.started) if one.kind is Kind.WRITE and one.ok])
        strike()
        healed = recording.windows[-1].healed
        await_recovery(rig, healed)
    finally:
        driver.end_clients()
    return looked_up(rig, recording, healed)


def looked_up(rig: Rig, recording: Recording, healed: float) -> History:
    """The history, once the traffic has ended: whether the target has, and what became of its writes where it serves again."""
    note_exit(rig, recording)
    if not recording.exited and serving(rig, healed):
        look_up_writes(rig, recording.started)
    return recording.history()


UNCONFIRMED = Effect(took=False, seen="never confirmed")


@dataclass(slots=True)
class Seen:
    """What shows that a fault is in force; filled in while it is."""

    effect: Effect = UNCONFIRMED


@contextlib.contextmanager
def broken(rig: Rig, recording: Recording, fault: Healed, *, entry: str = "", scope: str = "") -> Iterator[Seen]:
    """Within, `fault` may be in force, by the ledger too; at the end it is healed, whatever happened, and its window recorded.

    One that could not be healed is recorded as such, and raised.
    """
    entry = entry or rig.ledger.begin(fault)
    injected, seen, cleanup = now(), Seen(), "not healed"
    try:
        with rig.watched():
            yield seen
    finally:
        try:
            fault.heal()
            cleanup = "clean"
            rig.ledger.healed(entry)
        except CleanupFailed as error:
            rig.ledger.failed(entry, error.what)
            raise
        finally:
            healed = now()
            recording.windows.append(
                Window(fault=fault.id, scope=scope, injected=injected, healed=healed, effect=seen.effect, cleanup=cleanup)
            )
            rig.broken.append((injected, healed))


def window(rig: Rig, recording: Recording, plan: Plan) -> None:
    """Inject, confirm, hold, heal."""
    fault = plan.fault
    with broken(rig, recording, fault, entry=plan.entry, scope=recording.case.scope) as seen:
        injected = now()
        fault.inject()
        if plan.idle:
            rig.driver.begin_clients(rig.live)
        seen.effect = fault.confirm()
        _hold(rig, injected, plan)


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
        held = now() - injected
        if rig.target.exited() or held >= longest + rig.driver.stalls.between(injected, now()):
            return True
        return held >= plan.least and (plan.enough or answered)()

    wait_for(over, 2 * longest)


def await_recovery(rig: Rig, healed: float) -> None:
    """Watch until success holds (a few in a row of each kind, for `TAIL` seconds) or the time for it has passed."""
    limit = rig.config.target.database.recovery + 1.5

    def holds() -> bool:
        rig.check_parts()
        return bool(rig.target.exited()) or serving(rig, healed)

    wait_for(holds, limit + rig.driver.stalls.between(healed, now()))


def serving(rig: Rig, healed: float) -> bool:
    """Whether success holds since then: the last few of each kind, for `TAIL` seconds."""
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


def note_exit(rig: Rig, recording: Recording) -> None:
    """A target that ended by itself during a fault is a finding; one that somebody killed is an environment error."""
    rig.check_parts()
    recording.exited = rig.target.exited()
    rig.exit_told = bool(recording.exited)


def look_up_writes(rig: Rig, since: float, *, retried: int = RETRIED) -> None:
    """Read back every acknowledged or unknown write; unknown ones with an idempotency key are sent again first, as a client would.

    At most so many are `retried`.
    """
    driver = rig.driver
    sent = [one for one in driver.recorder.since(since) if one.kind is Kind.WRITE]
    unknown = [one for one in sent if not one.ok and not 400 <= (one.status or 0) < 500]
    by_key = {sample.key: sample for sample in driver.samples[Kind.WRITE]}
    for one in unknown[:retried]:
        sample = by_key[one.sample]
        if getattr(sample.request, "idempotency_header", None):
            driver.once(sample, unique=one.unique)
    driver.read_back(list({one.unique: one for one in sent}.values()))
