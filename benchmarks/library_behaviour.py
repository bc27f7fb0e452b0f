"""What libraries do as they come when PostgreSQL is out of reach: `python benchmarks/library_behaviour.py [NAME...]`.

Real libraries on a real PostgreSQL, each client on a listener of its own. Three trials of each: an outage of 5 s, one of 20 s (every
connection is reset, every new one is told 57P03), and idle connections that become black holes. The table is Markdown, the one of
docs/library-behaviour.md; some five minutes in all, most of them waited through.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from chaos import retries
from chaos.checks.backoff import tried
from chaos.checks.replicas import chain
from chaos.environments.local import LocalEnvironment
from chaos.faults.wire import Impostor, Relay, Wire
from chaos.model import now
from chaos.processes import Process, Reaper

HERE = Path(__file__).parent
NAMES = ("psycopg_pool", "sqlalchemy", "asyncpg", "stamina", "tenacity", "tenacity_exponential")
CLIENTS, OF_ASYNCPG = 6, 3  # asyncpg's pool opens ten connections, and the server has forty slots
OUTAGES = (5.0, 20.0)  # s
PATIENCE = 40.0  # s to serve again, and for one query in the drain
STARTS = 15.0  # s


@dataclass
class Client:
    """One process, its wire, and what it wrote."""

    wire: Wire
    process: Process
    log: Path

    def answers(self, since: float) -> list[tuple[str, float, float]]:
        """(how, asked, answered) of the queries that were answered after then."""
        lines = [line.split() for line in self.log.read_text(encoding="ascii", errors="replace").splitlines()]
        found = [(one[0], float(one[1]), float(one[2])) for one in lines if len(one) == 3 and one[0] in {"ok", "fail"}]
        return [one for one in found if one[2] >= since]


@dataclass
class Seen:
    """What a library showed."""

    name: str
    lags: dict[float, list[float]] = field(default_factory=dict)
    attempts: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    pauses: list[tuple[float, ...]] = field(default_factory=list)
    drain: str = ""

    def row(self) -> str:
        """Of the table."""
        grown = retries.growth(self.pauses)
        spread = retries.jitter(self.pauses, noise=0.005)
        ratio = sum(self.attempts) / max(1, sum(self.requests))
        if 0.8 < ratio < 1.2:  # one for each query: its pauses are the caller's
            grown = spread = None
        rise = f"x {grown.rise.value:.0f}" if grown else "-"
        jitter = f"{spread.top}" if spread and spread.top else "-"
        longest = f"{max((max(one) for one in self.pauses if one), default=0.0):.2f} s" if grown else "-"
        lags = [_lags(self.lags[length]) for length in OUTAGES]
        cells = [
            self.name,
            f"{statistics.median(self.attempts):.0f}",
            f"{ratio:.1f}",
            rise,
            jitter,
            longest,
            *lags,
            self.drain,
        ]
        return "| " + " | ".join(cells) + " |"


def _lags(found: list[float]) -> str:
    never = sum(lag < 0 for lag in found)
    known = sorted(lag for lag in found if lag >= 0)
    text = f"{statistics.median(known):.1f} s (at most {known[-1]:.1f})" if known else ""
    return ", ".join(filter(None, [text, f"{never} never" if never else ""]))


class Trial:
    """All clients of one library."""

    def __init__(self, name: str, environment: LocalEnvironment, reaper: Reaper, folder: Path, ending: ExitStack) -> None:
        self.seen = Seen(name)
        self.impostor = Impostor(environment.authority.issue("valid"), then="close")
        self.clients = []
        for number in range(OF_ASYNCPG if name == "asyncpg" else CLIENTS):
            wire = Wire(("127.0.0.1", environment.postgres.port))
            url = environment.postgres.database_url(wire.start())
            ending.callback(wire.stop)
            log = folder / f"{name}-{number}.log"
            process = reaper.spawn(
                [sys.executable, str(HERE / "library_clients.py"), name, url],
                name=name,
                cwd=folder,
                env={"PATH": "/usr/bin:/bin"},
                log=log,
            )
            ending.callback(process.stop)
            self.clients.append(Client(wire, process, log))

    def healthy(self) -> None:
        """Until each client has had an answer."""
        since = now()
        end = since + STARTS
        while not all(any(how == "ok" for how, _, _ in one.answers(since)) for one in self.clients):
            if now() > end:
                sys.exit(f"{self.seen.name} does not work at all:\n{self.clients[0].log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.1)

    def outage(self, length: float) -> None:
        """One for all, that ends for one after the other."""
        onset = now()
        for one in self.clients:
            one.wire.behave(self.impostor)
            one.wire.sever()
        time.sleep(length)
        healed = []
        for one in self.clients:
            one.wire.behave(Relay())
            healed.append(now())
            time.sleep(length / 20)
        lags = [self._lag(one, when) for one, when in zip(self.clients, healed, strict=True)]
        self.seen.lags[length] = lags
        if length < max(OUTAGES):
            return
        for one, when in zip(self.clients, healed, strict=True):
            attempts = tried([each for each in one.wire.connections(onset) if each.behaviour != "relay"], onset, when)
            self.seen.attempts.append(len(attempts))
            self.seen.requests.append(max(1, sum(asked < when for _, asked, _ in one.answers(onset))))
            self.seen.pauses.append(chain(attempts)[0])

    def _lag(self, one: Client, healed: float) -> float:
        while now() < healed + PATIENCE:
            good = [at for how, _, at in one.answers(healed) if how == "ok"]
            if good:
                return good[0] - healed
            time.sleep(0.05)
        return -1.0

    def drain(self) -> None:
        """The first client's idle connections become black holes: how many queries fail, and how long until one is answered."""
        one = self.clients[0]
        asked = now()
        died = one.wire.kill("hole", 99)
        if not died:
            self.seen.drain = "nothing is kept"
            return
        while now() < asked + PATIENCE and not any(how == "ok" and begun > asked for how, begun, _ in one.answers(asked)):
            time.sleep(0.1)
        answers = one.answers(asked)
        good = [at for how, begun, at in answers if how == "ok" and begun > asked]
        failed = sum(how == "fail" for how, _, _ in answers)
        what = f"{good[0] - asked:.1f} s" if good else f"> {PATIENCE:.0f} s"
        self.seen.drain = f"{died} dead: {what}, {failed} failed"


def main() -> None:
    """From the command line."""
    names = sys.argv[1:] or NAMES
    rows = []
    with Reaper("libraries") as reaper:
        folder = Path(tempfile.mkdtemp())
        reaper.own(folder)
        environment = LocalEnvironment(reaper=reaper, run_dir=folder)
        environment.start()
        for name in names:
            with ExitStack() as ending:
                trial = Trial(name, environment, reaper, folder, ending)
                for length in OUTAGES:
                    trial.healthy()
                    trial.outage(length)
                trial.healthy()
                trial.drain()
                rows.append(trial.seen.row())
                sys.stderr.write(rows[-1] + "\n")
        environment.stop()
    sys.stdout.write(
        "| library | attempts in 20 s | for each query | longest pause / first | (P90 - P10) / median at the top | longest pause "
        "| serving again after 5 s | after 20 s | idle connections dead |\n" + "|---" * 9 + "|\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
