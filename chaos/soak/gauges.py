"""What is looked at once a minute beside the load: the target's process, its sessions, handshakes, certificate, and ourselves.

Only what can be seen of this target: a gauge that cannot is absent, and says nothing.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
import psycopg
from cryptography import x509

from chaos.checks.handshakes import completed
from chaos.export import certificates
from chaos.faults.database import OURS, admin
from chaos.model import Gauge, now
from chaos.soak.writes import Sampled, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chaos.model import Operation
    from chaos.rig import Rig

DAY = 86_400.0
LOOKS = 3600.0  # s between two looks at the certificate
REMEMBERED = 300.0  # s: longer than any abort condition looks back, or an experiment's own traffic
YOUNG = 2.0  # s in which a handshake may still be under way


@dataclass
class Gauges:
    """Of one rig. `take()` is one look at everything."""

    rig: Rig
    writes: Sampled = field(init=False)
    seen: Seen = field(default_factory=Seen)
    _until: float = field(default_factory=now)
    _ends: float = 0.0
    _looked: float = float("-inf")

    def __post_init__(self) -> None:
        self.writes = Sampled(self.rig.driver, self.rig.once, self.rig.seed)

    def take(self, acknowledged: Iterable[Operation]) -> tuple[Gauge, ...]:
        """Each with the real moment at which it was seen. Of the writes that were `acknowledged` some are looked up, now and later."""
        found = {**self._process(), **self._sessions(), **self._handshakes(), **self._certificate()}
        self.seen = self.writes.look(acknowledged)
        if self.seen.checked:
            found |= {f"writes.{name}": float(getattr(self.seen, name)) for name in ("checked", "lost", "doubled")}
        found["runner.memory"] = float(psutil.Process().memory_info().rss)
        at = now()
        return tuple(Gauge(at=at, name=name, value=value) for name, value in found.items())

    def _process(self) -> dict[str, float]:
        """Of the target and everything that it has started, where it is a process here."""
        pid = self.rig.target.pid
        if pid is None:
            return {}
        memory = files = threads = 0
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            for one in _tree(pid):
                with contextlib.suppress(psutil.NoSuchProcess):  # a child that ends meanwhile
                    memory += one.memory_info().rss
                    files += one.num_fds()
                    threads += one.num_threads()
            return {"target.memory": float(memory), "target.open_files": float(files), "target.threads": float(threads)}
        return {}

    def _sessions(self) -> dict[str, float]:
        if not self.rig.ours:
            return {}
        server = self.rig.environment.postgres
        with contextlib.suppress(psycopg.Error), admin(server) as session:
            row = session.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND application_name <> ALL (%s)",
                (server.app_user, list(OURS)),
            ).fetchone()
            return {"database.sessions": float(str(row[0]))} if row else {}
        return {}

    def _handshakes(self) -> dict[str, float]:
        """On the wire since the last look, outside of what the suite itself broke."""
        if not self.rig.ours:
            return {}
        since, self._until = self._until, now() - YOUNG
        new = [one for one in self.rig.path.connections(since) if one.opened < self._until]
        counted = completed(new, self._disturbed())
        failed = sum(not one.established for one in counted)
        return {"handshakes.made": float(len(counted)), "handshakes.failed": float(failed)}

    def _disturbed(self) -> list[tuple[float, float]]:
        """What a fault leaves behind may be felt for as long as recovery takes; an impostor is gone when it is."""
        margin = self.rig.config.target.database.recovery
        broken = [(start - 1.0, end + margin) for start, end in self.rig.broken[-4:]]
        return broken + [(start - 0.2, end) for start, end in self.rig.posed[-4:]]

    def _certificate(self) -> dict[str, float]:
        """Days until what the database presents ends, where it is ours; else what the target itself presents."""
        if time.monotonic() - self._looked > LOOKS:
            self._looked = time.monotonic()
            with contextlib.suppress(OSError, ValueError):
                self._ends = self._ending()
        return {"certificate.days": (self._ends - time.time()) / DAY} if self._ends else {}

    def _ending(self) -> float:
        if self.rig.ours:
            return certificates.of_server(f"127.0.0.1:{self.rig.environment.postgres.port}")[0].not_after
        if not self.rig.target.base_url.startswith("https://"):
            return 0.0
        shown = ssl.get_server_certificate(self.rig.target.address, timeout=5.0)
        return x509.load_pem_x509_certificate(shown.encode()).not_valid_after_utc.timestamp()

    def forget(self) -> None:
        """What is in the evidence already need not be remembered: a soak of days must not grow."""
        before = min(self._until, now() - REMEMBERED)
        self.rig.driver.recorder.forget(before)
        if self.rig.ours:
            self.rig.path.forget(before)


def _tree(pid: int) -> Iterator[psutil.Process]:
    first = psutil.Process(pid)
    yield first
    yield from first.children(recursive=True)
