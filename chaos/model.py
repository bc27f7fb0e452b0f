"""What is known: frozen data that every layer shares. Nothing here does anything.

Times are seconds since the epoch as `now()` gives them: wall clock at import plus the monotonic clock since, so that within a
process they never jump. Durations are seconds. A `History` is what one experiment recorded; a `Finding` is what a check made of
it; a `GateResult` is what a gate made of its findings. Data flows in that order and never back.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_EPOCH = time.time() - time.monotonic()


def now() -> float:
    """Seconds since the epoch, monotonic within the process."""
    return _EPOCH + time.monotonic()


class Outcome(StrEnum):
    """Of a check, or of a gate (a gate can also be waived). Merged worst first: see `worst`."""

    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    PASS = "pass"  # noqa: S105  (an outcome, not a password)
    WAIVED = "waived"
    NOT_APPLICABLE = "not_applicable"


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """FAIL over INCONCLUSIVE over PASS over WAIVED over NOT_APPLICABLE; nothing at all is INCONCLUSIVE."""
    order = list(Outcome)
    return min(outcomes, key=order.index, default=Outcome.INCONCLUSIVE)


class Kind(StrEnum):
    """What a request is for, which decides what a healthy answer to it is."""

    READ = "read"
    WRITE = "write"
    INVALID = "invalid"
    LIVE = "live"
    READY = "ready"
    READ_BACK = "read_back"
    PREPARE = "prepare"
    HOST = "host"
    ATTACK = "attack"


class Layer(StrEnum):
    """Who gave an answer."""

    APPLICATION = "application"
    SERVER = "server"
    EDGE = "edge"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request and what came of it.

    `planned` is when it was due, `started` when it was sent, `finished` when it was answered or given up. `status` is None when no
    whole answer came; `error` then says why ('timeout', 'refused', 'reset', 'closed', ...). `lag` is how long the sender's own
    clock was stalled meanwhile (a noisy machine), to be taken off before a deadline is held against the target. `body` and
    `media_type` are kept for error answers only (first 4 KiB, secrets redacted). `sample` is the request's key in chaos.toml,
    such as 'read[0]'; `row` the catalogue row, such as 'H07', for host requests.
    """

    kind: Kind
    method: str
    path: str
    sample: str
    started: float
    finished: float
    planned: float = 0.0
    status: int | None = None
    error: str = ""
    expected: str = "2xx"
    ok: bool = False
    unique: str = ""
    occurrences: int = -1
    retry_after: str = ""
    media_type: str = ""
    body: str = ""
    request_id: str = ""
    layer: Layer = Layer.APPLICATION
    lag: float = 0.0
    row: str = ""
    client: str = ""

    @property
    def seconds(self) -> float:
        """From sending to answer, the sender's own stall taken off."""
        return max(0.0, self.finished - self.started - self.lag)


class Rung(IntEnum):
    """The disclosure ladder: how far a database client went with whoever answered (catalogue-database-tls.md)."""

    NOTHING = 0
    SSL_REQUEST = 1
    CLIENT_HELLO = 2
    STARTUP = 3
    SCRAM_PROOF = 4
    PASSWORD = 5
    QUERY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection of the target to its database, as the wire saw it.

    `behaviour` names what the wire was doing when it was accepted ('relay', 'impostor:C1', ...). `reached` is the highest rung that
    was *observed*: inside a relayed TLS session nothing can be seen, so `relay` connections stop at CLIENT_HELLO and
    `established` says whether application data flowed both ways after the handshake. `client` names the instance, where each has a
    listener of its own ('replica 3'). `plaintext` is True when a StartupMessage (or
    more) came without TLS; `cancel` when it was a CancelRequest. `closed` is 0.0 while it is open; `ended_by` is 'client',
    'server', 'wire' or ''. `steps` are (time, what) pairs.
    """

    id: int
    opened: float
    behaviour: str
    closed: float = 0.0
    reached: Rung = Rung.NOTHING
    tls: bool = False
    established: bool = False
    plaintext: bool = False
    cancel: bool = False
    sni: str = ""
    alert: str = ""
    ended_by: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    steps: tuple[tuple[float, str], ...] = ()
    client: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Proof that a fault took effect (or did not): what a probe of our own saw on the same path, before and during it."""

    took: bool
    seen: str
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of time in which something was broken. `healed` is when the fault had gone (0.0: never)."""

    fault: str
    scope: str
    injected: float
    healed: float = 0.0
    effect: Effect = field(default_factory=lambda: Effect(took=False, seen="never confirmed"))
    cleanup: str = "clean"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What one route was asked in one stretch of time, as counts and histograms: a long run keeps these instead of each request.

    `sample` is the request's key in chaos.toml ('read[0]'), or what else was asked ('seo', 'unknown-host'); `stratum` is 'steady', or
    'fault' where something was broken on purpose; `release` is '' or which one answered ('baseline', 'candidate'); `machine` is who
    sent it. `planned` requests were due in it, `sent` were sent, `good` were answered as they should be, `dropped` were due and never
    sent: they count as bad. `statuses` maps a status, or why there was none ('timeout'), to how often. `over` maps a limit in
    seconds ('0.12') to how many answers took longer, exactly, where a histogram rounds. `latency` (from the planned time) and `lag`
    (planned to sent) are HDR histograms of microseconds, base64 of the compressed V2 form (chaos.histogram). `covered` is the
    share of `seconds` in which whoever sent was there to look.
    """

    started: float
    seconds: float
    sample: str
    kind: Kind
    stratum: str = "steady"
    release: str = ""
    machine: str = ""
    planned: int = 0
    sent: int = 0
    good: int = 0
    dropped: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)
    latency: str = ""
    lag: str = ""
    covered: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """One value at one moment of a long run: 'target.memory' (bytes), 'database.sessions', 'handshakes.failed', ..."""

    at: float
    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that one experiment recorded, and all that its checks may look at.

    `experiment` is its id ('network.blackhole.pooled', 'C1.reconnect', ...). `control` says what the steady state before the fault
    was ('' when healthy). `exited` is the target's exit status when it died by itself meanwhile. `facts` are further single values
    that a check needs (strings, as they go to the store).
    """

    experiment: str
    started: float
    finished: float = 0.0
    windows: tuple[Window, ...] = ()
    operations: tuple[Operation, ...] = ()
    connections: tuple[Connection, ...] = ()
    control: str = ""
    exited: str = ""
    logs: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    intervals: tuple[Interval, ...] = ()
    gauges: tuple[Gauge, ...] = ()


UNCOUNTED = ", not counted"  # how the text of a group ends that is only listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check made of one history.

    `bad` of `n` observations broke the rule; `deff` is by how much they hang together (chaos.statistics.design_effect).
    `expected` says what was expected and by which source; `detail` what was seen, in numbers; `measured` is a single quantity where
    the gate judges one (seconds for a roll-back); `examples` are the observations that broke the rule (a request, a log line).
    `check` is the id that `--only` takes. `severity` ('info' to 'high') is set for what is only reported: sound clients differ there,
    and it counts against a gate only where [policy] of chaos.toml says so. Of a pen-test, what is 'critical' fails. `groups` are
    (what, how often) pairs by which the gate sums up over the whole run (chaos.gates.grouped). `seconds` is for how long the `n` were
    observed (0.0: not known), so that a gate can say how much longer it takes.
    """

    check: str
    gate: str
    outcome: Outcome
    detail: str
    experiment: str = ""
    fault: str = ""
    took_effect: bool | None = None
    n: int = 0
    bad: int = 0
    measured: float | None = None
    deff: float = 1.0
    expected: str = ""
    examples: tuple[str, ...] = ()
    rerun: str = ""
    severity: str = ""
    groups: tuple[tuple[str, int], ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What a gate made of its findings; one row of evidence.json's `gates`."""

    id: str
    outcome: Outcome
    measured: float | None
    threshold: str
    n: int
    bound: tuple[float, float] | None
    confidence: float
    reason: str
    checks: tuple[str, ...] = ()


class Verdict(StrEnum):
    """The run's last word. The value is what evidence.json holds."""

    GO = "GO"
    CLEAR = "CLEAR"
    NO_GO = "NO-GO"
    INCONCLUSIVE = "INCONCLUSIVE"


EXIT_CODES = {Verdict.GO: 0, Verdict.CLEAR: 0, Verdict.NO_GO: 1, Verdict.INCONCLUSIVE: 3}
USAGE, ENVIRONMENT, INTERRUPTED = 2, 4, 130
