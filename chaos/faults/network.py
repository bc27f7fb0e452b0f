"""Network faults between the target and its database, made by Toxiproxy.

Each is a row of `NETWORK`: the toxics, and what a probe must see on a new and on an established connection for the fault to count
as having taken effect. Traps of Toxiproxy 2.12 that shape the rows: removing `timeout` closes connections, so a black hole is
`bandwidth` at rate 0 in both directions, which leaves them open and goes on when it heals; an established connection gets an RST
only when a `reset_peer` toxic was there when it was opened (with toxicity 0, so that it does nothing until the proxy is disabled).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from chaos.faults.probe import PooledProbe, Rule, Seen, ask, connect
from chaos.faults.toxiproxy import ProxyControl, Toxic
from chaos.model import Effect

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.ledger import Restore

LATENCY, JITTER = 250, 100  # ms one way
RATE = 4  # KB/s: a TLS handshake of some 4 KB takes a second
CUT_AFTER = 1_500  # bytes: inside the server's handshake flight for a new connection, inside an answer for an established one


def _slow(floor: float) -> Rule:
    """At least so many seconds, or no answer in the probe's time.

    `floor` follows from the toxic (bytes over rate, slices times delay, latency less jitter) and is kept below what it does; that
    the toxic is there was read back when it was added. Comparing with a time before it would compare with the machine's mood.
    """
    return lambda _before, seen: seen.how == "silence" or seen.seconds >= floor


def _is(*words: str) -> Rule:
    return lambda _before, seen: seen.how in words


@dataclass(frozen=True, slots=True)
class NetworkFault:
    """A row: `toxics` while it lasts, `disable` the listener, `arm` what must be in place before the connections are opened."""

    id: str
    title: str
    new: Rule
    pooled: Rule
    toxics: tuple[Toxic, ...] = ()
    disable: bool = False
    arm: tuple[Toxic, ...] = ()
    degraded: bool = False


NETWORK = (
    NetworkFault("refused", "connections refused", _is("refused"), _is("closed", "reset"), disable=True),
    NetworkFault(
        "reset",
        "connections reset (RST)",
        _is("reset"),
        _is("closed", "reset"),
        toxics=(Toxic("reset_peer", attributes={"timeout": 0}),),
        arm=(Toxic("reset_peer", attributes={"timeout": 0}, toxicity=0.0),),
    ),
    NetworkFault(
        "blackhole",
        "black hole: open, and silent both ways",
        _is("silence"),
        _is("silence"),
        toxics=(Toxic("bandwidth", "upstream", {"rate": 0}), Toxic("bandwidth", "downstream", {"rate": 0})),
    ),
    NetworkFault(
        "latency",
        f"{LATENCY} ms +- {JITTER} ms more each way back",
        _slow(0.12),
        _slow(0.12),
        toxics=(Toxic("latency", attributes={"latency": LATENCY, "jitter": JITTER}),),
        degraded=True,
    ),
    NetworkFault(
        "bandwidth",
        f"{RATE} KB/s",
        lambda _before, seen: seen.how in {"answer", "silence"},  # one byte fits any bandwidth: the pooled probe is the proof
        _slow(0.25),
        toxics=(Toxic("bandwidth", attributes={"rate": RATE}),),
        degraded=True,
    ),
    NetworkFault(
        "slicer",
        "answers sliced to some 64 bytes, 5 ms apart",
        lambda _before, seen: seen.how in {"answer", "silence"},
        _slow(0.1),
        toxics=(Toxic("slicer", attributes={"average_size": 64, "size_variation": 32, "delay": 5_000}),),
        degraded=True,
    ),
    NetworkFault(
        "cut",
        f"cut in mid-stream after {CUT_AFTER} bytes",
        lambda _before, seen: seen.how in {"answer", "closed", "reset"},  # its one byte comes before the cut
        _is("closed", "reset"),
        toxics=(Toxic("limit_data", attributes={"bytes": CUT_AFTER}),),
    ),
)

SLOW = NetworkFault(
    "slow",
    "slow queries: each answer of the database a second late",
    _slow(0.9),
    _slow(0.9),
    toxics=(Toxic("latency", attributes={"latency": 1_000}),),
    degraded=True,
)


class Established(Protocol):
    """A connection of our own that is open when the fault strikes; `baseline` is what it saw before."""

    baseline: Seen

    def query(self) -> Seen:
        """Ask over it."""

    def ended(self) -> str:
        """'open', 'closed' (FIN) or 'reset' (RST)."""

    def close(self) -> None:
        """Drop it."""


class Prober(Protocol):
    """Makes connections of our own on the target's path to its database."""

    def ask(self) -> Seen:
        """A new one, up to the server's first byte."""

    def connect(self) -> Seen:
        """A new one, as whole as it gets."""

    def established(self) -> Established:
        """One that stays."""

    def fair(self, before: Seen, during: Seen) -> Seen:
        """What was seen during a fault, as a rule of `NETWORK` has to see it: they are made for `SessionProber`."""


@dataclass(frozen=True, slots=True)
class SessionProber:
    """Verify-full sessions of the target's own role, through the proxy at a port of loopback."""

    conninfo: str
    port: int

    def ask(self) -> Seen:
        """An SSLRequest and its answer."""
        return ask(self.port)

    def connect(self) -> Seen:
        """A session with one query."""
        return connect(self.conninfo)

    def established(self) -> PooledProbe:
        """A session that is asked for 16 KiB."""
        return PooledProbe(self.conninfo, self.port)

    def fair(self, before: Seen, during: Seen) -> Seen:
        """As it is."""
        del before
        return during


@dataclass(slots=True)
class NetworkInjector:
    """Carries out one row on one proxy. `sever` closes the target's established connections and returns how many there were.

    scope 'pooled': the connections are open when the fault strikes. 'new': they are cut as it strikes, so that the target has
    nothing but new attempts.
    """

    fault: NetworkFault
    scope: str
    control: ProxyControl
    proxy: str
    prober: Prober
    sever: Callable[[], int]
    _pooled: Established | None = field(default=None)
    _before: Restore | None = field(default=None)
    _whole: Seen = field(default=Seen("never asked", 0.0))
    id: str = field(init=False)
    title: str = field(init=False)

    def __post_init__(self) -> None:
        self.id = f"{self.fault.id}.{self.scope}"
        self.title = f"{self.fault.title}, {self.scope} connections"

    def undo(self) -> tuple[Restore, ...]:
        """The proxy as it is now, without any of the row's toxics."""
        self._before = self.control.undo(self.proxy, (*self.fault.toxics, *self.fault.arm))
        return (self._before,)

    @property
    def armed(self) -> bool:
        """Whether something has to be in place before the connections that it is to strike are opened."""
        return bool(self.fault.arm) and self.scope == "pooled"

    def arm(self) -> bool:
        """What must be in place before; True when the target has to open its connections anew for it (they were cut)."""
        for toxic in self.fault.arm if self.armed else ():
            self.control.add(self.proxy, toxic)
        if self.armed:
            self.sever()
        return self.armed

    def inject(self) -> None:
        """Open the probe, then break the path.

        For 'new' the established connections are cut once the toxics are in place, so that the first attempt to come back meets
        them. For an RST the proxy is disabled in between: with the armed toxic's SO_LINGER 0 that is what sends it.
        """
        self._pooled = self.prober.established()
        self._whole = self.prober.connect()
        reset = self.armed
        if reset or self.fault.disable:
            self.control.enable(self.proxy, False)
        for toxic in self.fault.arm if reset else ():
            self.control.remove(self.proxy, toxic)
        for toxic in self.fault.toxics:
            self.control.add(self.proxy, toxic)
        if reset:
            self.control.enable(self.proxy, True)
        if self.scope == "new":
            self.sever()

    def confirm(self) -> Effect:
        """Both probes, each held against its rule; the established one only where it was left established."""
        assert self._pooled is not None
        fresh = self.prober.ask()
        took = self.fault.new(_BASELINE, self.prober.fair(self._whole, fresh))
        seen = f"a new connection saw {fresh}"
        if self.scope == "pooled":
            during = self._pooled.query()
            took = took and self.fault.pooled(self._pooled.baseline, self.prober.fair(self._pooled.baseline, during))
            seen += f"; an established one saw {during} ({self._pooled.baseline} before)"
            if self.fault.arm:
                ended = self._pooled.ended()
                took = took and ended == "reset"
                seen += f", a bare one beside it was {ended}"
        elif self.fault.id in {"bandwidth", "slicer", "cut"}:
            whole = self.prober.connect()
            took = took and (self.fault.pooled(self._whole, self.prober.fair(self._whole, whole)) or whole.how != "answer")
            seen += f"; a whole new session saw {whole} ({self._whole} before)"
        return Effect(took=took, seen=seen, count=1 + (self.scope == "pooled"))

    def heal(self) -> None:
        """No toxics of ours, enabled as it was, read back."""
        self.control.clean(self.proxy, enabled=self._before.enabled if self._before else True)
        if self._pooled is not None:
            self._pooled.close()
            self._pooled = None


_BASELINE = Seen("answer", 0.005)
