"""No 400 that turns into a 500: the corpus in the steady state, under a fault, and on the candidate beside the baseline.

In the steady state each request is asked twice, alone, while the wire counts what the database's connections move: one whose handling
moved nothing, both times, needs no database, and so has no reason to be answered otherwise when there is none. Those are asked under
every fault; the others (a 404 of an id, a 401 by a session) after them, a few at a time, for as long as there is time.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.config import candidate_of
from chaos.errors import ChaosError, TargetFailed
from chaos.experiment.core import Plan, note_exit, window
from chaos.experiment.faults import served
from chaos.faults.database import Locks, Restart, Slots, TlsOff
from chaos.faults.network import NETWORK, SLOW, NetworkInjector
from chaos.model import History, now
from chaos.paths import SharedPath
from chaos.traffic import access_log, openapi
from chaos.traffic.corpus import Ask, Corpus, build, curl, settled, thawed
from chaos.traffic.corpus.replay import Sender
from chaos.traffic.corpus.shrink import shrink, tamed
from chaos.traffic.requests import Session, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.faults import Fault
    from chaos.model import Operation
    from chaos.rig import Rig
    from chaos.targets import CommandTarget

WANTED = {False: 160, True: 2000}  # requests, by whether it is night
LEARNING = {False: 6.0, True: 120.0}  # s for each look at the steady state
REPLAYING = {False: 4.0, True: 45.0}  # s under one fault
AT_ONCE, FEW_AT_ONCE = 4, 2
NOTHING = "neither [[target.invalid]] nor [target.openapi] nor --shadow: nothing to ask"
SUSPECTS = 3  # of different routes; so many are made smaller
LOGGED = 0.1  # s after an answer in which its log line is written
LONGEST = 300.0  # s that a fault may last: its proof and the replay have bounds of their own
AGAIN = 12  # so many are asked once more, in another window of the same fault


@dataclass
class Learnt:
    """What the steady state says: `steady` status and `needs` ('none', 'some', 'unknown': of the database) by key."""

    corpus: Corpus
    operations: list[Operation] = field(default_factory=list)
    steady: dict[str, int] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    suspects: list[Ask] = field(default_factory=list)

    def row(self, ask: Ask) -> str:
        """'schema/none/422': why it deserves a 4xx, whether it needs the database, its steady status."""
        return f"{ask.why.partition(':')[0] or 'answer'}/{self.needs.get(ask.key, 'unknown')}/{self.steady.get(ask.key, 0)}"

    def refused(self) -> list[Ask]:
        """Those that are answered 4xx, both times."""
        return [ask for ask in self.corpus.asks if 400 <= self.steady.get(ask.key, 0) < 500]


# -- what is asked ---------------------------------------------------------------------------------------------------------------


def gather(rig: Rig, *, night: bool) -> tuple[Corpus, dict[str, str]]:
    """The corpus of this run, made by the first worker that needs it; and what is to be told of how that went."""
    place = rig.run_dir / f"corpus-{'night' if night else 'sample'}.json"
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.exists():
            value = json.loads(place.read_text(encoding="utf-8"))
            return thawed(value["corpus"], rig.driver.session), value["facts"]
        corpus, facts = _made(rig, night=night)
        place.write_text(json.dumps({"corpus": corpus.frozen(), "facts": facts}), encoding="utf-8")
        return corpus, facts


def _made(rig: Rig, *, night: bool) -> tuple[Corpus, dict[str, str]]:
    facts: dict[str, str] = {}
    description: openapi.Description | None = None
    recorded: tuple[access_log.Recorded, ...] = ()
    try:
        description = describe_target(rig)
    except ChaosError as error:
        facts["openapi"] = f"{error.where}: {error.what}; {error.remedy}"
    if shadow := os.environ.get(access_log.SHADOW):
        reading = access_log.read(Path(shadow), seed=rig.seed)
        recorded, facts["shadow"] = reading.requests, reading.told()
    corpus = build(
        rig.driver.session, description=description, recorded=recorded, wanted=WANTED[night], seed=rig.seed, thesis=night
    )
    facts["corpus"] = corpus.told()
    if corpus.notes:
        facts["notes"] = "; ".join(corpus.notes[:8])
    return corpus, facts


def describe_target(rig: Rig) -> openapi.Description | None:
    """The target's own description; None when it names none. ConfigError when that cannot be used."""
    named = rig.config.target.openapi
    if named is None:
        return None
    if named.file is not None:
        return openapi.read(named.file)
    assert named.path is not None
    return rig.driver.call(openapi.fetch(rig.driver.session, named.path, deadline=rig.driver.deadline))


# -- the steady state ------------------------------------------------------------------------------------------------------------


def learn(rig: Rig, *, night: bool) -> Learnt:
    """Each request twice, and once more those that got no 4xx and ought to. Done once a worker."""
    name = f"corpus.{night}"
    found = rig.shelf.get(name)
    if not isinstance(found, Learnt):
        corpus, facts = gather(rig, night=night)
        found = Learnt(corpus, facts=facts)
        _learn(rig, found, budget=LEARNING[night])
        rig.shelf[name] = found
    return found


def _learn(rig: Rig, learnt: Learnt, budget: float) -> None:
    seen: dict[str, list[tuple[Operation, bool]]] = defaultdict(list)
    watch = _bytes(rig)
    for phase, step in (("steady 1", 1), ("steady 2", -1)):
        asks = [ask for ask in learnt.corpus.asks[::step] if step == 1 or ask.key in seen]
        sender = sender_for(rig)
        for done, touched in rig.driver.call(sender.observed(asks, phase=phase, moved=watch or (lambda: 0), budget=budget)):
            seen[done.sample].append((done, touched))
        if sender.stopped:
            learnt.facts[f"stopped {phase}"] = sender.stopped
    by_key = {ask.key: ask for ask in learnt.corpus.asks}
    for key, looks in seen.items():
        statuses = {done.status for done, _ in looks}
        if len(looks) == 2 and len(statuses) == 1 and None not in statuses:
            learnt.steady[key] = looks[0][0].status or 0
        learnt.needs[key] = "unknown" if watch is None else "some" if any(touched for _, touched in looks) else "none"
        if all(wrong(done) for done, _ in looks) and len(looks) == 2:
            learnt.suspects.append(by_key[key])
    learnt.operations += [replace(done, row=learnt.row(by_key[done.sample])) for looks in seen.values() for done, _ in looks]
    learnt.facts["ghosts"] = _ghosts(learnt, by_key)
    learnt.operations += _once_more(rig, learnt)


def _once_more(rig: Rig, learnt: Learnt) -> list[Operation]:
    """The suspects of the steady state again, while reads and writes are well; beside what no database can hold, what every one can."""
    answering = {ask.route for ask in learnt.corpus.asks if ask.key in learnt.steady}  # what never answers may be meant to wait
    chosen = _different([ask for ask in learnt.suspects if ask.route in answering], AGAIN)
    learnt.facts["control"] = rig.steady() if chosen else ""
    done = []
    for ask in chosen:
        sender = sender_for(rig)
        done.append(rig.driver.call(sender.send(ask, phase="again", row=learnt.row(ask))))
        if ask.why.startswith("unstorable"):
            done.append(rig.driver.call(sender.send(tamed(settled(ask, rig.driver.session)), phase="twin", row=learnt.row(ask))))
    return done


def _ghosts(learnt: Learnt, by_key: dict[str, Ask]) -> str:
    """Routes of the description of which nothing was ever heard but that there is no such thing, a good request among it."""
    heard: dict[str, set[int]] = defaultdict(set)
    for key, status in learnt.steady.items():
        heard[by_key[key].route].add(status)
    asked = {by_key[key].route for key in learnt.steady if key.startswith("good ")}
    return ", ".join(sorted(route for route in asked if heard[route] <= {404, 405, 501}))


def wrong(done: Operation) -> bool:
    """Not the answer of a server that read the request and refused, or served, it."""
    return done.status is None or done.status >= 500


def _bytes(rig: Rig) -> Callable[[], int] | None:
    """What the wire has seen move so far; None where there is no wire of ours."""
    path = getattr(rig, "path", None)
    return None if path is None or isinstance(path, SharedPath) else path.wire.moved


def sender_for(rig: Rig) -> Sender:
    """To the target itself."""
    return Sender(rig.driver.session, rig.driver.deadline, rig.driver.stalls.between)


def _different(asks: Iterable[Ask], most: int, *, each: int = AGAIN) -> list[Ask]:
    """Some of each route in its turn, at most `each`, those first that certainly deserve a 4xx."""
    by_route: dict[str, list[Ask]] = defaultdict(list)
    for ask in sorted(asks, key=lambda one: not one.why):
        by_route[ask.route].append(ask)
    turns = min(each, max(map(len, by_route.values()), default=0))
    return [group[turn] for turn in range(turns) for group in by_route.values() if turn < len(group)][:most]


# -- runners ---------------------------------------------------------------------------------------------------------------------


def steady(rig: Rig, case: Case, recording: Recording) -> History:
    """Nothing broken: what the target makes of requests that its own description forbids."""
    learnt = learn(rig, night=case.nightly)
    _facts(recording, learnt)
    if not learnt.corpus.asks and "openapi" not in learnt.facts:
        recording.facts["absent"] = NOTHING
        return recording.history()
    return _history(recording, learnt.operations, _smallest(rig, learnt))


def _smallest(rig: Rig, learnt: Learnt) -> list[dict[str, str]]:
    """The suspects of the steady state, made smaller as long as they are answered with the same 5xx."""
    reduced = []
    certain = [ask for ask in learnt.suspects if ask.why and flip(_last(learnt, ask))]
    for ask in _different(certain, SUSPECTS, each=1):
        status = _last(learnt, ask).status

        def same(one: Ask, status: int | None = status) -> bool:
            return _asked(rig, one).status == status

        chain = shrink(settled(ask, rig.driver.session), same)
        reduced.append(_told(rig, ask, chain[-1], partial(_asked, rig), steps=len(chain) - 1))
    return reduced


def fault(rig: Rig, case: Case, recording: Recording) -> History:
    """The corpus under one fault; what flipped once more under the same fault, and made smaller."""
    learnt = learn(rig, night=case.nightly)
    _facts(recording, learnt)
    if case.family == "corpus-sample":
        recording.facts["steady too"] = "yes"
    refused = learnt.refused()
    if not learnt.corpus.asks and ("openapi" not in learnt.facts or case.family == "corpus-fault"):
        recording.facts["absent"] = NOTHING
        return recording.history()
    if not refused:
        if case.family == "corpus-fault":
            recording.facts["absent"] = "no request of the corpus is answered 4xx with nothing broken: see corpus.steady"
        return _history(recording, learnt.operations, [])
    under: list[Operation] = []
    _broken(rig, case, recording, lambda: under.extend(_replayed(rig, recording, learnt, refused, night=case.nightly)))
    operations = [*(learnt.operations if case.family == "corpus-sample" else ()), *under]
    by_key = {ask.key: ask for ask in refused}
    flipped = [by_key[one.sample] for one in under if flip(one) and counts(by_key[one.sample], learnt, one)]
    if recording.exited or not flipped or rig.steady():
        whole = case.family == "corpus-sample" and not recording.exited
        return _history(recording, operations, _smallest(rig, learnt) if whole else [])
    return _history(recording, operations, _again(rig, case, recording, learnt, flipped=flipped, operations=operations))


def candidate(rig: Rig, case: Case, recording: Recording) -> History:
    """Baseline and candidate side by side, on the same database."""
    if not rig.ours:
        recording.facts["absent"] = "needs another instance of the target, and it runs elsewhere ([target] url)"
        return recording.history()
    learnt = learn(rig, night=case.nightly)
    _facts(recording, learnt)
    release = candidate_of(rig.config.target)
    try:
        instance = rig.candidate()
        instance.start()
    except TargetFailed as error:
        return recording.history(control=f"the candidate did not start: {error.what}")
    try:
        instance.wait_ready(release.startup_timeout)
        session = Session(release, instance.base_url, dict(instance.values))
        rig.driver.call(prepare(session, release.prepare, deadline=rig.driver.deadline))
        there = Sender(session, rig.driver.deadline, rig.driver.stalls.between)
        return _beside(rig, recording, learnt, there, instance)
    except TargetFailed as error:
        return recording.history(control=f"the candidate is not ready: {error.what}")
    finally:
        instance.stop()


# -- under a fault ---------------------------------------------------------------------------------------------------------------


def fault_of(rig: Rig, case: Case) -> Fault:
    """The fault that a case names, ready to be injected."""
    rows = {row.id: row for row in (*NETWORK, SLOW)}
    if case.what in rows:
        return NetworkInjector(rows[case.what], case.scope, rig.control, rig.path.name, rig.prober, rig.path.sever)
    postgres = rig.environment.postgres
    if case.what == "tls-off":
        return TlsOff(postgres, rig.conninfo)
    if case.what == "slots":
        return Slots(postgres, rig.conninfo_at(postgres.port), rig.conninfo, time.sleep)
    if case.what == "locks":
        return Locks(postgres, _two_readers(rig), time.sleep)
    if case.what in {"fast", "immediate"}:
        return Restart(postgres, case.what, rig.conninfo)
    return served(rig, case.what, case.id, case.title)


def _two_readers(rig: Rig) -> Callable[[], None]:
    """Locks only bite who asks: two readers wait for them, and leave the target's other threads to the corpus."""
    left = [2]

    def step() -> None:
        if left[0]:
            left[0] -= 1
            rig.driver.add_reader()

    return step


def _broken(rig: Rig, case: Case, recording: Recording, work: Callable[[], None]) -> None:
    """Inject, prove it, do the work, heal."""
    began: list[float] = []

    def once() -> bool:
        if not began:
            began.append(now())
            work()
        return True

    readers = case.what == "locks"
    if readers:
        rig.driver.begin_clients(readers=1)
    try:
        window(rig, recording, Plan(fault_of(rig, case), enough=once, longest=LONGEST))
    finally:
        if readers:
            rig.driver.end_clients()
    note_exit(rig, recording)


def _replayed(rig: Rig, recording: Recording, learnt: Learnt, refused: list[Ask], *, night: bool) -> list[Operation]:
    """First what needs no database, then the rest: those that certainly deserve a 4xx before the others."""
    free = [(ask, learnt.row(ask)) for ask in refused if learnt.needs[ask.key] == "none"]
    bound = [(ask, learnt.row(ask)) for ask in sorted(refused, key=lambda one: not one.why) if learnt.needs[ask.key] != "none"]
    done: list[Operation] = []
    for name, asks, at_once in (("without the database", free, AT_ONCE), ("with the database", bound, FEW_AT_ONCE)):
        sender = sender_for(rig)
        done += rig.driver.call(sender.replay(asks, phase="fault", at_once=at_once, budget=REPLAYING[night]))
        if sender.stopped:
            recording.facts[f"stopped {name}"] = sender.stopped
    return done


def flip(done: Operation) -> bool:
    """A 5xx that says that the server failed; 501 and 505 say what it does not know (RFC 9110, 15.6)."""
    return done.status is not None and done.status >= 500 and done.status not in {501, 505}


def counts(ask: Ask, learnt: Learnt, done: Operation) -> bool:
    """Whether a flip is worth another window: an honest 503 of what needs the database is not (see `chaos.checks.corpus`)."""
    free = learnt.needs[ask.key] == "none"
    return free or ask.why == "listed" or (bool(ask.why) and done.status != 503)


def _again(
    rig: Rig, case: Case, recording: Recording, learnt: Learnt, *, flipped: list[Ask], operations: list[Operation]
) -> list[dict[str, str]]:
    """The same fault once more. Before it, each suspect is made smaller while it is refused as before, needing no more than before."""
    suspects, few = _different(flipped, AGAIN), _different(flipped, SUSPECTS, each=1)
    chains = {ask.key: shrink(settled(ask, rig.driver.session), _like(rig, learnt, ask)) for ask in few}
    reduced: list[dict[str, str]] = []

    def ask_again() -> None:
        sender = sender_for(rig)
        rows = [(ask, learnt.row(ask)) for ask in suspects]
        operations.extend(rig.driver.call(sender.replay(rows, phase="repeat", at_once=FEW_AT_ONCE, budget=20.0)))
        for ask in few:
            for one in reversed(chains[ask.key]):
                if flip(_asked(rig, one)):
                    steps = chains[ask.key].index(one)
                    reduced.append({**_told(rig, ask, one, partial(_asked, rig), steps=steps), "fault": recording.case.title})
                    break

    _broken(rig, case, recording, ask_again)
    return reduced


def _like(rig: Rig, learnt: Learnt, ask: Ask) -> Callable[[Ask], bool]:
    """Whether a smaller request is still refused with the same status, and still needs no database where the whole one does not."""
    status, needs, watch = learnt.steady[ask.key], learnt.needs[ask.key], _bytes(rig) or (lambda: 0)

    def holds(one: Ask) -> bool:
        before = watch()
        done = _asked(rig, one)
        touched = watch() != before
        return done.status == status and (needs != "none" or not touched)

    return holds


def _asked(rig: Rig, ask: Ask) -> Operation:
    return rig.driver.call(sender_for(rig).send(ask, phase="reduced"))


# -- the candidate ---------------------------------------------------------------------------------------------------------------


def _beside(rig: Rig, recording: Recording, learnt: Learnt, there: Sender, instance: CommandTarget) -> History:
    known = [ask for ask in learnt.corpus.asks if learnt.steady.get(ask.key, 500) < 500]
    rows = [(ask, learnt.row(ask)) for ask in known]
    operations = rig.driver.call(there.replay(rows, phase="candidate", at_once=AT_ONCE, budget=60.0))
    changed = {one.sample for one in operations if kind_of(one.status) != kind_of(learnt.steady[one.sample])}
    suspects = [(ask, row) for ask, row in rows if ask.key in changed][:200]
    there.stopped = ""
    operations += rig.driver.call(there.replay(suspects, phase="candidate again", at_once=1, budget=30.0))
    operations += rig.driver.call(sender_for(rig).replay(suspects, phase="baseline again", at_once=1, budget=30.0))
    reduced = []
    twice = {one.sample for one in operations if one.client == "candidate again" and flip(one)}

    def on_it(one: Ask) -> Operation:
        return rig.driver.call(there.send(one, phase="reduced"))

    for ask in _different([ask for ask, _ in suspects if ask.key in twice], SUSPECTS, each=1):
        status = learnt.steady[ask.key]

        def differs(one: Ask, status: int = status) -> bool:
            return flip(on_it(one)) and _asked(rig, one).status == status

        chain = shrink(settled(ask, rig.driver.session), differs)
        reduced.append(_told(rig, ask, chain[-1], on_it, steps=len(chain) - 1, of=instance))
    if there.stopped:
        recording.facts["stopped candidate"] = there.stopped
    return _history(recording, operations, reduced)


def kind_of(status: int | None) -> int:
    """2, 3, 4 or 5; 0 for no answer."""
    return (status or 0) // 100


# -- what is recorded ------------------------------------------------------------------------------------------------------------


def _last(learnt: Learnt, ask: Ask) -> Operation:
    return next(one for one in reversed(learnt.operations) if one.sample == ask.key and one.client != "twin")


def _told(
    rig: Rig, ask: Ask, small: Ask, send: Callable[[Ask], Operation], *, steps: int, of: CommandTarget | None = None
) -> dict[str, str]:
    """What people need to see it themselves: sent a last time, with what the target logs meanwhile."""
    instance = of or rig.target
    offset = instance.log_offset()
    done = send(small)
    time.sleep(LOGGED)
    lines = [one for one in instance.log_lines(offset) if one.strip()]
    path = small.target.partition("?")[0]
    named = [one for one in lines if done.request_id and done.request_id in one] or [one for one in lines if path in one]
    line = (named or lines or [""])[-1]
    return {
        "key": ask.key,
        "request": f"{small.method} {small.shown}",
        "status": str(done.status or done.error),
        "request_id": done.request_id,
        "log": line[:400],
        "curl": curl(small, rig.driver.session, instance.base_url),
        "smaller": f"{ask.size} -> {small.size} bytes in {steps} steps",
        "why": ask.why,
    }


def _facts(recording: Recording, learnt: Learnt) -> None:
    needs = list(learnt.needs.values())
    recording.facts |= learnt.facts
    recording.facts["distinct"] = str(len(learnt.refused()))
    recording.facts["needs"] = f"{needs.count('none')} of {len(needs)} moved no byte of the database's"


def _history(recording: Recording, operations: list[Operation], reduced: list[dict[str, str]]) -> History:
    recording.facts["reduced"] = json.dumps(reduced)
    made = recording.history()
    return replace(made, operations=tuple(sorted(operations, key=lambda one: one.finished)))
