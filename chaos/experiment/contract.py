"""The candidate beside the baseline, on one database: both are asked the same, and what they answer is kept as shapes.

Asked are the reads, writes, read-backs and invalid requests of chaos.toml, a route that nobody has, and what the description says can
be read without a parameter; each several times, in turns (A-B-B-A), so that what changes meanwhile changes for both. Where a
difference shows, twice as often. The descriptions of both are compared by oasdiff. Without a candidate the target is held against what
was recorded of it ([target] contract).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.checks.errors import CANDIDATE
from chaos.checks.shapes import compare
from chaos.config import Request, candidate_of
from chaos.environments.local import oasdiff
from chaos.errors import ConfigError, EvidenceUnwritable, TargetFailed
from chaos.experiment import description as describing
from chaos.experiment.answers import shape
from chaos.experiment.asking import Asked, ask
from chaos.experiment.claims import Claims
from chaos.experiment.differ import difference
from chaos.experiment.recorded import Recorded
from chaos.model import Kind
from chaos.traffic.requests import Sample, Session, prepare, read_back_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from chaos.cases import Case
    from chaos.config import Target
    from chaos.experiment.core import Recording
    from chaos.model import History, Operation
    from chaos.rig import Rig
    from chaos.targets import CommandTarget
    from chaos.traffic.openapi import Description

ROUNDS = 6  # answers of each release to each request; twice as many where they differ
DESCRIBED = 40  # requests that only the description tells of
LEAVES = re.compile(r"log-?out|sign-?out|log-?off|shutdown|restart|stream|events|subscribe|watch|export|download", re.IGNORECASE)
UNKNOWN = "/chaos-gate-unknown-path"


@dataclass(slots=True)
class Release:
    """One side: its session, its description (or what is wrong with it), and all that it answered, by request."""

    session: Session
    target: Target
    client: str = ""
    description: Description | None = None
    wrong: str = ""
    answers: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))
    checked: int = 0

    def recorded(self) -> Recorded:
        """What is known of it so far."""
        shapes = {}
        for key, answers in self.answers.items():
            half = len(answers) // 2
            shapes[key] = {"all": shape(answers), "first": shape(answers[:half]), "second": shape(answers[half:])}
        return Recorded(shapes=shapes, description=self.description, wrong=self.wrong, claims=self._claims())

    def _claims(self) -> dict[str, str]:
        """Where its answers contradict its description -> an example."""
        found: dict[str, str] = {}
        if self.description is not None:
            claims = Claims(self.description)
            for one in (each for answers in self.answers.values() for each in answers if each.lasting):
                path = one.operation.path if "://" in one.operation.path else one.path
                found |= claims.contradicted(one.operation.method, path, int(one.operation.status or 0), one.media, one.value)
            self.checked = claims.checked
        return found


def contract(rig: Rig, case: Case, recording: Recording) -> History:
    """Facts: 'shapes', 'document' and 'claims', as JSON (chaos.checks.contract). Files of them are kept in the evidence as well."""
    del case
    here = Release(rig.driver.session, rig.config.target)
    if rig.config.target.candidate is None:
        return _by_record(rig, recording, here)
    if not rig.ours:
        recording.facts["absent"] = "needs another instance of the target, and it runs elsewhere ([target] url)"
        return recording.history()
    made = rig.candidate()
    try:
        there = started(rig, made)
        _describe(rig, here, there)
        _compare(rig, recording, here.recorded, there, (here, there))
    except TargetFailed as error:
        return _not_there(recording, error)
    finally:
        made.stop()
    _keep(rig, here.recorded(), "baseline")
    return recording.history()


def _by_record(rig: Rig, recording: Recording, here: Release) -> History:
    """Without a candidate, the target itself beside what was recorded of it before; recorded now where nothing was."""
    place = rig.config.target.contract
    assert place is not None  # the case does not apply without either
    _describe(rig, here)
    if place.exists():
        before = Recorded.read(place)
        _compare(rig, recording, lambda: before, here, (here,))
    else:
        recording.extra = tuple(_rounds(rig, (here,), _samples(rig, here.description), ROUNDS))
        here.recorded().write(place)
        recording.facts["absent"] = f"nothing to compare with yet: the contract was recorded in {place.name}"
    return recording.history()


def started(rig: Rig, made: CommandTarget) -> Release:
    """The candidate, ready, with what its own log-in returned."""
    target = candidate_of(rig.config.target)
    made.start()
    made.wait_ready(target.startup_timeout)
    session = Session(target, made.base_url, dict(made.values))
    rig.driver.call(prepare(session, target.prepare, deadline=rig.driver.deadline))
    return Release(session, target, CANDIDATE)


def _describe(rig: Rig, *releases: Release) -> None:
    for release in releases:
        try:
            release.description = describing.load(rig.driver, release.target, release.session)
        except ConfigError as error:
            release.wrong = f"{error.where}: {error.what}" if error.where else error.what


def _not_there(recording: Recording, error: TargetFailed) -> History:
    """A candidate that does not come up, or does not answer what `prepare` sends, keeps no contract."""
    good = {"200": {"count": 1, "media": [], "headers": [], "seen": [], "schema": None}}
    both = {"baseline": good, "first": good, "second": good, "candidate": {}}
    recording.facts["shapes"] = json.dumps({f"start ({error.what})": both})
    return recording.history()


def _compare(rig: Rig, recording: Recording, before: Callable[[], Recorded], after: Release, asked: tuple[Release, ...]) -> None:
    """Ask `asked` everything, and what shows a difference as often again; then both sides as facts."""
    samples = {_key(one): one for one in _samples(rig, asked[0].description)}
    operations = [*_rounds(rig, asked, samples.values(), ROUNDS)]
    differing = [samples[key] for key, one in sides(before(), after.recorded()).items() if _differs(one)]
    operations += _rounds(rig, asked, differing, ROUNDS)
    recording.extra = tuple(operations)
    old, new = before(), after.recorded()
    recording.facts["shapes"] = json.dumps(sides(old, new))
    recording.facts |= _described(rig, old, new, sum(one.checked for one in asked))
    _keep(rig, new, "candidate")


def sides(before: Recorded, after: Recorded) -> dict[str, Any]:  # JSON, as chaos.checks.contract has it
    """Requests that only one of the two was asked are left out: chaos.toml was another one when that was recorded."""
    return {
        key: {
            "baseline": one["all"],
            "first": one["first"],
            "second": one["second"],
            "candidate": after.shapes[key]["all"],
        }
        for key, one in before.shapes.items()
        if key in after.shapes
    }


def _differs(both: dict[str, Any]) -> bool:
    return bool(both["baseline"]) and any(one.breaking for one in compare(both["baseline"], both["candidate"]))


def ask_all(rig: Rig, release: Release, rounds: int) -> tuple[Operation, ...]:
    """Every request of chaos.toml to one release, so often; its answers are kept in it, what was sent is returned."""
    return tuple(_rounds(rig, (release,), _samples(rig, None), rounds))


# -- asking ------------------------------------------------------------------------------------------------------------------------


def _samples(rig: Rig, description: Description | None) -> list[Sample]:
    """What is asked. Each key stands for one request in the findings."""
    given = [one for kind in (Kind.READ, Kind.WRITE, Kind.INVALID) for one in rig.driver.samples[kind]]
    backs = [read_back_sample(one.request, one.key) for one in given if one.kind is Kind.WRITE]  # type: ignore[arg-type]
    unknown = Sample(kind=Kind.INVALID, key="unknown path", request=Request(method="GET", path=UNKNOWN, expect="4xx"))
    known = {one.request.path.partition("?")[0] for one in given if one.request.method == "GET"}
    named = rig.config.target.openapi
    known |= {named.path} if named and named.path else set()
    more = [path for path in _readable(description) if path not in known][:DESCRIBED] if description else []
    listed = [Sample(kind=Kind.READ, key="described", request=Request(method="GET", path=path, expect="2xx")) for path in more]
    return [*given, *(one for one in backs if one is not None), unknown, *listed]


def _readable(description: Description) -> Iterator[str]:
    """Paths whose GET needs nothing and ends: no variable, no required parameter, nothing that logs out or goes on for ever."""
    for one in description.operations():
        required = any(each.get("required") for each in one.parameters)
        if one.method == "GET" and "{" not in one.path and not required and not LEAVES.search(one.path):
            yield description.base() + one.path


def _key(sample: Sample) -> str:
    return f"{sample.request.method} {sample.request.path} ({sample.key})"


def _rounds(rig: Rig, releases: tuple[Release, ...], samples: Iterable[Sample], rounds: int) -> Iterator[Operation]:
    """Every request to both, in turns; what was sent is yielded, for the checks that look at every answer."""
    chosen = list(samples)
    for turn in range(rounds):
        for sample in chosen:
            for release in releases[::-1] if turn % 2 else releases:
                if given_up(release.answers[_key(sample)]):
                    continue
                asked = ask(rig.driver, release.session, sample, client=release.client)
                release.answers[_key(sample)].append(asked)
                yield asked.operation


def given_up(answers: list[Asked]) -> bool:
    """A request that twice got no answer gets none: each further one would cost its whole deadline."""
    return len(answers) >= 2 and all(one.operation.status is None for one in answers[-2:])


# -- what is kept ------------------------------------------------------------------------------------------------------------------


def _described(rig: Rig, before: Recorded, after: Recorded, checked: int) -> dict[str, str]:
    """The facts about the descriptions; none where neither side has one."""
    if not any(one.description or one.wrong for one in (before, after)):
        return {}
    told: dict[str, Any] = {}
    if before.description is None:
        told["broken"] = before.wrong or "there was none"
    elif after.description is None:
        told["lost"] = after.wrong or "there is none"
    else:
        told = difference(before.description, after.description, room=rig.run_dir / rig.worker, tool=oasdiff.ensure)
    facts = {"document": json.dumps(told)}
    if before.description is not None and after.description is not None:
        claims = {"checked": checked, "baseline": dict(before.claims), "candidate": dict(after.claims)}
        facts["claims"] = json.dumps(claims)
    return facts


def _keep(rig: Rig, recorded: Recorded, name: str) -> None:
    """The contract of one side, beside the store, for people and for other tools."""
    if rig.evidence is not None:
        with suppress(OSError, EvidenceUnwritable):  # the facts have what the findings are made of
            (rig.evidence / "contract").mkdir(exist_ok=True)
            recorded.write(rig.evidence / "contract" / f"{name}.json")
