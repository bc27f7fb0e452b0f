"""Recorded production reads, sent again at their own pace: to the baseline, and to the candidate beside it.

The log is handed over by `--shadow FILE` (chaos.traffic.shadow says what of it may be sent). Each request goes to both releases, one
after the other, in turns (A-B-B-A), on one database. Where their statuses differ both are asked again. Facts, as JSON:

    shadow    what came of the log, in words
    replayed  {'asked', 'as recorded', 'lag', 'faster'}: how many, of them answered in the recorded class, P99 of lag (s), pace
    shapes    as chaos.checks.contract has it, by route
    statuses  [request, recorded, [baseline, again], [candidate, again]] where they differ
    latency   {'baseline': blocks of seconds, 'candidate': the same}
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.checks.errors import CANDIDATE
from chaos.checks.routes import best
from chaos.config import Request
from chaos.errors import TargetFailed
from chaos.experiment import description
from chaos.experiment.asking import Asked, ask
from chaos.experiment.contract import Release, given_up, sides, started
from chaos.model import Kind, now
from chaos.traffic.access_log import SHADOW
from chaos.traffic.host_names import listed
from chaos.traffic.requests import Sample
from chaos.traffic.shadow import Drawn, Replayed, draw, pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.cases import Case
    from chaos.experiment.core import Recording
    from chaos.model import History
    from chaos.rig import Rig

MOST = 400  # requests, each to both releases
SECONDS = 45.0  # that a replay lasts at the most
BLOCKS = 25  # of latencies, each a stretch of time
AGAIN = 20  # requests whose statuses differ are asked once more, at the most
_NUMBER = re.compile(r"\d+|[0-9a-f]{8,}|[0-9a-f-]{36}|[1x]{4,}", re.IGNORECASE)


@dataclass(slots=True)
class Pair:
    """What both releases answered to one request, the first time and, where that differs, again."""

    replayed: Replayed
    sample: Sample
    answers: dict[str, list[Asked]] = field(default_factory=dict)
    lag: float = 0.0

    def ask(self, rig: Rig, release: Release) -> Asked:
        """The request, as the host that it was recorded with where that is one of the target's own."""
        return ask(rig.driver, release.session, self.sample, client=release.client, host=self.replayed.host)

    def statuses(self, client: str) -> list[int]:
        """0: no answer."""
        return [one.operation.status or 0 for one in self.answers.get(client, ())]

    @property
    def differs(self) -> bool:
        """Whether the two say different things, either of them lasting."""
        firsts = [these[0] for these in self.answers.values()]
        return len({one.operation.status for one in firsts}) > 1

    @property
    def flipped(self) -> bool:
        """Whether the baseline refuses it (4xx) where the candidate fails (5xx)."""
        return 400 <= self.statuses("")[0] < 500 <= self.statuses(CANDIDATE)[0]


def shadow(rig: Rig, case: Case, recording: Recording) -> History:
    """The replay; not applicable where no log was given, or nothing of it may be sent."""
    del case
    place = os.environ.get(SHADOW)
    if not place:
        recording.facts["absent"] = "no access log was given (--shadow FILE)"
        return recording.history()
    drawn = draw(Path(place), seed=rig.seed, most=MOST, serves=listed(rig.config.target.hosts))
    recording.facts["shadow"] = drawn.told()
    if not drawn.requests:
        recording.facts["absent"] = f"nothing of the log may be sent again: {drawn.told()}"
        return recording.history()
    here = Release(rig.driver.session, rig.config.target)
    if rig.config.target.candidate is None or not rig.ours:
        _replay(rig, recording, drawn, (here,))
        return recording.history()
    made = rig.candidate()
    try:
        _replay(rig, recording, drawn, (here, started(rig, made)))
    except TargetFailed as error:
        recording.facts["absent"] = f"the candidate did not come up ({error.what}): rel.api_contract says so"
    finally:
        made.stop()
    return recording.history()


def _replay(rig: Rig, recording: Recording, drawn: Drawn, releases: tuple[Release, ...]) -> None:
    planned = pace(drawn.requests, seconds=SECONDS)
    pairs = list(_asked(rig, planned, releases))
    for pair in [one for one in pairs if one.differs][:AGAIN]:
        for release in releases[::-1]:
            pair.answers[release.client].append(pair.ask(rig, release))
    recording.extra = tuple(one.operation for pair in pairs for these in pair.answers.values() for one in these)
    lags = sorted(pair.lag for pair in pairs)
    recording.facts["replayed"] = json.dumps(
        {
            "asked": len(pairs),
            "as recorded": sum(pair.statuses("")[0] // 100 == pair.replayed.status // 100 for pair in pairs),
            "lag": round(lags[int(0.99 * (len(lags) - 1))], 3) if lags else 0.0,
            "faster": round((drawn.requests[-1].at + 1.0) / (planned[-1][0] + 1.0), 2) if planned else 1.0,
        }
    )
    if len(releases) > 1:
        _compared(recording, pairs, releases)


def _asked(rig: Rig, planned: list[tuple[float, Replayed]], releases: tuple[Release, ...]) -> Iterator[Pair]:
    """Each request when it is due, or as soon as the one before has been answered: a small service is not to be flooded."""
    templates = description.templates(rig)
    begun = now()
    for turn, (due, replayed) in enumerate(planned):
        pair = _pair(replayed, templates)
        if pair is None or any(given_up(release.answers[pair.sample.key]) for release in releases):
            continue
        time.sleep(max(0.0, begun + due - now()))
        pair.lag = now() - begun - due
        for release in releases[::-1] if turn % 2 else releases:
            found = pair.ask(rig, release)
            release.answers[pair.sample.key].append(found)
            pair.answers[release.client] = [found]
        rig.check_parts()
        yield pair


def _pair(replayed: Replayed, templates: tuple[str, ...]) -> Pair | None:
    """None for a target that chaos.toml itself could not name."""
    path = replayed.target.replace("{", "%7B").replace("}", "%7D")  # what a placeholder would be taken for
    try:
        request = Request(method=replayed.method, path=path, expect="2xx")
    except ValueError:
        return None
    bare = path.partition("?")[0]
    route = best(list(templates), bare) or "/".join("{}" if _NUMBER.fullmatch(part) else part for part in bare.split("/"))
    return Pair(replayed, Sample(kind=Kind.READ, key=f"{replayed.method} {replayed.host}{route}", request=request))


def _compared(recording: Recording, pairs: list[Pair], releases: tuple[Release, ...]) -> None:
    here, there = releases
    for release in releases:  # what flipped to a 5xx is rel.no_400_to_500's alone: one defect, one gate
        release.answers.clear()
        for one in pairs:
            if not one.flipped:
                release.answers[one.sample.key] += one.answers[release.client][:1]
    recording.facts["shapes"] = json.dumps(sides(here.recorded(), there.recorded()))
    recording.facts["statuses"] = json.dumps(
        [
            [f"{one.sample.request.method} {one.sample.request.path}", one.replayed.status]
            + [one.statuses(release.client) for release in releases]
            for one in pairs
            if one.differs
        ]
    )
    timed = [one for one in pairs if not one.differs and all(these[0].lasting for these in one.answers.values())]
    size = max(1, len(timed) // BLOCKS)
    recording.facts["latency"] = json.dumps(
        {
            name: [
                [round(one.answers[release.client][0].operation.seconds, 6) for one in timed[start : start + size]]
                for start in range(0, len(timed), size)
            ]
            for name, release in (("baseline", here), ("candidate", there))
        }
    )
