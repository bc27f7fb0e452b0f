"""How a client knocks while its database is out of reach: capped, exponential, jittered - or not (res.backoff).

Seen from the wire, where source ports change with every attempt and several chains of retries may run at once. What is judged is
therefore what no number of well-behaved chains can look like, each a rule below:

- **fixed**: one chain whose pauses are all the same. An exponential one grows from its first pause on, a jittered one differs.
- **unabated**: many attempts a second, and as many at the end as at the beginning. Waits that grow make attempts rarer, however
  many chains there are.
- **storm**: a request that makes four attempts or more within milliseconds, each time.
- **fixed within a request**: the same pause at every retry of every request.
- **multiplied**: eight attempts and more for each request: a loop of retries around another.
- **insisting**: four attempts and more for each request, after an error that no retry mends (28P01, 3D000: `final`).

The first two look at stretches in which nobody asks the target for anything: what is attempted then is its own doing. A target that
connects only when it is asked is asked all the time for a while. One attempt a request is no retry (amplification 1.0) and cannot
multiply an outage; with fewer, something holds attempts back, and its pauses are judged by the same rules. A rule counts only when
every repetition of the outage shows it, so that no draw of a jittered client is held against it (tests/unit/test_backoff.py, by
simulation).
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from chaos.model import Connection, Finding, History, Kind, Operation, Outcome, Rung, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.checks.limits import Limits

ALIKE = 1.25  # largest to smallest pause of a fixed interval; full jitter, +-20 % jitter and factor 1.3 all lie beyond it
CHAIN = 5  # pauses that a chain must have shown
EDGE = 2.0  # s at the beginning and at the end of a stretch that are compared; whole seconds, for that is what loops sleep
CROWD = 8  # attempts in the first EDGE seconds from which on a rate can be compared
UNABATED = 0.75  # of the attempts at first, in the end: a busy machine takes some of a hot loop's
STORM, AT_ONCE = 4, 0.02  # attempts of one request, s between them
MULTIPLIED = 8  # attempts of one request, however far apart: no single loop of retries makes so many within a request's time
INSISTS = 4  # attempts of one request after an error that no retry mends; two are a second address, or a dead connection replaced
MOST = 0.8  # of the requests: the machine may have torn one apart
IN_REQUESTS = 8  # pauses within requests before they are compared
NOISE = 0.1  # s: a shorter pause is the machine's as much as the client's
HELD_BACK = 0.5  # attempts a request, at the most, where something holds them back
ASKED_EVERY = 0.1  # s: an attempt that waits for the next request comes up to so much later than it could
EXPECTED = (
    "retries of the database connection are exponential, capped and jittered (res.backoff; AWS Architecture Blog, 'Exponential Backoff "
    "And Jitter'), or there are none"
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """The attempts from `start` to `end` (s); `late` is by how much (s) an attempt can come after it was due."""

    start: float
    end: float
    attempts: tuple[Connection, ...]
    late: float = 0.0

    def ends(self) -> tuple[int, int]:
        """Attempts in its first and in its last EDGE seconds."""
        first = sum(one.opened < self.start + EDGE for one in self.attempts)
        last = sum(one.opened >= self.end - EDGE for one in self.attempts)
        return first, last


def tried(connections: Sequence[Connection], start: float, end: float) -> tuple[Connection, ...]:
    """Attempts to connect that began then. The plaintext one that follows a failed handshake is the same attempt (`prefer`)."""
    return tuple(
        one
        for one in sorted(connections, key=lambda one: one.opened)
        if start <= one.opened < end and not one.cancel and not one.plaintext and one.reached >= Rung.SSL_REQUEST
    )


def pauses(attempts: Sequence[Connection]) -> list[float]:
    """From one attempt's end to the next one's beginning (s); [] when they overlap, for then there are several chains."""
    found = [later.opened - (one.closed or one.opened) for one, later in itertools.pairwise(attempts)]
    return found if all(pause >= 0 for pause in found) else []


def fixed(stretch: Stretch) -> str:
    """Why the pauses are those of a fixed interval; '' when they are not."""
    found = pauses(stretch.attempts)
    if len(found) < CHAIN:
        return ""
    if len(found) > CHAIN:
        found.remove(max(found))  # the machine may have been busy once
    if min(found) < NOISE + stretch.late or max(found) - stretch.late > ALIKE * min(found):
        return ""
    return f"{len(found)} pauses in a row of {min(found):.2f} to {max(found):.2f} s: neither growing nor jittered"


def unabated(stretch: Stretch) -> str:
    """Why the attempts did not become rarer; '' when they did, or were few."""
    first, last = stretch.ends()
    apart = stretch.end - stretch.start - EDGE
    if apart < EDGE or first < CROWD or last < UNABATED * first:
        return ""
    return f"{first / EDGE:.0f} attempts a second at first, {last / EDGE:.0f} a second {apart:.0f} s later: no backoff"


def within_requests(asked: Sequence[tuple[Operation, tuple[Connection, ...]]]) -> str:
    """Why the retries inside requests are a storm, or fixed; '' when they are neither."""
    if len(asked) < 2:
        return ""
    every = [pauses(attempts) for _, attempts in asked]
    storms = [found for found in every if len(found) >= STORM - 1 and statistics.median(found) < AT_ONCE]
    if len(storms) >= MOST * len(asked):
        fewest = min(len(found) for found in storms) + 1
        return f"{fewest} attempts or more for each of {len(storms)} of {len(asked)} requests, with no pause between them"
    counts = [len(found) + 1 for found in every if found]  # attempts at once are several chains': no loop within a request
    if sum(count >= MULTIPLIED for count in counts) >= MOST * len(asked):
        return f"{statistics.median(counts):.0f} attempts for each of {len(asked)} requests: retries within retries"
    told = [found for found in every if len(found) >= 2]
    flat = [pause for found in told for pause in found]
    if len(told) < len(asked) or len(flat) < IN_REQUESTS or min(flat) < AT_ONCE or max(flat) > ALIKE * min(flat):
        return ""
    span = f"{min(flat):.2f} to {max(flat):.2f} s"
    return f"{len(flat)} retries within {len(told)} requests, all after {span}: neither growing nor jittered"


def held_back(asked: Sequence[tuple[Operation, tuple[Connection, ...]]]) -> tuple[Stretch, ...]:
    """The stretch of steady asking as one in which something holds attempts back; () where every request makes its own."""
    attempts = [one for _, these in asked for one in these]
    if not attempts or len(attempts) > HELD_BACK * len(asked):
        return ()
    return (Stretch(attempts[0].opened, asked[-1][0].finished, tuple(attempts), late=ASKED_EVERY),)


def check(history: History, limits: Limits) -> Finding:
    """The finding for res.backoff of an outage in which the target was left alone, then asked a few things."""
    del limits
    episodes = [_episode(history, window) for window in history.windows]
    attempts = sum(len(tried(history.connections, window.injected, window.healed)) for window in history.windows)
    problems = [one.problem for one in episodes]
    if history.exited:
        outcome, detail = Outcome.FAIL, f"the target ended ({history.exited}) while its database could not be verified"
    elif not attempts:
        outcome, detail = Outcome.INCONCLUSIVE, "the target never tried to connect while its database was out of reach"
    elif problems and all(problems):
        outcome, detail = Outcome.FAIL, f"in {len(episodes)} of {len(episodes)} outages: {problems[-1]}"
    else:
        outcome, detail = Outcome.PASS, episodes[-1].seen
    return Finding(
        check=history.experiment,
        gate="res.backoff",
        outcome=outcome,
        detail=f"{detail}; {attempts} attempts in {len(episodes)} outage{'s' * (len(episodes) > 1)}",
        n=1,
        bad=int(outcome is Outcome.FAIL),
        expected=EXPECTED,
        examples=(episodes[-1].timeline,) if outcome is Outcome.FAIL and episodes else tuple(history.logs[-3:]),
    )


@dataclass(frozen=True, slots=True)
class Episode:
    """What one outage showed: the broken rule or '', a sentence for people, and when it knocked."""

    problem: str
    seen: str
    timeline: str


def suspicious(history: History) -> bool:
    """Whether the last outage broke a rule, so that another one has to tell whether it was chance."""
    return bool(history.windows) and bool(_episode(history, history.windows[-1]).problem)


def _episode(history: History, window: Window) -> Episode:
    spans = [span for span in _spans(history.facts.get("silences", "")) if window.injected <= span[0] < window.healed]
    silences = [Stretch(start, end, tried(history.connections, start, end)) for start, end in spans]
    asked = _asked(history, window)
    own = silences[-1].attempts if silences else ()
    stretches = [*silences, *(held_back(asked) if not own else ())]
    problem = next(filter(None, (rule(one) for one in stretches for rule in (fixed, unabated))), "")
    if not problem and not own:  # with a chain of its own running, an attempt cannot be put down to a request
        problem = within_requests(asked)
    every = tried(history.connections, window.injected, window.healed)
    steps = ", ".join(f"+{one.opened - window.injected:.2f}" for one in every[:24])
    more = f" and {len(every) - 24} more" if len(every) > 24 else ""
    return Episode(problem, _seen(silences, asked), f"attempts at {steps} s{more}")


def _asked(history: History, window: Window) -> list[tuple[Operation, tuple[Connection, ...]]]:
    """The requests within the window, each with the attempts that were made while it was under way."""
    return [
        (one, tried(history.connections, one.started, one.finished))
        for one in sorted(history.operations, key=lambda one: one.started)
        if one.kind is Kind.READ and window.injected <= one.started and one.finished <= window.healed
    ]


def _seen(silences: Sequence[Stretch], asked: Sequence[tuple[Operation, tuple[Connection, ...]]]) -> str:
    chain = max(silences, key=lambda one: len(one.attempts), default=None)
    if chain is not None and len(chain.attempts) >= 2:
        found = pauses(chain.attempts)
        first, last = chain.ends()
        shape = (
            f"pauses from {min(found):.2f} to {max(found):.2f} s, median {statistics.median(found):.2f} s"
            if found
            else "several chains at once"
        )
        ends = f"{first} attempts in the first {EDGE:.0f} s, {last} in the last of {chain.end - chain.start:.0f} s"
        return f"tries by itself: {ends}; {shape}"
    if asked:
        each = sum(len(attempts) for _, attempts in asked) / len(asked)
        return f"does not try by itself; {each:.1f} attempts for each of {len(asked)} requests"
    return "did not try by itself"


def _spans(text: str) -> list[tuple[float, float]]:
    """'1.0-2.0 3.0-4.0' as pairs."""
    return [(float(start), float(end)) for start, _, end in (part.partition("-") for part in text.split())]


FINAL = (
    "an error that no retry mends (PostgreSQL, appendix A: 28P01, 3D000) is not insisted on within a request, and a chain of attempts "
    "backs off from it as from any other; the process goes on"
)


def final(history: History, limits: Limits) -> Finding:
    """The finding for res.backoff of an outage in which PostgreSQL refuses every connection for good."""
    base = Finding(check=history.experiment, gate=history.facts["gate"], outcome=Outcome.PASS, detail="", expected=FINAL, n=1)
    if history.exited:
        return _reported(replace(base, detail=f"the target ended ({history.exited})"), limits)
    episodes = [_episode(history, window) for window in history.windows]
    asked = [_asked(history, window) for window in history.windows]
    quiet = all(not tried(history.connections, start, end) for start, end in _spans(history.facts.get("silences", "")))
    counts = [len(found) + 1 if (found := pauses(attempts)) else min(1, len(attempts)) for one in asked for _, attempts in one]
    each = statistics.median(counts) if counts else 0.0
    seen = f"{episodes[-1].seen}; serving again: {history.facts.get('again', 'not looked for')}" if episodes else "nothing"
    broken = [one.problem for one in episodes]
    if broken and all(broken):
        return replace(base, outcome=Outcome.FAIL, bad=1, detail=f"{broken[-1]}; {seen}", examples=(episodes[-1].timeline,))
    if quiet and counts and sum(count >= INSISTS for count in counts) >= MOST * len(counts):
        detail = f"{each:.0f} attempts for each of {len(counts)} requests, after an error that no retry mends; {seen}"
        return replace(base, outcome=Outcome.FAIL, bad=1, detail=detail, examples=(episodes[-1].timeline,))
    if quiet and each >= 2:
        return _reported(replace(base, detail=f"{each:.0f} attempts for each of {len(counts)} requests; {seen}"), limits)
    if not any(tried(history.connections, one.injected, one.healed) for one in history.windows):
        return replace(base, outcome=Outcome.INCONCLUSIVE, detail="the target never tried to connect meanwhile")
    return replace(base, detail=seen)


def _reported(finding: Finding, limits: Limits) -> Finding:
    """Sound clients differ: [policy] decides."""
    if limits.policy.get("backoff.final") == "reject":
        return replace(finding, outcome=Outcome.FAIL, bad=1)
    detail = f'{finding.detail}. Reported (medium): [policy] "backoff.final" = "reject" makes it a failure'
    return replace(finding, outcome=Outcome.NOT_APPLICABLE, n=0, severity="medium", detail=detail)
