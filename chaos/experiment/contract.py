"""The candidate beside the baseline, on one database: both are asked the same, and what they answer is kept as shapes.

Asked are the reads, writes, read-backs and invalid requests of chaos.toml, a route that nobody has, and what the description says can
be read without a parameter; each several times, in turns (A-B-B-A), so that what changes meanwhile changes for both. Where a
difference shows, twice as often. The descriptions of both are compared by oasdiff.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.checks.contract import check as judged
from chaos.checks.errors import CANDIDATE
from chaos.checks.limits import Limits
from chaos.checks.shapes import compare
from chaos.config import Request, candidate_of
from chaos.environments.local import oasdiff
from chaos.errors import ConfigError, TargetFailed
from chaos.experiment import description as describing
from chaos.experiment.asking import Asked, ask
from chaos.experiment.claims import NOTHING, Claims
from chaos.experiment.differ import difference
from chaos.model import History, Kind, Outcome
from chaos.traffic.requests import Sample, Session, prepare, read_back_sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.model import Operation
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

    name: str
    session: Session
    description: Description | None = None
    wrong: str = ""
    answers: dict[str, list[Asked]] = field(default_factory=lambda: defaultdict(list))


def contract(rig: Rig, case: Case, recording: Recording) -> History:
    """Facts: 'shapes', 'document' and 'claims', as JSON (chaos.checks.contract). The files are kept in the evidence as well."""
    del case
    if not rig.ours:
        recording.facts["absent"] = "needs another instance of the target, and it runs elsewhere ([target] url)"
        return recording.history()
    made = rig.candidate()
    try:
        made.start()
        try:
            releases = _releases(rig, made)
        except TargetFailed as error:
            return _not_there(recording, error)
        _compare(rig, recording, releases)
    finally:
        made.stop()
    return recording.history()


def _releases(rig: Rig, made: CommandTarget) -> tuple[Release, Release]:
    """Both releases ready, each with what its own log-in returned."""
    candidate = candidate_of(rig.config.target)
    made.wait_ready(candidate.startup_timeout)
    session = Session(candidate, made.base_url, dict(made.values))
    rig.driver.call(prepare(session, candidate.prepare, deadline=rig.driver.deadline))
    found = (Release("baseline", rig.driver.session), Release(CANDIDATE, session))
    for release, target in zip(found, (rig.config.target, candidate), strict=True):
        try:
            release.description = describing.load(rig.driver, target, release.session)
        except ConfigError as error:
            release.wrong = f"{error.where}: {error.what}" if error.where else error.what
    return found


def _not_there(recording: Recording, error: TargetFailed) -> History:
    """A candidate that does not come up, or does not answer what `prepare` sends, keeps no contract."""
    shape = {"200": {"count": 1, "media": [], "headers": [], "seen": [], "schema": None}}
    sides = {"baseline": shape, "first": shape, "second": shape, "candidate": {}}
    recording.facts["shapes"] = json.dumps({f"start ({error.what})": sides})
    return recording.history()


def _compare(rig: Rig, recording: Recording, releases: tuple[Release, Release]) -> None:
    baseline = releases[0]
    samples = {_key(one): one for one in _samples(rig, baseline.description)}
    operations = [*_rounds(rig, releases, samples.values(), ROUNDS)]
    recording.facts["shapes"] = json.dumps(_shapes(releases))
    if _broken(recording.facts):
        differing = [one for key, one in samples.items() if _differs(releases, key)]
        operations += _rounds(rig, releases, differing, ROUNDS)
        recording.facts["shapes"] = json.dumps(_shapes(releases))
    recording.extra = tuple(operations)
    recording.facts |= _described(rig, releases)
    _keep(rig, recording, releases)


def _broken(facts: dict[str, str]) -> bool:
    history = History(experiment="contract", started=0.0, facts=facts)
    return any(one.outcome is Outcome.FAIL for one in judged(history, Limits()))


def _differs(releases: tuple[Release, Release], key: str) -> bool:
    first, second = (_shape(one.answers[key]) for one in releases)
    return any(one.breaking for one in compare(first, second)) if first else False


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


def _rounds(rig: Rig, releases: tuple[Release, Release], samples: Iterable[Sample], rounds: int) -> Iterator[Operation]:
    """Every request to both, in turns; what was sent is yielded, for the checks that look at every answer."""
    chosen = list(samples)
    for turn in range(rounds):
        for sample in chosen:
            for release in releases if turn % 2 else releases[::-1]:
                if _given_up(release.answers[_key(sample)]):
                    continue
                asked = ask(rig.driver, release.session, sample, client=release.name)
                release.answers[_key(sample)].append(asked)
                yield asked.operation


def _given_up(answers: list[Asked]) -> bool:
    """A request that twice got no answer gets none: each further one would cost its whole deadline."""
    return len(answers) >= 2 and all(one.operation.status is None for one in answers[-2:])


# -- what is kept ------------------------------------------------------------------------------------------------------------------


def _shapes(releases: tuple[Release, Release]) -> dict[str, Any]:  # JSON
    baseline, candidate = releases
    found = {}
    for key, answers in baseline.answers.items():
        half = len(answers) // 2
        found[key] = {
            "baseline": _shape(answers),
            "first": _shape(answers[:half]),
            "second": _shape(answers[half:]),
            "candidate": _shape(candidate.answers[key]),
        }
    return found


def _shape(answers: list[Asked]) -> dict[str, Any]:
    """By status; an answer that says only that it cannot answer now says nothing of the contract, unless there is no other."""
    useful = [one for one in answers if one.lasting] or [one for one in answers if one.operation.status is not None]
    by_status: dict[str, list[Asked]] = defaultdict(list)
    for one in useful:
        by_status[str(one.operation.status)].append(one)
    return {status: _one_status(these) for status, these in by_status.items()}


def _one_status(answers: list[Asked]) -> dict[str, Any]:
    names = [set(one.headers) for one in answers]
    return {
        "count": len(answers),
        "media": sorted({one.media for one in answers}),
        "headers": sorted(set.intersection(*names)),
        "seen": sorted(set.union(*names)),
        "schema": _schema([one.value for one in answers if one.value is not NOTHING]),
    }


def _schema(values: list[Any]) -> dict[str, Any] | None:
    """What the values have in common, as a JSON Schema; None without any."""
    from genson import SchemaBuilder  # noqa: PLC0415  (only the contract needs it)

    if not values:
        return None
    builder = SchemaBuilder(schema_uri=None)
    try:
        for value in values:
            builder.add_object(value)
        made: dict[str, Any] = builder.to_schema()
    except RecursionError:  # nested a thousand levels deep
        return None
    return made


def _described(rig: Rig, releases: tuple[Release, Release]) -> dict[str, str]:
    """The facts about the descriptions; none where neither release has one."""
    before, after = releases
    if not any(one.description or one.wrong for one in releases):
        return {}
    told: dict[str, Any] = {}
    if before.wrong or before.description is None:
        told["broken"] = before.wrong or "the baseline has none"
    elif after.wrong or after.description is None:
        told["lost"] = after.wrong or "the candidate has none"
    else:
        told = difference(before.description, after.description, room=rig.run_dir / rig.worker, tool=oasdiff.ensure)
    return {"document": json.dumps(told), **_claims(releases)}


def _claims(releases: tuple[Release, Release]) -> dict[str, str]:
    if any(one.description is None for one in releases):
        return {}
    told: dict[str, Any] = {"checked": 0}
    for release in releases:
        assert release.description is not None
        claims = Claims(release.description)
        found: dict[str, str] = {}
        for one in (each for answers in release.answers.values() for each in answers if each.lasting):
            operation = one.operation
            path = operation.path if "://" in operation.path else one.path
            found |= claims.contradicted(operation.method, path, int(operation.status or 0), one.media, one.value)
        told[release.name] = found
        told["checked"] += claims.checked
    return {"claims": json.dumps(told)}


def _keep(rig: Rig, recording: Recording, releases: tuple[Release, Release]) -> None:
    """Descriptions and shapes as files beside the store: the contract, for people and for other tools."""
    if rig.evidence is None:
        return
    room = rig.evidence / "contract"
    with suppress(OSError):  # the facts have it all
        room.mkdir(exist_ok=True)
        (room / "shapes.json").write_text(json.dumps(json.loads(recording.facts["shapes"]), indent=1), encoding="utf-8")
        for one in releases:
            if one.description is not None:
                text = json.dumps(one.description.document, indent=1)
                (room / f"{one.name}.openapi.json").write_text(text, encoding="utf-8")
